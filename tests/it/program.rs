//! The program itself, started as an operator starts it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::parser;
use crate::support::{environment, eventually, value};
use crate::world::{Partner, start, still};

/// The program, and what it has said so far.
pub struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
    pub base: String,
    client: reqwest::Client,
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elements_exporter"));
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.envs(variables.iter().copied());
    command
}

/// Runs it to its end.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments, variables).output().unwrap()
}

fn code_and_error(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = run(arguments, variables);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The variables that point it at a partner, with short intervals.
fn variables(base: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let short = [
        "CUSTOMERS",
        "JOBS",
        "PROTECTED",
        "LICENSES",
        "SCAN_PROFILES",
        "SCAN_CHANGES",
    ]
    .map(|name| (format!("ELEMENTS_COLLECTORS__{name}__INTERVAL"), "1s".to_owned()));
    let given = environment(base, more).into_iter();
    let given = given.map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()));
    short.into_iter().chain(given).collect()
}

impl Program {
    /// Starts the daemon on a free port and waits until it says where.
    pub async fn start(base: &str, arguments: &[&str], more: &[(&str, &str)]) -> Self {
        let variables = variables(base, more);
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Self::launch(arguments, &variables).await
    }

    /// The same with this environment and no other.
    pub async fn launch(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = [&["--web.listen-address=127.0.0.1:0"], arguments].concat();
        let mut child = command(&arguments, variables).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut said = heard.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        let address = eventually("it listens", || {
            let said = said.lock().unwrap().clone();
            async move {
                let (_, rest) = said.split_once("address=")?;
                rest.split_whitespace().next().map(ToOwned::to_owned)
            }
        })
        .await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            child,
            said,
            base: format!("http://{address}"),
            client: reqwest::Client::builder().no_gzip().build().unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.text().await.unwrap()
    }

    /// Waits until the metrics hold what is looked for.
    pub async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        eventually(what, || async {
            let text = self.metrics().await;
            holds(&text).then_some(text)
        })
        .await
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: its exit code, and what it said.
    async fn end(mut self) -> (Option<i32>, String) {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        (status.code(), self.said.lock().unwrap().clone())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn partner() -> Partner {
    start(still(4)).await
}

pub fn fresh(text: &str, collector: &str) -> Option<f64> {
    value(
        text,
        &format!("elements_exporter_customers{{collector=\"{collector}\",state=\"fresh\"}}"),
    )
}

#[test]
fn version_help_and_wrong_usage() {
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
fn a_bad_configuration_is_told_in_one_line_and_ends_with_78() {
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
fn a_key_that_does_not_fit_its_certificate_ends_with_78() {
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
}

#[tokio::test]
async fn a_port_that_is_taken_ends_with_1_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let variables = variables("http://127.0.0.1:1", &[]);
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let (code, error) = code_and_error(&[&format!("--web.listen-address={address}")], &variables);
    assert_eq!(code, 1);
    assert!(error.contains(&address), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_both_formats_plain_and_compressed_and_narrowed() {
    let partner = partner().await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let text = program
        .until("all is fresh", |text| fresh(text, "scan_changes") == Some(4.0))
        .await;
    parser::accepts_text(&text);
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
    parser::accepts_openmetrics(&openmetrics);

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
    let one = program
        .get(&format!("/metrics?customer_id={customer}&collector=jobs"))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        one.lines()
            .filter(|line| !line.starts_with('#'))
            .all(|line| line.contains(&customer)),
        "{one}"
    );
    assert!(one.contains("elements_exporter_collector_success{collector=\"jobs\""));
    assert_eq!(program.status("/metrics?collector=nonsense&customer_id=").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_with_0_and_its_state_outlives_it() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let with_state = [("ELEMENTS_STATE__FILE", state.to_str().unwrap())];
    let program = Program::start(&partner.base, &[], &with_state).await;
    program
        .until("all is fresh", |text| fresh(text, "scan_changes") == Some(4.0))
        .await;
    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert_private(&state);

    // The API is gone. What was known comes back with its own moments, and is not called up.
    let program = Program::start("http://127.0.0.1:1", &[], &with_state).await;
    assert_eq!(program.status("/-/ready").await, 200);
    let text = program.metrics().await;
    assert_eq!(value(&text, "elements_up"), Some(0.0));
    assert_eq!(value(&text, "elements_exporter_state_load_successful"), Some(1.0));
    assert!(text.contains("elements_job_last_backup_timestamp_seconds{"));
    let text = program
        .until("a poll failed", |text| text.contains("reason=\"auth\"} 1"))
        .await;
    let last = text.lines().find_map(|line| {
        let rest =
            line.strip_prefix("elements_exporter_collector_last_success_timestamp_seconds{collector=\"jobs\"")?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    assert!(last.is_some_and(|last| last > 1.6e9), "{text}");
    // Three seconds after the last good poll, what describes the present goes; dated facts stay.
    let text = program
        .until("it is stale", |text| !text.contains("elements_job_status{"))
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
async fn the_memory_that_holds_the_secret_is_never_dumped() {
    use std::os::unix::process::ExitStatusExt as _;

    let partner = partner().await;
    let mut program = Program::start(&partner.base, &[], &[]).await;
    let proc = format!("/proc/{}", program.child.id());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let text = program.until("it polls", |text| fresh(text, "jobs") == Some(4.0)).await;
    for metric in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_threads",
    ] {
        assert!(
            value(&text, metric).is_some_and(|value| value > 0.0),
            "{metric} is still told"
        );
    }
    program.signal("ABRT");
    let status = eventually("it ends", || {
        let status = program.child.try_wait().unwrap();
        async move { status }
    })
    .await;
    assert!(status.signal().is_some() && !status.core_dumped(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_state_is_set_aside_and_said() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    for (content, reason) in [
        ("{\"state\":{\"format\":99,\"version\":\"9\"}}\n", "newer version"),
        ("not a state\n", "no state file"),
        ("{\"state\":{\"format\":1,\"version\":\"0\"}}\n", "ends before its end"),
    ] {
        let state = directory.path().join("state");
        std::fs::write(&state, content).unwrap();
        let with_state = [("ELEMENTS_STATE__FILE", state.to_str().unwrap())];
        let program = Program::start(&partner.base, &[], &with_state).await;
        let text = program.until("it polls", |text| fresh(text, "jobs") == Some(4.0)).await;
        assert_eq!(value(&text, "elements_exporter_state_load_successful"), Some(0.0));
        program.signal("TERM");
        let (code, said) = program.end().await;
        assert_eq!(code, Some(0));
        assert!(said.contains(reason), "{said}");
        assert_eq!(
            std::fs::read_to_string(directory.path().join("state.unusable")).unwrap(),
            content
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_effect_and_a_bad_one_changes_nothing() {
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
    program.until("the first objective", rpo("} 93600")).await;

    std::fs::write(&file, "rpo:\n  default: 12h\n").unwrap();
    program.signal("HUP");
    program.until("the second objective", rpo("} 43200")).await;

    std::fs::write(&file, "rpo:\n  default: soon\n").unwrap();
    let answer = program
        .client
        .post(format!("{}/-/reload", program.base))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 500);
    assert!(answer.text().await.unwrap().contains("rpo.default"));
    let text = program.metrics().await;
    assert_eq!(
        value(&text, "elements_exporter_config_last_reload_successful"),
        Some(0.0)
    );
    assert!(rpo("} 43200")(&text), "the old configuration lives on");

    std::fs::write(&file, "rpo:\n  default: 1h\n").unwrap();
    let answer = program
        .client
        .post(format!("{}/-/reload", program.base))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let text = program.until("the third objective", rpo("} 3600")).await;
    assert_eq!(
        value(&text, "elements_exporter_config_last_reload_successful"),
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_lifecycle_flag_nobody_reloads_over_http() {
    let partner = partner().await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let answer = program
        .client
        .post(format!("{}/-/reload", program.base))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_permission_that_is_missing_and_what_to_click_on() {
    let partner = partner().await;
    let variables = variables(&partner.base, &[]);
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let check = || {
        let output = run(&["check"], &variables);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let scopes = ["customers", "license", "jobs", "cbprotected"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(scopes.into());
    let (code, report) = tokio::task::block_in_place(check);
    assert_eq!(code, 1, "{report}");
    let line = report.lines().find(|line| line.starts_with("scan_profiles")).unwrap();
    assert!(
        line.contains("not permitted") && line.contains("elements.scanprofiles.read.all"),
        "{report}"
    );
    assert!(
        report.contains("open Settings > API app registration"),
        "it says where: {report}"
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
    assert_eq!(of_customers, 1, "for one customer");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_prints_one_full_poll_and_tells_a_failure_by_its_code() {
    let partner = partner().await;
    let variables = variables(&partner.base, &[]);
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let output = tokio::task::block_in_place(|| run(&["once"], &variables));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(fresh(&text, "scan_changes"), Some(4.0));
    parser::accepts_text(&text);
    partner.handle.set_secret("another".to_owned());
    let output = tokio::task::block_in_place(|| run(&["once"], &variables));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(value(&text, "elements_up"), Some(0.0));
}

#[test]
fn the_man_page_and_completions_tell_of_every_flag_and_command() {
    let page = run(&["man"], &[]);
    assert_eq!(page.status.code(), Some(0));
    let page = String::from_utf8(page.stdout).unwrap();
    let mut groff = Command::new("groff")
        .args(["-man", "-Tascii", "-ww", "-P-cbou", "-rLL=200n", "-rHY=0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("groff is installed by tests/run");
    let mut input = groff.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, page.as_bytes()).unwrap();
    drop(input);
    let set = groff.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(set.stderr).unwrap(), "", "groff warns of nothing");
    let set = String::from_utf8(set.stdout).unwrap();
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
        assert!(set.contains(part), "{set} lacks {part}");
    }
    let help = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let flags: Vec<&str> = flags.filter_map(|flag| flag.split([' ', '[', '=']).next()).collect();
    assert!(flags.len() >= 9, "{help}");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        // What goes on over a line is indented further.
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
            let told = set.contains(&format!("--{word}"))
                || set.lines().any(|line| line.split_whitespace().next() == Some(word));
            assert!(told, "the man page lacks {word}");
        }
    }
    let (code, _) = code_and_error(&["completions", "tcsh"], &[]);
    assert_eq!(code, 64);
}
