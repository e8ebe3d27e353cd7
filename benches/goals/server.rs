//! Servers in separate processes: the exporter, the reference stack, and nginx.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path as UrlPath;
use axum::routing::get;
use elements_exporter::exposition::Format;
use elements_exporter::health::Health;
use elements_exporter::http::server::Listener;
use elements_exporter::http::{self, Site};
use elements_exporter::scrape::ScrapeFilter;
use elements_exporter::status::Status;
use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

use crate::{dense, peers};

/// A server process. Dropping the value kills the process.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts one of this program's servers: `ours`, `finished`, `reference` or `empty`.
    pub fn start(which: &str) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()).args(["serve", which]))
    }

    /// Starts a program that prints its address on its first line.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            address: line.trim().parse().unwrap(),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx with prepared files.
pub struct Nginx {
    pub address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx, if `benches/run` has installed it. nginx serves `metrics`, or `metrics.gz` to clients that accept
    /// gzip.
    pub fn start(text: &[u8], compressed: &[u8]) -> Option<Self> {
        let program = std::env::var_os("BENCH_NGINX")?;
        let folder = std::env::temp_dir().join(format!("elements-bench-{}", std::process::id()));
        fs::create_dir_all(folder.join("files")).unwrap();
        fs::write(folder.join("files/metrics"), text).unwrap();
        fs::write(folder.join("files/metrics.gz"), compressed).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let root = folder.display();
        // The configuration is based on Debian's. It has other paths, serves precompressed files, writes no access log,
        // and omits directives that need a system user.
        let config = format!(
            "worker_processes auto;\ndaemon off;\npid {root}/pid;\nerror_log {root}/error.log;\n\
             events {{ worker_connections 768; }}\n\
             http {{\n  sendfile on;\n  tcp_nopush on;\n  types_hash_max_size 2048;\n  access_log off;\n\
             default_type text/plain;\n  gzip_static on;\n  client_body_temp_path {root}/body;\n\
             proxy_temp_path {root}/proxy;\n  fastcgi_temp_path {root}/fastcgi;\n  uwsgi_temp_path {root}/uwsgi;\n\
             scgi_temp_path {root}/scgi;\n  server {{ listen {address}; root {root}/files; }}\n}}\n"
        );
        let user = if is_root() { "user root;\n" } else { "" };
        fs::write(folder.join("nginx.conf"), format!("{user}{config}")).unwrap();
        let child = Command::new(program)
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .spawn()
            .unwrap();
        let nginx = Self { address, child, folder };
        for _ in 0..100 {
            if TcpStream::connect(address).is_ok() {
                return Some(nginx);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "nginx is not responding: {}",
            fs::read_to_string(nginx.folder.join("error.log")).unwrap_or_default()
        );
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // On SIGTERM, the master process stops its workers. SIGKILL would leave the workers running.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(Path::new(&self.folder));
    }
}

/// Runs one of this program's servers until standard input is closed.
pub fn serve(which: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let router = match which {
        "ours" => ours(),
        "reference" => reference(),
        "finished" => finished(),
        "empty" => Router::new().route("/metrics", get(|| async { "" })),
        other => panic!("unknown server {other}"),
    };
    let serving = async {
        let listener = Listener::bind(&["127.0.0.1:0".to_owned()]).await.unwrap();
        println!("{}", listener.address().unwrap());
        std::io::stdout().flush().unwrap();
        listener.serve(router, None, stop.clone()).await;
    };
    std::thread::spawn({
        let stop = stop.clone();
        move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.cancel();
        }
    });
    runtime.block_on(serving);
}

/// Returns the exporter's routes with a dense store, and a route that commits every nth customer with new values.
fn ours() -> Router {
    let store = dense::store();
    let (scrape, health) = (Arc::new(dense::scrape(&store)), Arc::new(Health::new()));
    let status = Status::new(Arc::clone(&store), Arc::clone(&health), Arc::default(), None);
    let site = Site {
        scrape,
        status: Arc::new(status),
        bodies: Arc::default(),
        health,
        telemetry_path: "/metrics".to_owned(),
        route_prefix: String::new(),
        external_url: None,
        grafana_url: None,
        reload: None,
        subtitle: String::new(),
    };
    let changes = Arc::new(AtomicUsize::new(0));
    let publish = move |UrlPath(every): UrlPath<usize>| async move {
        let change = changes.fetch_add(1, Ordering::Relaxed);
        (0..dense::CUSTOMERS)
            .step_by(every)
            .for_each(|customer| dense::publish_changed(&store, customer, change));
        ""
    };
    http::routes(site).route("/publish/{every}", get(publish))
}

/// Returns routes that send rendered text from memory, in frames of the same size as the exporter's. They show the cost
/// of a scrape without rendering.
fn finished() -> Router {
    let store = dense::store();
    let frames = dense::scrape(&store).frames(&ScrapeFilter::default(), Format::Text);
    let frames: Arc<Vec<Bytes>> = Arc::new(frames.map(Bytes::from).collect());
    let metrics = move || async move {
        let frames = Arc::clone(&frames);
        let frames = (0..frames.len()).map(move |at| Ok::<_, Infallible>(frames[at].clone()));
        Body::from_stream(stream::iter(frames))
    };
    Router::new().route("/metrics", get(metrics))
}

/// Returns the routes of the reference stack: prometheus-client's `Family` encoded as text, with tower-http's
/// compression.
fn reference() -> Router {
    let registry = Arc::new(peers::families());
    let metrics = move || async move {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    Router::new()
        .route("/metrics", get(metrics))
        .layer(CompressionLayer::new())
}
