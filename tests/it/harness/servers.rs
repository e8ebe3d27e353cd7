//! Prometheus, Alertmanager and their tools. Each server listens on a free port, and stores data in the test's
//! directory. Dropping a server kills it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::eventually;
use super::parser::promtool;

/// Number of attempts to start a server, in case another process takes its port first.
const START_ATTEMPTS: usize = 5;

/// Returns the path of a program from the environment variable that `tests/run` sets, or the program's name if the
/// variable is not set.
pub fn tool(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

/// A server that runs until it is dropped.
pub struct Server {
    child: Child,
    pub base: String,
    client: reqwest::Client,
}

impl Server {
    /// Starts a program with a listen address, and waits until it is ready.
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
                .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); tests/run installs it"));
            let mut server = Self {
                child,
                base: format!("http://127.0.0.1:{port}"),
                client: client.clone(),
            };
            if server.wait_until_ready().await {
                return server;
            }
        }
        panic!("{program} did not start: {}", std::fs::read_to_string(&log).unwrap());
    }

    /// Waits until the server is ready. Returns false if it has exited.
    async fn wait_until_ready(&mut self) -> bool {
        let (url, client) = (format!("{}/-/ready", self.base), self.client.clone());
        let child = std::cell::RefCell::new(&mut self.child);
        eventually(&url, || async {
            if child.borrow_mut().try_wait().unwrap().is_some() {
                return Some(false);
            }
            let response = client.get(&url).send().await;
            response
                .is_ok_and(|response| response.status().is_success())
                .then_some(true)
        })
        .await
    }

    /// Starts Prometheus with this configuration and the data in `directory/data`.
    pub async fn prometheus(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            "--storage.tsdb.retention.time=90d".to_owned(),
            "--web.enable-lifecycle".to_owned(),
            // Alerts that fired before Prometheus discovered Alertmanager are sent again after this time, instead of
            // after a minute.
            "--rules.alert.resend-delay=5s".to_owned(),
        ];
        Self::start(&tool("EXPORTER_TEST_PROMETHEUS", "prometheus"), directory, &arguments).await
    }

    pub async fn reload(&self) {
        let response = self
            .client
            .post(format!("{}/-/reload", self.base))
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }

    /// Starts a single Alertmanager with this configuration and the templates in `directory`.
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

    /// Returns the data of an API response. Warnings count as errors.
    pub async fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.client.post(format!("{}/api/v1/{path}", self.base)).form(form);
        let text = request.send().await.unwrap().text().await.unwrap();
        let response: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match (response["status"].as_str(), response.get("warnings")) {
            (Some("success"), None) => Ok(response["data"].clone()),
            (Some("success"), Some(warnings)) => Err(format!("warnings: {warnings}")),
            _ => Err(response["error"].to_string()),
        }
    }

    /// Returns the label sets in the result of an instant or range query.
    pub async fn series(&self, path: &str, form: &[(&str, &str)]) -> Result<Vec<BTreeMap<String, String>>, String> {
        let data = self.api(path, form).await?;
        let series = data["result"].as_array().ok_or("no result")?;
        Ok(series
            .iter()
            .map(|series| serde_json::from_value(series["metric"].clone()).unwrap())
            .collect())
    }

    /// Returns the first value in the result of an instant query, if any.
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

/// Creates blocks in `directory/data` from samples in OpenMetrics format, and keeps existing blocks.
pub fn backfill(directory: &Path, openmetrics: &Path) {
    let output = Command::new(promtool())
        // Blocks cover weeks instead of two hours, because promtool reads the whole file for each block.
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
