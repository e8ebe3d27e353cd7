//! Scraping clients. Each scrape opens a connection and reads the whole response.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of bytes per read.
const BUFFER_BYTES: usize = 256 * 1024;

/// Encoding requested by a scrape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
}

/// Scrapes once. Returns the duration and the number of bytes.
pub fn scrape(address: SocketAddr, path: &str, encoding: Encoding) -> (Duration, usize) {
    let mut buffer = vec![0; BUFFER_BYTES];
    scrape_into(&mut buffer, address, path, encoding)
}

fn scrape_into(buffer: &mut [u8], address: SocketAddr, path: &str, encoding: Encoding) -> (Duration, usize) {
    let accept = match encoding {
        Encoding::Identity => "",
        Encoding::Gzip => "Accept-Encoding: gzip\r\n",
    };
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = 0;
    let mut first = true;
    loop {
        let read = stream.read(buffer).unwrap();
        if std::mem::take(&mut first) {
            assert!(
                buffer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&buffer[..read.min(200)])
            );
        }
        if read == 0 {
            return (start.elapsed(), bytes);
        }
        bytes += read;
    }
}

/// Read timeout. It exceeds Prometheus' query timeout, so that a slow query fails with an error from Prometheus.
const TEXT_TIMEOUT: Duration = Duration::from_secs(150);

/// Returns the body of a response with status 200.
pub fn fetch_text(address: SocketAddr, path: &str) -> String {
    fetch(address, path).unwrap_or_else(|head| panic!("{path}: {head}"))
}

/// Returns whether a server accepts connections and responds with status 200.
pub fn responds(address: SocketAddr, path: &str) -> bool {
    TcpStream::connect(address).is_ok() && fetch(address, path).is_ok()
}

/// Returns the body of a response with status 200, or the status line and headers of any other response.
fn fetch(address: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEXT_TIMEOUT)).unwrap();
    // Responses to HTTP/1.0 requests are not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    match head.starts_with("HTTP/1.") && head.contains(" 200 ") {
        true => Ok(body.to_owned()),
        false => Err(head.to_owned()),
    }
}

/// Runs several scrapers concurrently, each of which scrapes `times` times.
pub fn scrape_concurrently(
    scrapers: usize,
    times: usize,
    address: SocketAddr,
    path: &str,
    encoding: Encoding,
) -> Vec<Duration> {
    thread::scope(|scope| {
        let scraper = || {
            let mut buffer = vec![0; BUFFER_BYTES];
            let scrapes = (0..times).map(|_| scrape_into(&mut buffer, address, path, encoding).0);
            scrapes.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..scrapers).map(|_| scope.spawn(scraper)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs several scrapers concurrently, each in its own process. They request compressed responses.
pub fn scrape_from_processes(scrapers: usize, times: usize, address: SocketAddr, path: &str) {
    let scraper = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["scraper", &address.to_string(), path, &times.to_string()]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..scrapers).map(|_| scraper()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

/// Scrapes repeatedly, in a process that [`scrape_from_processes`] started.
pub fn scrape_repeatedly(address: SocketAddr, path: &str, times: usize) {
    for _ in 0..times {
        scrape(address, path, Encoding::Gzip);
    }
}
