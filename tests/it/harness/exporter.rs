//! An exporter in the test's process, with real sockets.

use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use elements_exporter::app::{App, LoadConfig};
use elements_exporter::{args, config};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{client, eventually, every_second};

/// An exporter that runs in this process and listens on its own socket.
pub struct Exporter {
    pub base: String,
    pub client: reqwest::Client,
    environment: Arc<Mutex<Vec<(OsString, OsString)>>>,
    task: tokio::task::JoinHandle<bool>,
    stop: DropGuard,
}

impl Exporter {
    /// Starts an exporter with the collector `customers`, these collectors, and additional settings.
    pub async fn start(api: &str, collectors: &[&str], extra_env: &[(&str, &str)]) -> Self {
        Self::load(every_second(api, collectors, extra_env)).await
    }

    pub async fn load(variables: Vec<(OsString, OsString)>) -> Self {
        Self::serve(variables, &["--web.enable-lifecycle"]).await
    }

    /// Starts an exporter with the given environment and flags.
    pub async fn serve(variables: Vec<(OsString, OsString)>, flags: &[&str]) -> Self {
        let environment = Arc::new(Mutex::new(variables));
        let variables = Arc::clone(&environment);
        let load: LoadConfig = Arc::new(move || config::load(None, variables.lock().unwrap().clone()));
        let flags = [&["", "--web.listen-address=127.0.0.1:0"], flags].concat();
        let web = args::parse(flags.into_iter().map(OsString::from)).unwrap().web;
        let prefix = web.route_prefix().to_owned();
        // Another test may fork a child process, which holds this process's locks until it executes its own program.
        let is_locked = |error: &elements_exporter::app::Error| error.to_string().contains("in use by");
        let bound = eventually("the exporter listens", || async {
            let file = Some("/etc/elements_exporter/elements.yml".into());
            let bound = App::bind(Arc::clone(&load), file, web.clone(), "Under test.".to_owned()).await;
            (!bound.as_ref().is_err_and(is_locked)).then_some(bound)
        });
        let app = bound.await.unwrap();
        let base = format!("http://{}{prefix}", app.addresses()[0]);
        let stop = CancellationToken::new();
        Self {
            base,
            client: client(),
            environment,
            task: tokio::spawn(app.run(stop.clone())),
            stop: stop.drop_guard(),
        }
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Scrapes until a response passes the check, and returns that response.
    pub async fn wait_until(&self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        let passes = &passes;
        eventually(what, || async {
            let text = self.metrics().await;
            passes(&text).then_some(text)
        })
        .await
    }

    /// Waits until every poll has succeeded, and returns the exposition at that time.
    pub async fn wait_until_settled(&self) -> String {
        self.wait_until("every poll succeeded", is_settled).await
    }

    /// Changes the configuration and reloads it. Returns the status and body of the response.
    pub async fn reload(&self, change: impl FnOnce(&mut Vec<(OsString, OsString)>)) -> (u16, String) {
        change(&mut self.environment.lock().unwrap());
        let url = format!("{}/-/reload", self.base);
        let response = self.client.post(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

pub fn is_settled(text: &str) -> bool {
    let mut polls = text
        .lines()
        .filter(|line| line.starts_with("elements_exporter_collector_success{"))
        .peekable();
    let listed = text.contains("elements_exporter_collector_success{collector=\"customers\"");
    listed
        && polls.peek().is_some()
        && polls.all(|line| line.ends_with(" 1"))
        && text.contains("elements_customer_info{")
}
