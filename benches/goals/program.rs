//! The program's startup time, its memory use with a hundred customers, and its size.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::fetch_text;
use crate::report::{median, print_goal, status_bytes};
use crate::server::Server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_elements_exporter");
const CUSTOMERS: usize = 100;
const STARTS: usize = 9;

/// Time without requests after which the program counts as idle.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// The running program. Dropping the value kills the process.
pub struct Exporter {
    pub address: SocketAddr,
    child: Child,
}

impl Exporter {
    /// Starts the program with API v1, and with intervals so long that each resource is polled only once.
    pub fn start(api: &str, concurrency: usize) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .env("ELEMENTS_API__VERSION", "v1")
            .env("ELEMENTS_API__BASE_URL", format!("http://{api}"))
            .env("ELEMENTS_API__TOKEN_URL", format!("http://{api}/connect/token"))
            .env("ELEMENTS_API__REQUESTS_PER_SECOND", "1000")
            .env("ELEMENTS_API__MAX_CONCURRENCY", concurrency.to_string())
            .env("ELEMENTS_AUTH__CLIENT_ID", "demo")
            .env("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret")
            .stdin(Stdio::null());
        for collector in [
            "CUSTOMERS",
            "JOBS",
            "PROTECTED",
            "LICENSES",
            "SCAN_PROFILES",
            "SCAN_CHANGES",
        ] {
            command.env(format!("ELEMENTS_COLLECTORS__{collector}__INTERVAL"), "1day");
        }
        let child = command.spawn().unwrap();
        let exporter = Self { address, child };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the program is not listening"
            );
            thread::sleep(Duration::from_millis(1));
        }
        exporter
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the mean duration of the program's API requests, in seconds.
    pub fn mean_request(&self) -> f64 {
        let metrics = fetch_text(self.address, "/metrics?collector=exporter");
        let sum = |suffix: &str| -> f64 {
            let name = format!("elements_exporter_api_request_duration_seconds_{suffix}{{");
            let lines = metrics.lines().filter(|line| line.starts_with(&name));
            lines
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        sum("sum") / sum("count")
    }

    /// Returns whether every collector has polled every customer.
    pub fn has_polled_everything(&self) -> bool {
        let metrics = fetch_text(self.address, "/metrics?collector=exporter");
        let mut customers = 0.0;
        let mut pending = 0.0;
        for line in metrics
            .lines()
            .filter(|line| line.starts_with("elements_exporter_customers{"))
        {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            customers += value;
            pending += if series.contains("state=\"pending\"") {
                value
            } else {
                0.0
            };
        }
        customers > 0.0 && pending == 0.0
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let stub = Server::spawn(command.args(["stub", &CUSTOMERS.to_string(), "1"]));
    let start_program = || {
        let start = Instant::now();
        let exporter = Exporter::start(&stub.address.to_string(), 8);
        assert!(fetch_text(exporter.address, "/metrics").contains("elements_up"));
        (exporter, start.elapsed())
    };
    let starts: Vec<Duration> = (0..STARTS).map(|_| start_program().1).collect();
    let (exporter, _) = start_program();
    while !exporter.has_polled_everything() {
        thread::sleep(Duration::from_millis(100));
    }
    let series = fetch_text(exporter.address, "/metrics")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    thread::sleep(IDLE_TIME);
    let resident = status_bytes(exporter.pid(), "VmRSS") as f64 / 1e6;
    let size = std::fs::metadata(PROGRAM).unwrap().len() as f64 / 1e6;
    println!("{CUSTOMERS} customers, {series} series");
    print_goal(
        "start to first /metrics, in ms",
        1e3 * median(&starts).as_secs_f64(),
        100.0,
    );
    print_goal("resident memory when idle, in MB", resident, 20.0);
    print_goal("size of the program, in MB", size, 15.0);
}
