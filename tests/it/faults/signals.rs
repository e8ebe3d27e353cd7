//! Signals at any time, and notifications to the service manager.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{every_second, is_settled, set, unreachable_api};
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{TIMEOUT, eventually};

const LISTEN: &str = "--web.listen-address=127.0.0.1:0";

/// A configuration file that blocks its reader until the test writes to it.
struct BlockingConfig {
    _directory: TempDir,
    fifo: PathBuf,
}

impl BlockingConfig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("elements.yml");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        Self {
            _directory: directory,
            fifo,
        }
    }

    fn flag(&self) -> String {
        format!("--config.file={}", self.fifo.display())
    }

    /// Waits until the file is opened for reading.
    async fn wait_until_opened(&self) -> fs::File {
        // Opening the file for writing fails until the program opens it for reading.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        eventually("the configuration is opened", || async {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(nonblocking).open(&self.fifo).ok()
        })
        .await
    }

    async fn unblock(&self) {
        self.wait_until_opened()
            .await
            .write_all(b"rpo:\n  default: 26h\n")
            .unwrap();
    }
}

#[tokio::test]
async fn reload_during_startup_happens_after_startup() {
    let config = BlockingConfig::new();
    let program = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[LISTEN, &config.flag()]);
    let reading = config.wait_until_opened().await;
    program.signal("HUP");
    program.signal("HUP");
    (&reading).write_all(b"rpo:\n  default: 26h\n").unwrap();
    drop(reading);
    let program = program.wait_until_listening().await;
    config.unblock().await;
    eventually("the configuration is reloaded", || async {
        program.stderr().contains("configuration reloaded").then_some(())
    })
    .await;
    assert_eq!(program.terminate().await.code, Some(0));
}

#[tokio::test]
async fn stop_during_startup_or_reload_is_clean() {
    for signal in ["TERM", "INT"] {
        let config = BlockingConfig::new();
        let program = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[LISTEN, &config.flag()]);
        let _reading = config.wait_until_opened().await;
        program.signal(signal);
        let output = program.wait().await;
        assert_eq!(output.code, Some(0), "{signal}: {}", output.stderr);
    }
    let config = BlockingConfig::new();
    let program = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[LISTEN, &config.flag()]);
    config.unblock().await;
    let program = program.wait_until_listening().await;
    program.signal("HUP");
    let _reading = config.wait_until_opened().await;
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[tokio::test]
async fn hangup_does_not_terminate_commands() {
    for command in ["check", "once"] {
        let config = BlockingConfig::new();
        let program = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[command, &config.flag()]);
        let reading = config.wait_until_opened().await;
        program.signal("HUP");
        (&reading).write_all(b"rpo:\n  default: 26h\n").unwrap();
        drop(reading);
        // The command fails, because the partner is unreachable.
        assert_eq!(program.wait().await.code, Some(1), "{command}");
        let program = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[command, &config.flag()]);
        let _reading = config.wait_until_opened().await;
        assert_eq!(program.terminate().await.code, Some(1), "{command}");
    }
    for (command, flags) in [
        ("demo", vec![LISTEN, "--simulator.listen-address=127.0.0.1:0"]),
        ("simulate", vec!["--simulator.listen-address=127.0.0.1:0"]),
    ] {
        let program = Program::spawn(Vec::new(), &[&[command], &flags[..]].concat());
        let printed = || {
            eventually("the command has started", || async {
                program.stdout().contains("http").then_some(())
            })
        };
        printed().await;
        program.signal("HUP");
        if command == "demo" {
            eventually("the configuration is reloaded", || async {
                program.stderr().contains("configuration reloaded").then_some(())
            })
            .await;
        }
        let output = program.terminate().await;
        assert_eq!(output.code, Some(0), "{command}: {}", output.stderr);
    }
}

/// Returns the lines of the next datagram.
fn receive_lines(socket: &UnixDatagram) -> Vec<String> {
    let mut datagram = [0; 1024];
    let length = socket.recv(&mut datagram).unwrap();
    let text = std::str::from_utf8(&datagram[..length]).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn service_manager_is_notified_of_start_reload_and_stop() {
    let unit =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/elements_exporter.service"));
    assert!(unit.unwrap().lines().any(|line| line == "Type=notify"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let partner = start(frozen_partner(2)).await;
    let mut variables = every_second(&partner.base, &["jobs"], &[]);
    set(&mut variables, "NOTIFY_SOCKET", path.to_str().unwrap());
    let program = Program::start_with(variables, &[LISTEN]).await;
    let next_lines = || tokio::task::block_in_place(|| receive_lines(&socket));
    assert_eq!(next_lines(), ["READY=1"]);
    program.wait_until("every poll succeeded", is_settled).await;
    program.signal("HUP");
    let reloading = next_lines();
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(next_lines(), ["READY=1"]);
    program.signal("TERM");
    assert_eq!(next_lines(), ["STOPPING=1"]);
    assert_eq!(program.wait().await.code, Some(0));
}
