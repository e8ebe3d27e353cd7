//! Standard streams that are closed or full, or that are pipes without a reader.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::{client, every_second, is_settled, unreachable_api};
use crate::harness::eventually;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::{PROGRAM, Program};

/// Runs the program in a shell with redirections. Returns the exit code, and standard error unless it is redirected.
fn run(
    arguments: &str,
    redirections: &str,
    variables: &[(std::ffi::OsString, std::ffi::OsString)],
) -> (Option<i32>, String) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec '{PROGRAM}' {arguments} {redirections}")]);
    let output = shell.env_clear().envs(variables.iter().cloned()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Runs the program with standard output connected to a pipe without a reader.
fn run_unread(arguments: &str, variables: &[(std::ffi::OsString, std::ffi::OsString)]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments.split_whitespace()).env_clear();
    command.envs(variables.iter().cloned()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_not_panic_with_broken_streams() {
    let partner = start(frozen_partner(2)).await;
    let directory = tempfile::tempdir().unwrap();
    let assets = format!("assets {}", directory.path().display());
    let variables = every_second(&partner.base, &super::COLLECTORS, &[]);
    let commands = [
        "--help",
        "--version",
        "check --help",
        "man",
        "completions bash",
        "once",
        "check",
        "check --output=json",
        assets.as_str(),
    ];
    for arguments in commands {
        let expected = tokio::task::block_in_place(|| run(arguments, ">/dev/null", &variables)).0;
        // `check` reports the simulated partner's invalid values.
        assert!(
            expected == Some(0) || expected == Some(1) && arguments.starts_with("check"),
            "{arguments}: {expected:?}"
        );
        for redirections in [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"] {
            let (code, stderr) = tokio::task::block_in_place(|| run(arguments, redirections, &variables));
            assert_eq!(code, expected, "{arguments} {redirections}: {stderr}");
        }
        let (code, stderr) = tokio::task::block_in_place(|| run_unread(arguments, &variables));
        assert_eq!(code, expected, "{arguments} unread: {stderr}");
        assert!(!stderr.contains("standard output"), "{arguments}: {stderr}");
        let (code, stderr) = tokio::task::block_in_place(|| run(arguments, ">/dev/full", &variables));
        assert_eq!(code, Some(1), "{arguments}: {stderr}");
        assert!(
            stderr.contains("cannot write to standard output"),
            "{arguments}: {stderr}"
        );
        let (code, _) = tokio::task::block_in_place(|| run(arguments, ">/dev/full 2>&1", &variables));
        assert_eq!(code, Some(1), "{arguments}");
    }
}

#[test]
fn failing_commands_do_not_panic_with_broken_streams() {
    for (arguments, expected) in [
        ("--nonsense", 64),
        ("--config.file=/nonsense", 78),
        ("check --config.file=/nonsense", 78),
        ("healthcheck --web.listen-address=127.0.0.1:1", 1),
        ("assets /dev/null/x", 1),
        (
            "demo --web.listen-address=127.0.0.1:0 --simulator.listen-address=127.0.0.1:0 >/dev/full",
            1,
        ),
        ("simulate --simulator.listen-address=127.0.0.1:0 >/dev/full", 1),
        ("demo --simulator.customers=1 --backfill=/dev/full", 1),
        ("demo --simulator.customers=1 --backfill=/dev/stdout >/dev/full", 1),
    ] {
        for redirections in ["", "2>&-", "2>/dev/full", "<&- 2>&-"] {
            let (code, stderr) = run(arguments, redirections, &[]);
            assert_eq!(code, Some(expected), "{arguments} {redirections}: {stderr}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_into_a_closed_pipe_exits_without_an_error() {
    let (code, stderr) =
        tokio::task::block_in_place(|| run_unread("demo --simulator.customers=1 --backfill=/dev/stdout", &[]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

/// Returns a full pipe that nobody reads.
#[cfg(target_os = "linux")]
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use std::io::Write as _;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for piece in [&[b' '; 4096][..], b" "] {
        while writer.write(piece).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Returns whether a process handles SIGTERM.
#[cfg(target_os = "linux")]
fn handles_sigterm(process: u32) -> bool {
    const SIGTERM: u32 = 15;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (SIGTERM - 1)) != 0)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn stop_terminates_a_command_with_unread_output() {
    use crate::harness::program::wait_for_exit;

    let partner = start(frozen_partner(2)).await;
    let variables = every_second(&partner.base, &["jobs"], &[]);
    for (arguments, expected) in [
        ("--help", 1),
        ("--version", 1),
        ("man", 1),
        ("completions bash", 1),
        ("once", 1),
        ("check", 1),
        ("demo --simulator.customers=1 --backfill=/dev/stdout", 1),
        (
            "demo --web.listen-address=127.0.0.1:0 --simulator.listen-address=127.0.0.1:0",
            0,
        ),
        ("simulate --simulator.listen-address=127.0.0.1:0", 0),
    ] {
        partner.handle.clear_requests();
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(PROGRAM);
        command.args(arguments.split_whitespace()).env_clear();
        command.envs(variables.iter().cloned()).stdin(Stdio::null());
        let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        eventually("the command handles signals", || async {
            let has_started = arguments != "once" || !partner.handle.requests().is_empty();
            (has_started && handles_sigterm(child.id())).then_some(())
        })
        .await;
        let stop = Command::new("kill").arg(child.id().to_string()).status();
        assert!(stop.unwrap().success());
        assert_eq!(wait_for_exit(&mut child).await.code(), Some(expected), "{arguments}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unread_log_does_not_block() {
    use crate::harness::program::wait_for_exit;

    let partner = start(frozen_partner(2)).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = format!("--web.listen-address={free}");
    for (arguments, expected) in [
        (vec!["--nonsense"], 64),
        (vec!["--config.file=/nonsense"], 78),
        (vec![listen.as_str(), "--log.level=trace"], 0),
    ] {
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(PROGRAM);
        command
            .args(&arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.envs(every_second(&partner.base, &["jobs"], &[]));
        let mut child = command.stderr(writer).spawn().unwrap();
        if expected == 0 {
            eventually("every poll succeeded", || async {
                let response = client().get(format!("http://{free}/metrics")).send().await.ok()?;
                is_settled(&response.text().await.ok()?).then_some(())
            })
            .await;
            let stop = Command::new("kill").arg(child.id().to_string()).status();
            assert!(stop.unwrap().success());
        }
        assert_eq!(wait_for_exit(&mut child).await.code(), Some(expected), "{arguments:?}");
    }
}

#[tokio::test]
async fn unwritable_log_does_not_stop_the_exporter() {
    let partner = start(frozen_partner(2)).await;
    for (redirections, format) in [
        ("2>/dev/full", "logfmt"),
        ("2>&-", "json"),
        ("2>/dev/full", "json"),
        ("<&- >&- 2>&-", "logfmt"),
    ] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = format!("--web.listen-address={free}");
        let arguments = [listen.as_str(), "--log.level=trace", &format!("--log.format={format}")];
        let mut program = Program::redirected(redirections, every_second(&partner.base, &["jobs"], &[]), &arguments);
        program.set_address(&free.to_string());
        eventually("the exporter responds", || async {
            client().get(format!("http://{free}/metrics")).send().await.ok()
        })
        .await;
        program.wait_until("every poll succeeded", is_settled).await;
        program.signal("HUP");
        program
            .wait_until("the exporter continues to poll", |text| {
                is_settled(text) && text.contains("elements_exporter_config_last_reload_successful 1")
            })
            .await;
        assert_eq!(program.terminate().await.code, Some(0), "{redirections}");
    }
    // Failing polls write more log lines than successful ones.
    let program = Program::redirected("2>/dev/full", every_second(&unreachable_api(), &[], &[]), &["once"]);
    assert_eq!(program.wait().await.code, Some(1));
}
