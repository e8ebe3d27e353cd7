//! The state file: its path, its lock, and files that interrupted saves leave behind.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::process::{ARGUMENTS, LOADED, with_state};
use super::{Exporter, every_second, is_settled, number, unreachable_api};
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, samples, value};

const FAILURES: &str = "elements_exporter_state_save_failures_total";

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn state_path_of_another_file_exits_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let path = |name: &str| root.join(name);
    fs::create_dir(path("directory")).unwrap();
    fs::write(path("directory/kept"), "kept").unwrap();
    fs::write(path("foreign"), "not a state").unwrap();
    fs::write(path("zeros"), [0; 64]).unwrap();
    make_fifo(&path("fifo"));
    symlink("/dev/null", path("device")).unwrap();
    symlink("directory", path("link")).unwrap();
    symlink("loop", path("loop")).unwrap();
    symlink("foreign", path("foreign-link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let before = names(root);
    for name in [
        "directory",
        "foreign",
        "zeros",
        "fifo",
        "device",
        "link",
        "loop",
        "foreign-link",
        "socket",
        "foreign/below",
    ] {
        for command in [&ARGUMENTS[..], &["check"], &["once"]] {
            let program = Program::spawn(with_state(&unreachable_api(), &path(name)), command);
            let output = program.wait().await;
            assert_eq!(output.code, Some(78), "{name} {command:?}: {}", output.stderr);
            let named = output.stderr.contains("state.file: ") && output.stderr.contains(path(name).to_str().unwrap());
            assert!(named, "{}", output.stderr);
        }
    }
    assert_eq!(names(root), before);
    assert_eq!(fs::read_to_string(path("directory/kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(path("foreign")).unwrap(), "not a state");
    assert!(fs::metadata(path("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(path("device")).unwrap().is_symlink());
}

#[tokio::test]
async fn state_file_behind_a_symbolic_link_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let file = directory.path().join("state");
    symlink("second", &file).unwrap();
    symlink("volume/first", directory.path().join("second")).unwrap();
    let partner = start(frozen_partner(2)).await;
    for _ in 0..2 {
        let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
        let text = program.wait_until("every poll succeeded", is_settled).await;
        assert_eq!(number(&text, LOADED), 1.0);
        let output = program.terminate().await;
        assert!(!output.stderr.contains("cannot save state"), "{}", output.stderr);
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
        assert_eq!(names(&volume), ["first", "first.lock"]);
        let mode = fs::metadata(volume.join("first")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let restarted = Exporter::load(with_state(&unreachable_api(), &file)).await;
    assert_eq!(restarted.get("/-/ready").await.0, 200, "the state must be restored");
    restarted.stop().await;
}

#[tokio::test]
async fn state_file_replaced_by_a_directory_fails_saves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(frozen_partner(2)).await;
    let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    program
        .wait_until("the state is saved", |text| is_settled(text) && file.is_file())
        .await;
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("kept"), "kept").unwrap();
    program
        .wait_until("a save fails", |text| value(text, FAILURES) >= Some(1.0))
        .await;
    assert_eq!(fs::read_to_string(file.join("kept")).unwrap(), "kept");
    assert_eq!(names(directory.path()), ["state", "state.lock"]);
    fs::remove_dir_all(&file).unwrap();
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0));
    assert!(output.stderr.contains("is a directory"), "{}", output.stderr);
    assert!(file.is_file(), "the final save must create the file");
}

#[tokio::test]
async fn empty_state_file_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    fs::write(&file, "").unwrap();
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::load(with_state(&partner.base, &file)).await;
    assert_eq!(number(&exporter.wait_until_settled().await, LOADED), 1.0);
    exporter.stop().await;
    assert_eq!(names(directory.path()), ["state", "state.lock"]);
    assert!(fs::metadata(&file).unwrap().len() > 0);
}

/// A file size limit has the same effect as a disk that fills up during a save.
#[tokio::test]
async fn failed_save_leaves_no_files_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(frozen_partner(20)).await;
    let program = Program::limited("-f 16", with_state(&partner.base, &file), &ARGUMENTS)
        .wait_until_listening()
        .await;
    program
        .wait_until("a save fails", |text| {
            value(text, FAILURES) >= Some(1.0) && is_settled(text)
        })
        .await;
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(names(directory.path()), ["state.lock"]);
}

#[tokio::test]
async fn state_file_is_used_by_one_exporter_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let link = directory.path().join("link");
    symlink("state", &link).unwrap();
    let partner = start(frozen_partner(2)).await;
    let first = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    first
        .wait_until("the state is saved", |text| is_settled(text) && file.is_file())
        .await;
    for path in [&file, &link] {
        let second = Program::spawn(with_state(&partner.base, path), &ARGUMENTS);
        let output = second.wait().await;
        assert_eq!(output.code, Some(78), "{}", output.stderr);
        let holder = format!("in use by process {}", first.id());
        assert!(output.stderr.contains(&holder), "{}", output.stderr);
    }
    // `check` may run at the same time as the exporter.
    let check = Program::spawn(with_state(&partner.base, &file), &["check"]);
    assert_ne!(check.wait().await.code, Some(78));
    let text = first.wait_until("the first exporter continues", is_settled).await;
    assert_eq!(value(&text, FAILURES).unwrap_or_default(), 0.0);
    // If the process is killed during a save, its lock is released, and the next exporter removes the incomplete file.
    first.signal("KILL");
    first.wait().await;
    fs::write(directory.path().join("state.new"), "{\"state\":{\"for").unwrap();
    let third = Exporter::load(with_state(&unreachable_api(), &file)).await;
    assert_eq!(number(&third.metrics().await, LOADED), 1.0);
    assert_eq!(names(directory.path()), ["link", "state", "state.lock"]);
    third.stop().await;
}

#[tokio::test]
async fn files_beside_the_state_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let foreign = ["state.new", "state.unusable", "state.lock"];
    for name in foreign {
        fs::write(directory.path().join(name), "mine").unwrap();
    }
    let damaged = "{\"state\":{\"format\":1,\"version\":\"0\"}}\n";
    fs::write(&file, damaged).unwrap();
    let partner = start(frozen_partner(2)).await;
    let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    program
        .wait_until("a save fails", |text| value(text, FAILURES) >= Some(1.0))
        .await;
    program.terminate().await;
    for name in foreign {
        assert_eq!(
            fs::read_to_string(directory.path().join(name)).unwrap(),
            "mine",
            "{name}"
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
}

/// A hard link refers to the same file until the next save.
#[tokio::test]
async fn hard_link_to_the_state_of_another_exporter_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let [file, link] = ["state", "link"].map(|name| directory.path().join(name));
    let partner = start(frozen_partner(2)).await;
    let variables = |path: &Path| {
        let mut variables = with_state(&partner.base, path);
        for collector in ["CUSTOMERS", "JOBS", "LICENSES"] {
            super::set(
                &mut variables,
                &format!("ELEMENTS_COLLECTORS__{collector}__INTERVAL"),
                "1h",
            );
        }
        variables
    };
    // In the second iteration, the lock file already exists.
    for _ in 0..2 {
        let holder = Program::start_with(variables(&file), &ARGUMENTS).await;
        eventually("all polls are saved", || async {
            let saved = fs::read_to_string(&file).unwrap_or_default();
            let polls = saved.lines().filter(|line| line.starts_with("{\"freshness\""));
            let done = polls.clone().filter(|line| line.contains("\"attempt\":\"succeeded\""));
            (done.count() == 4 && polls.count() == 4).then_some(())
        })
        .await;
        // A save in the meantime replaces the file. The link then refers to a different file and must be created again.
        let output = loop {
            fs::hard_link(&file, &link).unwrap();
            let is_replaced = eventually("the file is replaced", || async {
                let [of_file, of_link] = [&file, &link].map(|path| fs::metadata(path).unwrap().ino());
                (of_file != of_link).then_some(())
            });
            tokio::select! {
                biased;
                output = Program::spawn(variables(&link), &ARGUMENTS).wait() => break output,
                () = is_replaced => fs::remove_file(&link).unwrap(),
            }
        };
        assert_eq!(output.code, Some(78), "{}", output.stderr);
        assert!(output.stderr.contains("in use by another process"), "{}", output.stderr);
        assert_eq!(holder.terminate().await.code, Some(0));
        let later = Program::start_with(variables(&link), &ARGUMENTS).await;
        assert_eq!(later.terminate().await.code, Some(0));
        fs::remove_file(&link).unwrap();
    }
}

#[tokio::test]
async fn byte_order_mark_before_the_state_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::load(with_state(&partner.base, &file)).await;
    let before = exporter.wait_until_settled().await;
    exporter.stop().await;
    let saved = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("\u{feff}{saved}")).unwrap();
    let restarted = Exporter::load(with_state(&unreachable_api(), &file)).await;
    let text = restarted.metrics().await;
    assert_eq!(number(&text, LOADED), 1.0);
    let infos = |text: &str| samples(text, "elements_customer_info{");
    assert_eq!(infos(&text), infos(&before));
    restarted.stop().await;
    for content in ["\u{feff}", "\u{feff}{\"sta"] {
        fs::write(&file, content).unwrap();
        let program = Program::start_with(with_state(&unreachable_api(), &file), &ARGUMENTS).await;
        assert_eq!(program.terminate().await.code, Some(0));
    }
}

/// The exporter rereads its web configuration file and the certificate at runtime, and opening a FIFO would block until
/// it has a writer.
#[tokio::test]
async fn fifo_as_web_configuration_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let [fifo, config] = ["fifo", "web.yml"].map(|name| directory.path().join(name));
    make_fifo(&fifo);
    fs::write(&config, "tls_server_config: {cert_file: fifo, key_file: fifo}\n").unwrap();
    for (file, command) in [
        (&fifo, &ARGUMENTS[..]),
        (&config, &ARGUMENTS),
        (&fifo, &["healthcheck"]),
    ] {
        let flag = format!("--web.config.file={}", file.display());
        let arguments = [command, &[&flag]].concat();
        let output = Program::spawn(every_second(&unreachable_api(), &[], &[]), &arguments)
            .wait()
            .await;
        assert_eq!(output.code, Some(78), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains("is not a regular file"), "{}", output.stderr);
    }
}
