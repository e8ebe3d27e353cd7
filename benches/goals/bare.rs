//! A client that uses only hyper and serde_json. It fetches and parses the same pages as the exporter, and discards the
//! results.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of job runs that the exporter parses, and some fields of other resources.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "the benchmark measures their deserialization")]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    job_id: Option<&'a RawValue>,
    #[serde(borrow)]
    job_type: Option<&'a RawValue>,
    #[serde(borrow)]
    job_module: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    backup_scope_name: Option<&'a RawValue>,
    #[serde(borrow)]
    start_time: Option<&'a RawValue>,
    #[serde(borrow)]
    end_time: Option<&'a RawValue>,
    #[serde(borrow)]
    last_modify_time: Option<&'a RawValue>,
    #[serde(borrow)]
    job_duration: Option<&'a RawValue>,
    #[serde(borrow)]
    backup_size: Option<&'a RawValue>,
    #[serde(borrow)]
    total_count: Option<&'a RawValue>,
    #[serde(borrow)]
    successful_count: Option<&'a RawValue>,
    #[serde(borrow)]
    failed_count: Option<&'a RawValue>,
    #[serde(borrow)]
    skipped_count: Option<&'a RawValue>,
    #[serde(borrow)]
    warning_count: Option<&'a RawValue>,
    #[serde(borrow)]
    comment: Option<&'a RawValue>,
    #[serde(borrow)]
    organization: Option<&'a RawValue>,
    #[serde(borrow)]
    job_status: Option<&'a RawValue>,
    #[serde(borrow)]
    profile_id: Option<&'a RawValue>,
    #[serde(borrow)]
    profile_name: Option<&'a RawValue>,
    #[serde(borrow)]
    products: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    value: Option<Vec<Row<'a>>>,
}

/// Fetches every page that the exporter requested from the stub, and prints the CPU time in seconds.
pub fn run(address: &str, concurrency: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let paths = fetch(&mut connect(address).await, address, "/-/paths").await;
        let paths: Vec<String> = String::from_utf8(paths.to_vec())
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect();
        let (paths, next) = (Arc::new(paths), Arc::new(AtomicUsize::new(0)));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..concurrency {
            let (paths, next, address) = (Arc::clone(&paths), Arc::clone(&next), address.to_owned());
            workers.spawn(async move {
                let mut sender = connect(&address).await;
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let body = fetch(&mut sender, &address, path).await;
                    let page: Page<'_> = serde_json::from_slice(&body).unwrap();
                    if black_box(page).value.is_none() {
                        black_box(serde_json::from_slice::<Row<'_>>(&body).unwrap());
                    }
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
    });
    let elapsed = crate::report::cpu_time(std::process::id());
    println!("{}", elapsed.as_secs_f64());
}

async fn connect(address: &str) -> http1::SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn fetch(sender: &mut http1::SendRequest<Body>, address: &str, path: &str) -> Bytes {
    sender.ready().await.unwrap();
    let request = hyper::Request::get(path)
        .header("host", address)
        .header("authorization", "Bearer unused")
        .body(Body::empty())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    axum::body::to_bytes(Body::new(response.into_body()), usize::MAX)
        .await
        .unwrap()
}
