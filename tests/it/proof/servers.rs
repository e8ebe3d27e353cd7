//! Prometheus and its tools, run by hand: on a free port, with their data in a directory of the test, killed when dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::parser::promtool;

/// How long a server may take until it is ready, on a slow machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How often a server is started anew because somebody else took its port before it did.
const START_ATTEMPTS: usize = 5;

/// A program of `tests/run`: the one that its variable names, or the one on the path.
fn tool(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

/// A server that runs as long as this is held.
pub struct Server {
    child: Child,
    log: PathBuf,
    pub base: String,
    client: reqwest::Client,
}

impl Server {
    /// Starts a program that is told where to listen, and waits until it is ready.
    async fn start(program: &str, directory: &Path, arguments: &[String]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let log = directory.join("log");
        for _ in 0..START_ATTEMPTS {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = Command::new(program)
                .args(arguments)
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log).unwrap())
                .spawn()
                .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); tests/run unpacks it"));
            let mut server = Self {
                child,
                log: log.clone(),
                base: format!("http://127.0.0.1:{port}"),
                client: client.clone(),
            };
            if server.becomes_ready().await {
                return server;
            }
        }
        panic!("{program} does not start: {}", std::fs::read_to_string(&log).unwrap());
    }

    async fn becomes_ready(&mut self) -> bool {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            let answer = self.client.get(format!("{}/-/ready", self.base)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            assert!(
                began.elapsed() < START_PATIENCE,
                "{} is not ready: {}",
                self.base,
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// A Prometheus over the data in `directory/data`, with this configuration.
    pub async fn prometheus(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            "--storage.tsdb.retention.time=90d".to_owned(),
            "--web.enable-lifecycle".to_owned(),
            // What was sent before it knew its Alertmanager is sent again so soon, and not after a minute.
            "--rules.alert.resend-delay=5s".to_owned(),
        ];
        Self::start(&tool("EXPORTER_TEST_PROMETHEUS", "prometheus"), directory, &arguments).await
    }

    /// Has a Prometheus read its configuration again.
    pub async fn reload(&self) {
        let answer = self
            .client
            .post(format!("{}/-/reload", self.base))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// An Alertmanager by itself with this configuration, whose templates are in `directory`.
    pub async fn alertmanager(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("alertmanager.yml");
        std::fs::write(&file, configuration).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", directory.join("data").display()),
            "--cluster.listen-address=".to_owned(),
        ];
        let program = tool("EXPORTER_TEST_ALERTMANAGER", "prometheus-alertmanager");
        Self::start(&program, directory, &arguments).await
    }

    /// The alerts that an Alertmanager has.
    pub async fn alerts(&self) -> Vec<Value> {
        let request = self.client.get(format!("{}/api/v2/alerts", self.base));
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What the API answers to a form.
    pub async fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.client.post(format!("{}/api/v1/{path}", self.base)).form(form);
        let text = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match (answer["status"].as_str(), answer.get("warnings")) {
            (Some("success"), None) => Ok(answer["data"].clone()),
            (Some("success"), Some(warnings)) => Err(format!("warns: {warnings}")),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The series of an instant query, or of a range query, as labels; those without a value are none.
    pub async fn series(&self, path: &str, form: &[(&str, &str)]) -> Result<Vec<BTreeMap<String, String>>, String> {
        let data = self.api(path, form).await?;
        let series = data["result"].as_array().ok_or("no vector")?;
        Ok(series
            .iter()
            .map(|series| serde_json::from_value(series["metric"].clone()).unwrap())
            .collect())
    }

    /// The value of an instant query that has one.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let data = self.api("query", &[("query", query)]).await.unwrap();
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shipped example, checked by Alertmanager's own tool.
#[test]
fn amtool_accepts_the_example() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alertmanager/alertmanager.yml");
    let output = Command::new(tool("EXPORTER_TEST_AMTOOL", "amtool"))
        .args(["check-config", example])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes blocks of samples in OpenMetrics, beside those that are in `directory/data` already.
pub fn backfill(directory: &Path, openmetrics: &Path) {
    let output = Command::new(promtool())
        // One block for weeks, and not one for two hours, each of which would read the whole file.
        .args([
            "tsdb",
            "create-blocks-from",
            "--max-block-duration=700h",
            "openmetrics",
            "--quiet",
        ])
        .arg(openmetrics)
        .arg(directory.join("data"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
