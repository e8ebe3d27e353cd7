//! The commands in the documentation work. A test runs each command, unless [`NOT_RUN`] gives a reason not to. In that
//! case, the test only checks that the files, flags and keys in the command exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use elements_exporter::config;

use crate::harness::eventually;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;

/// Pages with commands, in addition to those under `docs`.
const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];

/// Prefixes of code blocks that are not commands, and of code spans that only mention a command. Queries are
/// detected automatically.
const NO_COMMANDS: [&str; 2] = [
    "config → auth → api",
    "promtool tsdb create-blocks-from --max-block-duration=700h openmetrics FILE DATA_DIRECTORY",
];

/// Prefixes of commands that the test does not run, with reasons. The test still checks the files, flags and keys in
/// these commands.
const NOT_RUN: [(&str, &str); 23] = [
    ("./tests/run", "runs this test"),
    (".ci/run", "runs this test"),
    ("tests/deb", "builds a release and a package"),
    ("tests/kube/run", "builds the Kubernetes tools"),
    ("tests/reproducible", "builds the release twice"),
    ("tests/soak", "takes minutes; a test covers a short run"),
    ("tests/month/run", "takes minutes and needs Go"),
    ("fuzz/run", "needs a nightly compiler"),
    ("benches/run", "measures performance, which requires an idle machine"),
    ("deploy/deb/build", "needs a release; tests/deb runs it"),
    ("deploy/build", "builds the release; tests/reproducible runs it"),
    ("cargo build --release", "builds the release"),
    ("cargo test", "runs this test"),
    ("cargo install", "builds the release"),
    ("cargo doc", "opens a browser; .ci/run builds the documentation"),
    ("cargo deny", ".ci/run runs it"),
    ("cargo audit", ".ci/run runs it"),
    ("docker", "needs a container runtime"),
    ("kubectl", "needs a cluster; tests/kube/run checks the manifests"),
    ("helm", "needs a cluster; tests/kube/run renders the chart"),
    ("sudo", "changes the machine"),
    ("sha256sum --check", "needs a release"),
    ("gh attestation", "needs a release"),
];

/// Names of programs. A code span that starts with one of them is a command.
const PROGRAMS: [&str; 10] = [
    "elements_exporter ",
    "curl ",
    "promtool ",
    "amtool ",
    "cargo ",
    "docker ",
    "kubectl ",
    "helm ",
    "sudo ",
    "export ",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command from a page, joined into one line.
#[derive(Clone, Debug, PartialEq)]
struct DocCommand {
    page: String,
    text: String,
    /// Whether the command is from a code block, rather than from a sentence.
    in_block: bool,
}

fn pages() -> Vec<String> {
    let mut pages = PAGES.map(ToOwned::to_owned).to_vec();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().map(Result::unwrap) {
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Returns the commands in the code blocks and code spans of a page.
fn commands(page: &str) -> Vec<DocCommand> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut doc_commands = Vec::new();
    let mut add = |text: &str, in_block| {
        doc_commands.push(DocCommand {
            page: page.to_owned(),
            text: text.to_owned(),
            in_block,
        });
    };
    let mut spans = String::new();
    let mut lines = text.lines().peekable();
    let mut after_blank = true;
    while let Some(line) = lines.next() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            let kind = kind.trim();
            assert!(
                !kind.is_empty() || block.iter().all(|line| line.starts_with(['#', 'e'])),
                "{page}: a block without a language: {block:?}"
            );
            if kind == "promql" {
                let query = block.join(" ");
                assert!(
                    promql_parser::parser::parse(&query).is_ok(),
                    "{page}: invalid query: {query}"
                );
            }
            if ["sh", "bash", "shell", "console"].contains(&kind) {
                for command in joined(&block) {
                    add(command.trim_start_matches("$ "), true);
                }
            }
        } else if after_blank && line.starts_with("    ") {
            let mut block = vec![line];
            while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                block.push(line);
            }
            if !is_not_a_command(&block) {
                for command in joined(&block) {
                    add(&command, true);
                }
            }
        } else {
            spans.push_str(line);
            spans.push('\n');
        }
        after_blank = line.trim().is_empty();
    }
    for span in spans.split('`').skip(1).step_by(2) {
        let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_command = !NO_COMMANDS.contains(&span.as_str());
        if is_command && PROGRAMS.iter().any(|program| span.starts_with(program)) {
            add(&span, false);
        }
    }
    doc_commands
}

/// Returns whether a block is a query or is listed in [`NO_COMMANDS`].
fn is_not_a_command(block: &[&str]) -> bool {
    let text = block.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    // A command with flags may be valid PromQL (a subtraction), so a query must also contain a metric.
    let is_query = text.contains("elements_")
        && text.split(' ').next() != Some("elements_exporter")
        && promql_parser::parser::parse(&text).is_ok();
    is_query || NO_COMMANDS.iter().any(|prefix| text.starts_with(prefix))
}

/// Returns the commands in a block, each joined into one line, without comments.
fn joined(block: &[&str]) -> Vec<String> {
    let mut commands = vec![String::new()];
    for line in block.iter().map(|line| line.trim()) {
        let (part, continues) = match line.strip_suffix('\\') {
            Some(part) => (part.trim(), true),
            None => (line, false),
        };
        if let Some(command) = commands.last_mut() {
            command.push_str(part);
            command.push(' ');
        }
        if !continues {
            commands.push(String::new());
        }
    }
    let commands = commands.into_iter().map(|command| command.trim().to_owned());
    commands
        .filter(|command| !command.is_empty() && !command.starts_with('#'))
        .collect()
}

/// Replaces placeholders with existing paths. A reader of the README has no configuration file, so the commands of the
/// README must work without one.
fn filled_in(word: &str, page: &str, directory: &Path) -> String {
    match word {
        "DIR" => directory.join("assets").display().to_string(),
        "/etc/elements_exporter/elements.yml" if page != "README.md" => {
            root().join("deploy/config/elements.yml").display().to_string()
        }
        _ => match word.split_once('=') {
            Some((flag, value)) => format!("{flag}={}", filled_in(value, page, directory)),
            None => word.to_owned(),
        },
    }
}

/// The environment in which commands run: a simulated partner, a running exporter, and a directory for output.
struct Sandbox {
    partner: Partner,
    exporter: Program,
    directory: tempfile::TempDir,
}

impl Sandbox {
    async fn start() -> Self {
        let partner = start(frozen_partner(2)).await;
        let exporter = Program::start(&partner.base, &["--web.enable-lifecycle"], &[]).await;
        Self {
            partner,
            exporter,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the environment variables that an operator would have set, adapted to the simulated API.
    fn environment(&self) -> Vec<(String, String)> {
        let variables = crate::harness::environment(&self.partner.base, &[("ELEMENTS_API__VERSION", "v3")]);
        let text = |text: std::ffi::OsString| text.into_string().unwrap();
        variables
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    /// Runs the exporter with these arguments. If it runs as a server, stops it once it is listening.
    async fn run_exporter(&self, doc_command: &DocCommand, words: &[&str]) {
        let words: Vec<String> = words
            .iter()
            .map(|word| filled_in(word, &doc_command.page, self.directory.path()))
            .collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = words.iter().copied().find(|word| !word.starts_with('-'));
        let serves = matches!(command, None | Some("demo" | "simulate"));
        if serves && command.is_some() {
            words.push("--simulator.listen-address=127.0.0.1:0");
        }
        let address = match command {
            Some("healthcheck") => self.exporter.base.trim_start_matches("http://"),
            _ => "127.0.0.1:0",
        };
        let listen = format!("--web.listen-address={address}");
        words.push(&listen);
        let mut program = Command::new(crate::harness::program::PROGRAM);
        program.args(&words).env_clear().envs(self.environment());
        if serves && !words.contains(&"--help") && !words.contains(&"--version") {
            start_and_kill(doc_command, &mut program, self.directory.path()).await;
        } else {
            run_successfully(doc_command, &mut program);
        }
    }

    /// Runs a command, or checks that [`NOT_RUN`] gives a reason not to.
    async fn run_or_check(&self, doc_command: &DocCommand) {
        let words = words(&doc_command.text);
        check_references(doc_command, &words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["export", setting] => assert!(
                setting.starts_with("ELEMENTS_") && setting.contains('='),
                "{doc_command:?}"
            ),
            ["elements_exporter", words @ ..] => self.run_exporter(doc_command, words).await,
            ["cargo", "run", words @ ..] => {
                let at = words
                    .iter()
                    .position(|word| *word == "--")
                    .map_or(words.len(), |at| at + 1);
                self.run_exporter(doc_command, &words[at..]).await;
            }
            ["curl", words @ ..] => {
                let with_local_address = |word: &&str| {
                    let word = word.replace("EXPORTER", "127.0.0.1").replace("localhost", "127.0.0.1");
                    word.replace("http://127.0.0.1:10027", &self.exporter.base)
                };
                let words: Vec<String> = words.iter().map(with_local_address).collect();
                run_successfully(
                    doc_command,
                    Command::new("curl")
                        .args(["--fail", "--silent", "--noproxy", "*"])
                        .args(words),
                );
            }
            [tool @ ("promtool" | "amtool"), words @ ..] => {
                let variable = format!("EXPORTER_TEST_{}", tool.to_uppercase());
                let program = std::env::var(variable).unwrap_or_else(|_| (*tool).to_owned());
                run_successfully(doc_command, Command::new(program).args(words).current_dir(root()));
            }
            _ => {
                let is_exempt = NOT_RUN.iter().any(|(prefix, _)| doc_command.text.starts_with(prefix));
                assert!(
                    is_exempt,
                    "{}: {:?} is not run by any test. Run it in tests/it/docs.rs, or add it to NOT_RUN with the reason. If it is not a command, add it to NO_COMMANDS.",
                    doc_command.page, doc_command.text
                );
            }
        }
    }
}

fn run_successfully(doc_command: &DocCommand, command: &mut Command) -> Output {
    let output =
        tokio::task::block_in_place(|| command.output()).unwrap_or_else(|error| panic!("{doc_command:?}: {error}"));
    assert!(
        output.status.success(),
        "{doc_command:?} exits with {:?}: {}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Starts a server program, and stops it once it reports that it is listening.
async fn start_and_kill(doc_command: &DocCommand, command: &mut Command, directory: &Path) {
    let log = directory.join("log");
    let file = fs::File::create(&log).unwrap();
    let streams = (file.try_clone().unwrap(), file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(streams.0)
        .stderr(streams.1)
        .spawn()
        .unwrap();
    let markers = ["start page ", "message=listening", "The simulated partner API is at "];
    eventually(&format!("{doc_command:?} listens"), || {
        let printed = fs::read_to_string(&log).unwrap();
        assert!(
            child.try_wait().unwrap().is_none(),
            "{doc_command:?} has exited: {printed}"
        );
        async move { markers.iter().any(|marker| printed.contains(marker)).then_some(()) }
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Splits a command into words as a shell does, but without support for escapes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in command.chars() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Checks that the files, variables, flags and keys in a command exist.
fn check_references(doc_command: &DocCommand, words: &[String]) {
    let variables: BTreeSet<String> = config::KEYS.iter().map(config::Key::variable).collect();
    for word in words {
        for name in word.split('=').filter(|part| part.starts_with("ELEMENTS_")) {
            assert!(variables.contains(name), "{doc_command:?}: there is no variable {name}");
        }
        let path = word.trim_start_matches("./");
        let is_repository_path = ["deploy/", "tests/", "docs/", "dashboards/", "benches/", "fuzz/", ".ci/"]
            .iter()
            .any(|folder| path.starts_with(folder));
        assert!(
            !is_repository_path || root().join(path).exists(),
            "{doc_command:?}: there is no {path}"
        );
    }
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        "docker" if word(1) == "build" => assert!(root().join("Dockerfile").exists()),
        // The words after the image are the program's arguments.
        "docker" if word(1) == "run" => {
            let image = words.iter().position(|word| word == "elements_exporter");
            let image = image.unwrap_or_else(|| panic!("{doc_command:?} names no image"));
            check_flags(doc_command, &words[image + 1..]);
        }
        "helm" => {
            let chart = words.iter().find(|word| word.starts_with("deploy/helm/"));
            let chart = chart.unwrap_or_else(|| panic!("{doc_command:?} names no chart"));
            let values = fs::read_to_string(root().join(chart).join("values.yaml")).unwrap();
            let values = yaml_rust2::YamlLoader::load_from_str(&values).unwrap().remove(0);
            for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
                let path = pair[1].split_once('=').map_or(pair[1].as_str(), |(path, _)| path);
                let value = path.split('.').fold(&values, |value, key| &value[key]);
                assert!(!value.is_badvalue(), "{doc_command:?}: the chart has no value {path}");
            }
        }
        "sudo" if word(1) == "systemctl" => {
            let unit = words.last().unwrap();
            let file = format!("deploy/systemd/{unit}.service");
            assert!(root().join(&file).exists(), "{doc_command:?}: there is no {file}");
        }
        "sudo" if word(1) == "apt" => {
            let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
            let package = word(3).rsplit('/').next().unwrap().split('_').next().unwrap();
            assert!(
                manifest.contains(&format!("name = \"{package}\"")),
                "{doc_command:?}: Cargo.toml does not define {package}"
            );
        }
        "elements_exporter" => check_flags(doc_command, &words[1..]),
        first => {
            let program = root().join(first);
            if first.contains('/') && program.is_file() {
                run_successfully(doc_command, Command::new("bash").arg("-n").arg(program));
            }
        }
    }
}

/// Checks that the exporter supports all flags in these words.
fn check_flags(doc_command: &DocCommand, words: &[String]) {
    let mut program = Command::new(crate::harness::program::PROGRAM);
    run_successfully(doc_command, program.args(words).arg("--help").env_clear());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_the_documentation_work() {
    let doc_commands: Vec<DocCommand> = pages().iter().flat_map(|page| commands(page)).collect();
    let in_blocks = doc_commands.iter().filter(|doc_command| doc_command.in_block).count();
    assert!(in_blocks >= 15, "blocks are no longer found: {doc_commands:#?}");
    let sandbox = Sandbox::start().await;
    let mut checked = Vec::<&DocCommand>::new();
    for doc_command in &doc_commands {
        if !checked.iter().any(|checked| checked.text == doc_command.text) {
            sandbox.run_or_check(doc_command).await;
            checked.push(doc_command);
        }
    }
    // An entry whose prefix does not occur on any page is outdated.
    let all_text = pages()
        .iter()
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .collect::<String>();
    for (prefix, _) in NOT_RUN {
        assert!(all_text.contains(prefix), "no page contains {prefix:?}");
    }
}

/// Returns the names of the long flags in a text.
fn long_flags(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && !"-.".contains(character))
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches('.'))
        .collect()
}

#[test]
fn every_flag_is_on_the_page_about_the_command_line() {
    let help = |command: Option<&str>| {
        let mut program = Command::new(crate::harness::program::PROGRAM);
        let output = program.args(command).arg("--help").env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let overview = help(None);
    let (_, commands) = overview.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    // The lines that continue a description have a larger indentation.
    let commands = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = commands.filter(|line| !line.starts_with(' '));
    let commands: Vec<Option<&str>> = commands.map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 10, "commands are no longer found: {commands:?}");
    let page = fs::read_to_string(root().join("docs/command-line.md")).unwrap();
    let documented = long_flags(&page);
    for command in commands.into_iter().chain([None]) {
        let text = help(command);
        let flags = long_flags(&text);
        let missing: Vec<&&str> = flags.difference(&documented).collect();
        assert!(flags.contains("--help"), "flags of {command:?} are no longer found");
        assert!(
            missing.is_empty(),
            "docs/command-line.md lacks {missing:?} of {command:?}"
        );
    }
}

#[test]
fn commands_are_found_in_blocks_spans_and_lists() {
    let directory = tempfile::tempdir().unwrap();
    let page: PathBuf = directory.path().join("page.md");
    let text = "# A page\n\n    frobnicate --now\n\n    elements_exporter check \\\n      --output=json\n    # a comment\n\n```console\n$ curl x | \
                head\n```\n\nA query:\n\n    time() - elements_up > 5\n\nSee `elements_exporter\nonce`, and `elements_up`.\n\n\
                - an item\n    that goes on\n\n```yaml\ncurl: x\n```\n";
    fs::write(&page, text).unwrap();
    let found = commands(page.to_str().unwrap());
    let found: Vec<(&str, bool)> = found
        .iter()
        .map(|doc_command| (doc_command.text.as_str(), doc_command.in_block))
        .collect();
    assert_eq!(
        found,
        [
            ("frobnicate --now", true),
            ("elements_exporter check --output=json", true),
            ("curl x | head", true),
            ("elements_exporter once", false)
        ]
    );
    assert_eq!(words("a 'b c' --d=\"e f\""), ["a", "b c", "--d=e f"]);
}
