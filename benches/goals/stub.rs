//! An API with a fixed latency. It serves any number of customers by reusing the simulated partner's responses for a
//! small number of customers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use elements_exporter::simulator::{Settings, Simulator};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::dense;

/// Number of simulated customers, equal to the default of the demo. Their responses serve as templates for all
/// customers. One of them has far more modules than the others.
const TEMPLATES: usize = 75;

struct Stub {
    latency: Duration,
    partner: SocketAddr,
    templates: Vec<String>,
    /// Lists of all customers, by path.
    lists: HashMap<&'static str, Bytes>,
    responses: Mutex<HashMap<String, Bytes>>,
    log: Mutex<RequestLog>,
}

#[derive(Default)]
struct RequestLog {
    paths: Vec<String>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Serves responses until standard input is closed.
pub fn serve(customers: usize, latency_milliseconds: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let settings = Settings {
            customers: TEMPLATES,
            churn: false,
            ..Settings::default()
        };
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::bind(settings, local).await.unwrap();
        let partner: SocketAddr = simulator.base_url().trim_start_matches("http://").parse().unwrap();
        tokio::spawn(simulator.run(CancellationToken::new()));
        let (templates, lists) = tokio::task::spawn_blocking(move || fetch_lists(partner, customers))
            .await
            .unwrap();
        let stub = Arc::new(Stub {
            latency: Duration::from_millis(latency_milliseconds),
            partner,
            templates,
            lists,
            responses: Mutex::default(),
            log: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind(local).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stub = Arc::clone(&stub);
            let service = service_fn(move |request| respond(Arc::clone(&stub), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// Fetches the simulated partner's lists of customers and subscriptions. Returns the ids of its customers, which are the
/// templates, and lists based on the fetched lists with `customers` rows.
fn fetch_lists(partner: SocketAddr, customers: usize) -> (Vec<String>, HashMap<&'static str, Bytes>) {
    let form = "grant_type=client_credentials&client_id=demo&client_secret=demo-secret\
                &scope=partner.customers.read.all+partner.license.read.all";
    let form_type = "application/x-www-form-urlencoded";
    let token: Value = serde_json::from_slice(&send(partner, "POST", "/connect/token", None, form_type, form)).unwrap();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let fetch =
        |path: &str| -> Value { serde_json::from_slice(&send(partner, "GET", path, Some(&bearer), "", "")).unwrap() };
    let id = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let listed = fetch("/partner/customers");
    let templates: Vec<String> = listed["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| id(row, "id"))
        .collect();
    let multiplied = |mut list: Value, key: &str| -> Bytes {
        let rows: HashMap<String, Value> = list["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (id(row, key), row.clone()))
            .collect();
        let all = (0..customers).map(|n| {
            let mut row = rows[&templates[n % TEMPLATES]].clone();
            row[key] = dense::customer_id(n).into();
            row
        });
        list["value"] = all.collect();
        serde_json::to_vec(&list).unwrap().into()
    };
    let services = fetch("/partner/services");
    let lists = HashMap::from([
        ("/partner/customers", multiplied(listed, "id")),
        ("/partner/services", multiplied(services, "customerId")),
    ]);
    (templates, lists)
}

async fn respond(stub: Arc<Stub>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str())
        .to_owned();
    if path == "/-/paths" {
        return Ok(Response::new(Body::from(stub.log.lock().unwrap().paths.join("\n"))));
    }
    if path == "/-/elapsed" {
        let log = stub.log.lock().unwrap();
        let elapsed = log
            .last
            .zip(log.first)
            .map_or(Duration::ZERO, |(last, first)| last - first);
        return Ok(Response::new(Body::from(format!(
            "{} {}",
            log.paths.len(),
            elapsed.as_secs_f64()
        ))));
    }
    let start = Instant::now();
    let token = path == "/connect/token";
    let bearer = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let bearer = bearer.map(ToOwned::to_owned);
    let method = request.method().to_string();
    tokio::time::sleep(stub.latency).await;
    let body = if token {
        let form = axum::body::to_bytes(Body::new(request.into_body()), 1 << 20)
            .await
            .unwrap();
        let form = String::from_utf8(form.to_vec()).unwrap();
        let partner = stub.partner;
        let fetch = move || {
            send(
                partner,
                "POST",
                "/connect/token",
                None,
                "application/x-www-form-urlencoded",
                &form,
            )
        };
        tokio::task::spawn_blocking(fetch).await.unwrap().into()
    } else {
        fetch_template(&stub, &method, &path, bearer).await
    };
    if !token {
        let mut log = stub.log.lock().unwrap();
        log.first.get_or_insert(start);
        log.last = Some(Instant::now());
        log.paths.push(path);
    }
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Body::from(body)).unwrap())
}

/// Returns the simulated partner's response for a template. Responses are cached.
async fn fetch_template(stub: &Arc<Stub>, method: &str, path: &str, bearer: Option<String>) -> Bytes {
    if let Some(list) = stub.lists.get(path) {
        return list.clone();
    }
    let id = path
        .strip_prefix("/partner/customers/")
        .and_then(|rest| rest.split('/').next());
    let number = id.and_then(|id| usize::from_str_radix(id.get(..8)?, 16).ok());
    let path = match (id, number) {
        (Some(id), Some(number)) => path.replace(id, &stub.templates[number % TEMPLATES]),
        _ => path.to_owned(),
    };
    if let Some(cached) = stub.responses.lock().unwrap().get(&path).cloned() {
        return cached;
    }
    let (partner, requested, method) = (stub.partner, path.clone(), method.to_owned());
    let fetch = move || send(partner, &method, &requested, bearer.as_deref(), "", "");
    let body = Bytes::from(tokio::task::spawn_blocking(fetch).await.unwrap());
    stub.responses.lock().unwrap().insert(path, body.clone());
    body
}

/// Sends a request to the simulated partner over a new connection.
fn send(
    partner: SocketAddr,
    method: &str,
    path: &str,
    bearer: Option<&str>,
    content_type: &str,
    body: &str,
) -> Vec<u8> {
    let mut stream = TcpStream::connect(partner).unwrap();
    let authorization = bearer
        .map(|bearer| format!("Authorization: {bearer}\r\n"))
        .unwrap_or_default();
    let content_type = if content_type.is_empty() {
        String::new()
    } else {
        format!("Content-Type: {content_type}\r\n")
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {partner}\r\n{authorization}{content_type}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&response[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 20"), "{method} {path}: {head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    response.split_off(end + 4)
}
