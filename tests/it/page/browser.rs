//! Headless Chromium with one tab, controlled through the DevTools protocol over a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::TIMEOUT;

/// Pause between two checks of a page.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// Maximum time for the browser to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shell script that starts the browser with the protocol on file descriptors 3 and 4.
const PIPE_SCRIPT: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";

const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
];

pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    events: Vec<Value>,
    calls: u64,
    session: Option<String>,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let program = std::env::var("EXPORTER_TEST_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", PIPE_SCRIPT, &program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    break;
                };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            events: Vec::new(),
            calls: 0,
            session: None,
            _profile: profile,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = self.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.set_size(1280, 900);
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let response = self.try_call(method, params);
        assert!(response.get("error").is_none(), "{method}: {response}");
        response["result"].clone()
    }

    fn try_call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .expect("cannot write to the browser; tests/run installs it");
        let start = Instant::now();
        loop {
            let message = self.next_message(start, method);
            if message["id"] == json!(self.calls) {
                return message;
            }
            self.events.push(message);
        }
    }

    fn next_message(&mut self, start: Instant, waiting_for: &str) -> Value {
        match self.messages.recv_timeout(TIMEOUT.saturating_sub(start.elapsed())) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("the browser did not respond to {waiting_for}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the browser has exited; tests/run installs it"),
        }
    }

    /// Opens a page and waits until it is loaded.
    pub fn go(&mut self, url: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let response = self.call("Page.navigate", json!({"url": url}));
        assert!(response.get("errorText").is_none(), "{url}: {response}");
        let start = Instant::now();
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next_message(start, "the request for a page");
            self.events.push(event);
        }
    }

    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    pub fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({})?.innerText ?? ''", json!(selector));
        self.eval(&expression).as_str().unwrap().to_owned()
    }

    /// Waits until the page is completely loaded and an expression is true. An incomplete page could match by chance.
    pub fn wait_until(&mut self, expression: &str) {
        let start = Instant::now();
        let condition = format!("document.readyState === 'complete' && ({expression})");
        let params = json!({"expression": condition, "returnByValue": true});
        while self.try_call("Runtime.evaluate", params.clone())["result"]["result"]["value"] != json!(true) {
            if start.elapsed() > TIMEOUT {
                let page = self.eval("document.body.innerText");
                panic!("timed out: {expression}; the page contains {page}");
            }
            if let Ok(event) = self.messages.recv_timeout(POLL_PAUSE) {
                self.events.push(event);
            }
        }
    }

    pub fn set_colour_scheme(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    pub fn set_size(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    pub fn without_scripts(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    }

    /// Runs a script on every page before the page's own scripts.
    pub fn before_each(&mut self, source: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": source}));
    }

    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let params = |kind| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", params(down));
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}),
        );
    }

    pub fn tab(&mut self) {
        self.press("Tab", 9, "");
    }

    pub fn enter(&mut self) {
        self.press("Enter", 13, "\r");
    }

    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Saves a screenshot in the directory given by `EXPORTER_TEST_SCREENSHOTS`, if this variable is set.
    pub fn screenshot(&mut self, name: &str) {
        use base64::Engine as _;
        let Ok(directory) = std::env::var("EXPORTER_TEST_SCREENSHOTS") else {
            return;
        };
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let image = base64::prelude::BASE64_STANDARD
            .decode(shot["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(format!("{directory}/{name}.png"), image).unwrap();
    }

    /// Returns the console's warnings and errors so far.
    pub fn console_messages(&mut self) -> Vec<String> {
        // When the response to this call arrives, all earlier messages have been received.
        self.eval("0");
        let mut messages = Vec::new();
        for event in &self.events {
            let params = &event["params"];
            let is_problem = match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
                "Log.entryAdded" => params["entry"]["level"] == "error" || params["entry"]["level"] == "warning",
                _ => false,
            };
            if is_problem {
                messages.push(params.to_string());
            }
        }
        messages
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.try_close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Closes the browser through the protocol, so that the browser's child processes also exit.
    fn try_close(&mut self) -> std::io::Result<()> {
        self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0")?;
        // The pipe is closed when the browser exits.
        while self.messages.recv_timeout(EXIT_TIMEOUT).is_ok() {}
        Ok(())
    }
}
