//! The program itself as a child process, whose output goes to files so that nothing has to drain it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{client, every_second};
use crate::support::eventually;

/// The path of a fixture.
pub(super) fn fixture(path: &str) -> String {
    format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A program that runs until it is told to end, or until this is dropped.
pub(super) struct Program {
    child: Child,
    files: TempDir,
    base: String,
    client: reqwest::Client,
}

/// How a program ended and what it said.
pub(super) struct Output {
    /// None where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Program {
    /// One with this environment and no other.
    pub(super) fn spawn(variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let to = |name: &str| Stdio::from(File::create(files.path().join(name)).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_elements_exporter"))
            .args(arguments)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(to("stdout"))
            .stderr(to("stderr"))
            .spawn()
            .unwrap();
        Self {
            child,
            files,
            base: String::new(),
            client: client(),
        }
    }

    /// An exporter that polls every second through these collectors, once it listens.
    pub(super) async fn watching(api: &str, collectors: &[&str], more: &[(&str, &str)]) -> Self {
        let arguments = ["--web.listen-address=127.0.0.1:0", "--log.level=trace"];
        Self::listening(every_second(api, collectors, more), &arguments).await
    }

    /// The same with other arguments.
    pub(super) async fn listening(variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        let mut program = Self::spawn(variables, arguments);
        let address = eventually("the program listens", || async {
            let said = program.said("stderr");
            let line = said.lines().find(|line| line.contains("listening"))?;
            let address = line.split("address=").nth(1)?.split_whitespace().next()?;
            Some(address.trim_matches('"').to_owned())
        })
        .await;
        program.base = format!("http://{address}");
        program
    }

    pub(super) fn said(&self, stream: &str) -> String {
        let bytes = fs::read(self.files.path().join(stream)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Scrapes until an answer passes, and gives it.
    pub(super) async fn until_metrics(&self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        self.until("/metrics", what, passes).await
    }

    /// The same of any path.
    pub(super) async fn until(&self, path: &str, what: &str, passes: impl Fn(&str) -> bool) -> String {
        let passes = &passes;
        eventually(what, || async {
            let (status, text) = self.get(path).await;
            assert_eq!(status, 200);
            passes(&text).then_some(text)
        })
        .await
    }

    /// The most memory that it has had resident so far, in MiB.
    #[cfg(target_os = "linux")]
    pub(super) fn peak_mib(&self) -> u64 {
        self.memory_mib("VmHWM:")
    }

    /// The memory that it has resident now, in MiB.
    #[cfg(target_os = "linux")]
    pub(super) fn resident_mib(&self) -> u64 {
        self.memory_mib("VmRSS:")
    }

    #[cfg(target_os = "linux")]
    fn memory_mib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        memory.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Sends a signal by its name.
    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(super) async fn terminate(self) -> Output {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(mut self) -> Output {
        let child = &mut self.child;
        let status = loop_until_ended(child).await;
        Output {
            code: status.code(),
            stdout: self.said("stdout"),
            stderr: self.said("stderr"),
        }
    }
}

async fn loop_until_ended(child: &mut Child) -> std::process::ExitStatus {
    let child = std::cell::RefCell::new(child);
    eventually("the program ends", || async { child.borrow_mut().try_wait().unwrap() }).await
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
