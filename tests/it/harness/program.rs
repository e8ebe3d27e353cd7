//! The program as a child process. Its output is written to files, so that tests need not drain pipes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use super::{client, eventually, every_second, every_second_all};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_elements_exporter");

pub fn fixture(path: &str) -> String {
    format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A program that runs until it exits or this value is dropped.
pub struct Program {
    child: Child,
    files: TempDir,
    pub base: String,
    pub client: reqwest::Client,
}

/// Exit code and output of a program.
pub struct Output {
    pub status: ExitStatus,
    /// `None` if a signal terminated the program.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts the program with only the given environment.
    pub fn spawn(variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Self::run(command, variables)
    }

    /// Starts the program with only the given environment, and with shell redirections.
    pub fn redirected(redirections: &str, variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("exec '{PROGRAM}' \"$@\" {redirections}");
        shell.args(["-c", script.as_str(), "sh"]).args(arguments);
        Self::run(shell, variables)
    }

    /// Starts the program with only the given environment, and with a limit set by `ulimit`.
    pub fn limited(limit: &str, variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {limit}; exec '{PROGRAM}' \"$@\"");
        shell.args(["-c", script.as_str(), "sh"]).args(arguments);
        Self::run(shell, variables)
    }

    fn run(mut command: Command, variables: Vec<(OsString, OsString)>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let to = |name: &str| Stdio::from(File::create(files.path().join(name)).unwrap());
        command.env_clear().envs(variables);
        let child = command
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

    /// Starts an exporter in which the given collectors poll every second, and waits until it listens.
    pub async fn start_collectors(api: &str, collectors: &[&str], extra_env: &[(&str, &str)]) -> Self {
        let arguments = ["--web.listen-address=127.0.0.1:0", "--log.level=trace"];
        Self::start_with(every_second(api, collectors, extra_env), &arguments).await
    }

    /// Starts an exporter in which every default collector polls every second, and waits until it listens.
    pub async fn start(api: &str, arguments: &[&str], extra_env: &[(&str, &str)]) -> Self {
        let arguments = [&["--web.listen-address=127.0.0.1:0"], arguments].concat();
        Self::start_with(every_second_all(api, extra_env), &arguments).await
    }

    /// Starts an exporter with the given environment and arguments, and waits until it listens.
    pub async fn start_with(variables: Vec<(OsString, OsString)>, arguments: &[&str]) -> Self {
        Self::spawn(variables, arguments).wait_until_listening().await
    }

    /// Waits until the program listens, and sets its address.
    pub async fn wait_until_listening(mut self) -> Self {
        let address = eventually("the program listens", || async {
            let printed = self.stderr();
            let line = printed.lines().find(|line| line.contains("listening"))?;
            let address = line.split("address=").nth(1)?.split_whitespace().next()?;
            Some(address.trim_matches('"').to_owned())
        })
        .await;
        self.set_address(&address);
        self
    }

    pub async fn post_reload(&self) -> (u16, String) {
        let url = format!("{}/-/reload", self.base);
        let response = self.client.post(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Sets the address at which the program listens.
    pub fn set_address(&mut self, address: &str) {
        self.base = format!("http://{address}");
    }

    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what the program has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Returns what the program has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    fn read(&self, stream: &str) -> String {
        let bytes = fs::read(self.files.path().join(stream)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    /// Returns the body of a response, regardless of its status.
    pub async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    pub async fn metrics(&self) -> String {
        self.text("/metrics").await
    }

    /// Scrapes until a response passes the check, and returns that response.
    pub async fn wait_until(&self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        self.wait_until_at("/metrics", what, passes).await
    }

    /// Requests a path until a response passes the check, and returns that response.
    pub async fn wait_until_at(&self, path: &str, what: &str, passes: impl Fn(&str) -> bool) -> String {
        let passes = &passes;
        eventually(what, || async {
            let response = self.get(path).await;
            assert_eq!(response.status(), 200);
            let text = response.text().await.unwrap();
            passes(&text).then_some(text)
        })
        .await
    }

    /// Returns the peak resident memory so far, in MiB.
    #[cfg(target_os = "linux")]
    pub fn peak_mib(&self) -> u64 {
        self.memory_mib("VmHWM:")
    }

    /// Returns the resident memory, in MiB.
    #[cfg(target_os = "linux")]
    pub fn resident_mib(&self) -> u64 {
        self.memory_mib("VmRSS:")
    }

    #[cfg(target_os = "linux")]
    fn memory_mib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        memory.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Sends a signal. `name` does not include the prefix `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub async fn terminate(self) -> Output {
        self.signal("TERM");
        self.wait().await
    }

    pub async fn wait(mut self) -> Output {
        let child = &mut self.child;
        let status = wait_for_exit(child).await;
        Output {
            status,
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

pub async fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let child = std::cell::RefCell::new(child);
    eventually("the program exits", || async { child.borrow_mut().try_wait().unwrap() }).await
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails harmlessly if the program has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
