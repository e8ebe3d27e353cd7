//! The program's commands, flags and exit codes.
//!
//! The tests are in one long file, because they share the checks of exit codes and output.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::parser;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::{PROGRAM, Program};
use crate::harness::{environment, every_second_all, fresh, value};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn code_and_error(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = run(arguments, variables);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

async fn partner() -> Partner {
    start(frozen_partner(4)).await
}

#[test]
fn version_and_help_are_printed_and_usage_errors_exit_with_64() {
    let version = run(&["--version"], &[]);
    assert_eq!(version.status.code(), Some(0));
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .starts_with("elements_exporter, version 0.")
    );
    let help = run(&["--help"], &[]);
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "--config.file",
        "--web.listen-address",
        "--web.telemetry-path",
        "--web.enable-lifecycle",
        "--log.format",
    ] {
        assert!(text.contains(flag), "{flag}");
    }
    assert_eq!(code_and_error(&["--nonsense"], &[]).0, 64);
    assert_eq!(code_and_error(&["frobnicate"], &[]).0, 64);
}

#[test]
fn invalid_configuration_exits_with_78_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("elements.yml");
    let flag = format!("--config.file={}", file.display());
    let cases = [
        (
            "auth:\n  client_id: a\n  client_secret: b\napi:\n  timeout: soon\n",
            vec!["api.timeout", "soon", "30s"],
        ),
        (
            "auth:\n  client_id: a\n  client_secret: b\ncolectors:\n  jobs:\n    interval: 5m\n",
            vec!["colectors", "collectors"],
        ),
        (
            "auth:\n  client_secret: b\n",
            vec!["auth.client_id", "ELEMENTS_AUTH__CLIENT_ID"],
        ),
        ("auth: [\n", vec!["elements.yml"]),
    ];
    for (yaml, parts) in cases {
        std::fs::write(&file, yaml).unwrap();
        let (code, error) = code_and_error(&[&flag], &[]);
        assert_eq!(code, 78, "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
    let (code, error) = code_and_error(
        &[],
        &[("ELEMENTS_AUTH__CLIENT_ID", "a"), ("ELEMENTS_AUTH__CLIENT_SECRT", "b")],
    );
    assert_eq!(code, 78);
    assert!(error.contains("ELEMENTS_AUTH__CLIENT_SECRET"), "{error}");
}

#[test]
fn key_of_another_certificate_exits_with_78() {
    let fixture = |name: &str| format!("{}/tests/fixtures/credentials/{name}", env!("CARGO_MANIFEST_DIR"));
    let (code, error) = code_and_error(
        &["check"],
        &[
            ("ELEMENTS_AUTH__CLIENT_ID", "a"),
            ("ELEMENTS_AUTH__CERTIFICATE_FILE", &fixture("cert.pem")),
            ("ELEMENTS_AUTH__PRIVATE_KEY_FILE", &fixture("other-key.pem")),
        ],
    );
    assert_eq!(code, 78, "{error}");
    assert!(error.contains("auth.certificate_file"), "{error}");
}

#[test]
fn assets_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["assets", directory.path().to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0));
    for asset in elements_exporter::assets::DASHBOARDS {
        let written = std::fs::read_to_string(directory.path().join("dashboards").join(asset.name)).unwrap();
        assert_eq!(written, asset.content);
    }
    let alerts = directory.path().join("alerts");
    let output = run(&["assets", "--grafana-alerts", alerts.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0));
    let written = std::fs::read_to_string(alerts.join("elements-alerts.yaml")).unwrap();
    assert!(written.contains("grafanacloud-prom"));
    assert!(!alerts.join("rules").exists());
    assert_eq!(run(&["assets"], &[]).status.code(), Some(64));
}

#[test]
fn schema_is_printed_without_a_configuration() {
    let output = run(&["schema"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let timeout = &schema["properties"]["api"]["properties"]["timeout"];
    assert_eq!(timeout["default"], "30s");
    assert!(timeout["description"].as_str().unwrap().contains("from 1s to 10m"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_link_to_urls_from_flags() {
    let urls = [
        "--web.external-url=https://x.example.com/elements/",
        "--web.grafana-url=https://g.example.com",
    ];
    let partner = partner().await;
    let plain = Program::start(&partner.base, &[], &[]).await;
    let linked = Program::start(&partner.base, &urls, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let output = run(&["assets", out, "--grafana-alerts", out, urls[0], urls[1]], &[]);
    assert_eq!(output.status.code(), Some(0));
    let links = |text: &str| {
        let lines = text.lines().map(|line| line.trim().replace('"', ""));
        let is_link = |line: &String| line.starts_with("runbook_url:") || line.starts_with("dashboard_url:");
        let mut links: Vec<_> = lines.filter(is_link).collect();
        links.sort();
        links
    };
    for asset in elements_exporter::assets::RULES {
        let path = format!("/rules/{}", asset.name);
        assert_eq!(plain.text(&path).await, asset.content);
        let written = directory.path().join("rules").join(asset.name);
        let text = std::fs::read_to_string(&written).unwrap();
        assert_eq!(linked.text(&format!("/elements{path}")).await, text);
        let checked = Command::new(parser::promtool())
            .args(["check", "rules"])
            .arg(&written)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        if asset.name == "elements-alerts.yml" {
            assert!(text.contains(" runbook_url: https://x.example.com/elements/runbooks/#elementsapidown\n"));
            assert!(text.contains(" dashboard_url: https://g.example.com/d/elements-exporter\n"));
            let grafana = std::fs::read_to_string(directory.path().join("elements-alerts.yaml")).unwrap();
            assert_eq!(links(&grafana), links(&text));
            assert!(links(&text).iter().all(|link| link.contains("_url: https://")));
        }
    }
}

#[tokio::test]
async fn port_in_use_exits_with_1_and_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let variables = environment("http://127.0.0.1:1", &[]);
    let flag = format!("--web.listen-address={address}");
    let output = Program::spawn(variables, &[&flag]).wait().await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains(&address), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_in_all_formats_and_filtered() {
    let partner = partner().await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let text = program
        .wait_until("all collectors are fresh", |text| {
            fresh(text, "scan_changes") == Some(4.0)
        })
        .await;
    parser::assert_text_format(&text);
    assert_eq!(program.status("/-/healthy").await, 200);
    assert_eq!(program.status("/-/ready").await, 200);
    assert_eq!(program.status("/").await, 200);
    assert_eq!(program.status("/nothing").await, 404);

    let openmetrics = program
        .client
        .get(format!("{}/metrics", program.base))
        .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        .send()
        .await
        .unwrap();
    let kind = openmetrics.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let openmetrics = openmetrics.text().await.unwrap();
    assert!(openmetrics.ends_with("# EOF\n"));
    parser::assert_openmetrics(&openmetrics);

    let compressed = program
        .client
        .get(format!("{}/metrics", program.base))
        .header("accept-encoding", "gzip");
    let compressed = compressed.send().await.unwrap();
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    let compressed = compressed.bytes().await.unwrap();
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&compressed[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert!(unpacked.contains("elements_up 1\n") && unpacked.len() > 10 * compressed.len() / 2);

    let jobs = program.get("/metrics?collector=jobs").await.text().await.unwrap();
    assert!(jobs.contains("elements_job_status{") && !jobs.contains("elements_customer_info"));
    let customer = partner.handle.with_world(|world| world.customers[0].id.clone());
    let filtered = program
        .get(&format!("/metrics?customer_id={customer}&collector=jobs"))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        filtered
            .lines()
            .filter(|line| !line.starts_with('#'))
            .all(|line| line.contains(&customer)),
        "{filtered}"
    );
    assert!(filtered.contains("elements_exporter_collector_success{collector=\"jobs\""));
    assert_eq!(program.status("/metrics?collector=nonsense&customer_id=").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_exits_with_0_and_the_state_is_restored() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let with_state = [("ELEMENTS_STATE__FILE", state.to_str().unwrap())];
    let program = Program::start(&partner.base, &[], &with_state).await;
    program
        .wait_until("all collectors are fresh", |text| {
            fresh(text, "scan_changes") == Some(4.0)
        })
        .await;
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_private(&state);

    // While the API is unreachable, restored data keeps its timestamps, and `elements_up` is 0.
    let expiring = [with_state[0], ("ELEMENTS_COLLECTORS__JOBS__STALE_AFTER", "3s")];
    let program = Program::start("http://127.0.0.1:1", &[], &expiring).await;
    assert_eq!(program.status("/-/ready").await, 200);
    let text = program.metrics().await;
    assert_eq!(value(&text, "elements_up"), Some(0.0));
    assert_eq!(value(&text, "elements_exporter_state_load_successful"), Some(1.0));
    assert!(text.contains("elements_job_last_backup_timestamp_seconds{"));
    let text = program
        .wait_until("a poll failed", |text| text.contains("reason=\"auth\"} 1"))
        .await;
    let last = text.lines().find_map(|line| {
        let rest =
            line.strip_prefix("elements_exporter_collector_last_success_timestamp_seconds{collector=\"jobs\"")?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    assert!(last.is_some_and(|last| last > 1.6e9), "{text}");
    // Three seconds after the last successful poll, values that describe the present expire, and dated facts remain.
    let text = program
        .wait_until("values expire", |text| !text.contains("elements_job_status{"))
        .await;
    assert!(text.contains("elements_job_last_backup_timestamp_seconds{") && text.contains("elements_customer_info{"));
    assert!(text.contains("elements_job_rpo_seconds{"));
}

#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn core_dumps_are_disabled() {
    use std::os::unix::process::ExitStatusExt as _;

    let partner = partner().await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let proc = format!("/proc/{}", program.id());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let text = program
        .wait_until("jobs are fresh", |text| fresh(text, "jobs") == Some(4.0))
        .await;
    for metric in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_threads",
    ] {
        assert!(
            value(&text, metric).is_some_and(|value| value > 0.0),
            "{metric} is missing"
        );
    }
    program.signal("ABRT");
    let status = program.wait().await.status;
    assert!(status.signal().is_some() && !status.core_dumped(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_state_is_renamed_and_reported() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    for (content, reason) in [
        ("{\"state\":{\"format\":99,\"version\":\"9\"}}\n", "newer version"),
        ("{\"state\":\n", "not a state file"),
        (
            "{\"state\":{\"format\":1,\"version\":\"0\"}}\n",
            "the end of the file is missing",
        ),
    ] {
        let state = directory.path().join("state");
        std::fs::write(&state, content).unwrap();
        let with_state = [("ELEMENTS_STATE__FILE", state.to_str().unwrap())];
        let program = Program::start(&partner.base, &[], &with_state).await;
        let text = program
            .wait_until("jobs are fresh", |text| fresh(text, "jobs") == Some(4.0))
            .await;
        assert_eq!(value(&text, "elements_exporter_state_load_successful"), Some(0.0));
        let output = program.terminate().await;
        assert_eq!(output.code, Some(0));
        assert!(output.stderr.contains(reason), "{}", output.stderr);
        assert_eq!(
            std::fs::read_to_string(directory.path().join("state.unusable")).unwrap(),
            content
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_applies_only_a_valid_configuration() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("elements.yml");
    std::fs::write(&file, "rpo:\n  default: 26h\n").unwrap();
    let flag = format!("--config.file={}", file.display());
    let program = Program::start(&partner.base, &[&flag, "--web.enable-lifecycle"], &[]).await;
    let rpo = |seconds: &'static str| {
        move |text: &str| {
            text.lines()
                .any(|line| line.starts_with("elements_job_rpo_seconds{") && line.ends_with(seconds))
        }
    };
    program.wait_until("the first objective", rpo("} 93600")).await;

    std::fs::write(&file, "rpo:\n  default: 12h\n").unwrap();
    program.signal("HUP");
    program.wait_until("the second objective", rpo("} 43200")).await;

    std::fs::write(&file, "rpo:\n  default: soon\n").unwrap();
    let (status, text) = program.post_reload().await;
    assert_eq!(status, 500);
    assert!(text.contains("rpo.default"));
    let text = program.metrics().await;
    assert_eq!(
        value(&text, "elements_exporter_config_last_reload_successful"),
        Some(0.0)
    );
    assert!(rpo("} 43200")(&text), "the previous configuration must stay active");

    std::fs::write(&file, "rpo:\n  default: 1h\n").unwrap();
    assert_eq!(program.post_reload().await.0, 200);
    let text = program.wait_until("the third objective", rpo("} 3600")).await;
    assert_eq!(
        value(&text, "elements_exporter_config_last_reload_successful"),
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_over_http_needs_the_lifecycle_flag() {
    let partner = partner().await;
    let program = Program::start(&partner.base, &[], &[]).await;
    assert_eq!(program.post_reload().await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_a_missing_permission_with_advice() {
    let partner = partner().await;
    let scopes = ["customers", "license", "jobs", "cbprotected"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(scopes.into());
    let output = Program::spawn(every_second_all(&partner.base, &[]), &["check"])
        .wait()
        .await;
    let report = output.stdout;
    assert_eq!(output.code, Some(1), "{report}");
    let line = report.lines().find(|line| line.starts_with("scan_profiles")).unwrap();
    assert!(
        line.contains("permission missing") && line.contains("elements.scanprofiles.read.all"),
        "{report}"
    );
    assert!(
        report.contains("open Settings > API app registration"),
        "the advice must say where to grant the permission: {report}"
    );
    assert!(
        report
            .lines()
            .any(|line| line.starts_with("jobs") && line.contains(" ok ")),
        "{report}"
    );
    let of_customers = partner
        .handle
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/jobs/batch"))
        .count();
    assert_eq!(of_customers, 1, "jobs must be requested for only one customer");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_polls_everything_and_exits_with_the_result() {
    let partner = partner().await;
    let run_once = || Program::spawn(every_second_all(&partner.base, &[]), &["once"]).wait();
    let output = run_once().await;
    let text = output.stdout;
    assert_eq!(output.code, Some(0));
    assert_eq!(fresh(&text, "scan_changes"), Some(4.0));
    parser::assert_text_format(&text);
    partner.handle.set_secret("another".to_owned());
    let output = run_once().await;
    assert_eq!(output.code, Some(1));
    let text = output.stdout;
    assert_eq!(value(&text, "elements_up"), Some(0.0));
}

#[test]
fn man_page_and_completions_have_all_flags_and_commands() {
    let page = run(&["man"], &[]);
    assert_eq!(page.status.code(), Some(0));
    let page = String::from_utf8(page.stdout).unwrap();
    let mut groff = Command::new("groff")
        .args(["-man", "-Tascii", "-ww", "-P-cbou", "-rLL=200n", "-rHY=0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot run groff; tests/run installs it");
    let mut input = groff.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, page.as_bytes()).unwrap();
    drop(input);
    let formatted = groff.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(formatted.stderr).unwrap(),
        "",
        "groff must not print warnings"
    );
    let formatted = String::from_utf8(formatted.stdout).unwrap();
    for part in [
        "NAME",
        "SYNOPSIS",
        "COMMANDS",
        "FILES",
        "SIGNALS",
        "EXIT STATUS",
        "--simulator.customers",
        "--output",
    ] {
        assert!(formatted.contains(part), "{formatted} lacks {part}");
    }
    let help = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let flags: Vec<&str> = flags.filter_map(|flag| flag.split([' ', '[', '=']).next()).collect();
    assert!(flags.len() >= 9, "{help}");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        // Continuation lines are indented further.
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in [
        "demo",
        "simulate",
        "check",
        "healthcheck",
        "once",
        "assets",
        "man",
        "completions",
    ] {
        assert!(commands.contains(&command), "{help} lacks {command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[]);
        assert_eq!(script.status.code(), Some(0));
        let script = String::from_utf8(script.stdout).unwrap();
        for word in flags.iter().copied().chain(commands.iter().copied()) {
            assert!(script.contains(word), "{shell} lacks {word}");
            let is_documented = formatted.contains(&format!("--{word}"))
                || formatted
                    .lines()
                    .any(|line| line.split_whitespace().next() == Some(word));
            assert!(is_documented, "the man page lacks {word}");
        }
    }
    let (code, _) = code_and_error(&["completions", "tcsh"], &[]);
    assert_eq!(code, 64);
}
