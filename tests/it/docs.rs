//! What the documentation tells people to type works: every command is run, or it is known why a test cannot run it, and
//! then what it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use elements_exporter::config;

use crate::program::Program;
use crate::support::eventually;
use crate::world::{Partner, start, still};

/// The pages that tell people what to type, besides all of `docs`.
const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];

/// Blocks that are indented and are no commands, by how they begin. Queries are known as such by themselves.
const NO_COMMANDS: [&str; 1] = ["config → auth → api"];

/// Commands that no test can run, by how they begin, and why. What they name is looked for all the same.
const NOT_RUN: [(&str, &str); 21] = [
    ("./tests/run", "this is how this test is run"),
    (".ci/run", "runs this test"),
    ("tests/deb", "builds a release and a package"),
    ("tests/kube/run", "builds the tools of Kubernetes"),
    ("tests/reproducible", "builds the release twice"),
    ("tests/soak", "takes minutes; a short one is a test"),
    ("fuzz/run", "needs a nightly compiler"),
    ("benches/run", "measures, which takes a machine of its own"),
    ("deploy/deb/build", "needs a release; tests/deb runs it"),
    ("deploy/build", "builds the release; tests/reproducible runs it"),
    ("cargo build --release --timings", "builds the release"),
    ("cargo test", "this is how this test is run"),
    ("cargo doc", "opens a browser; .ci/run makes the documentation"),
    ("cargo deny", "run by .ci/run"),
    ("cargo audit", "run by .ci/run"),
    ("docker", "needs a container runtime"),
    ("kubectl", "needs a cluster; tests/kube/run looks at what is applied"),
    ("helm", "needs a cluster; tests/kube/run renders the chart"),
    ("sudo", "changes the machine"),
    ("sha256sum --check", "needs a release"),
    ("gh attestation", "needs a release"),
];

/// Programs that a command can begin with. A span of code that begins with one of them is a command, too.
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

/// A command as a page tells it, on one line.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    page: String,
    text: String,
    /// Whether it stands in a block, to be copied as it is, and not in a sentence.
    in_block: bool,
}

fn pages() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"));
    let mut pages: Vec<String> = PAGES.map(ToOwned::to_owned).into_iter().chain(docs).collect();
    pages.sort();
    pages
}

/// What a page has in blocks of commands and in spans of code.
fn commands(page: &str) -> Vec<Told> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut told = Vec::new();
    let mut add = |text: &str, in_block| {
        told.push(Told {
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
                "{page}: a block that does not say what it is: {block:?}"
            );
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
            if !is_something_else(&block) {
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
        if PROGRAMS.iter().any(|program| span.starts_with(program)) {
            add(&span, false);
        }
    }
    told
}

/// Whether a block is a query or one of the others that are no commands.
fn is_something_else(block: &[&str]) -> bool {
    let text = block.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    // A command with flags may be read as a difference, so a query has to be about metrics as well.
    let is_query = text.contains("elements_")
        && text.split(' ').next() != Some("elements_exporter")
        && promql_parser::parser::parse(&text).is_ok();
    is_query || NO_COMMANDS.iter().any(|beginning| text.starts_with(beginning))
}

/// The commands of a block, each on one line, without comments.
fn joined(block: &[&str]) -> Vec<String> {
    let mut commands = vec![String::new()];
    for line in block.iter().map(|line| line.trim()) {
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part.trim(), true),
            None => (line, false),
        };
        if let Some(command) = commands.last_mut() {
            command.push_str(part);
            command.push(' ');
        }
        if !goes_on {
            commands.push(String::new());
        }
    }
    let commands = commands.into_iter().map(|command| command.trim().to_owned());
    commands
        .filter(|command| !command.is_empty() && !command.starts_with('#'))
        .collect()
}

/// What stands for a word that is an example here: a directory for one in capitals, and the file that is shipped.
fn filled_in(word: &str, directory: &Path) -> String {
    match word {
        "DIR" => directory.join("assets").display().to_string(),
        "/etc/elements_exporter/elements.yml" => root().join("deploy/config/elements.yml").display().to_string(),
        _ => match word.split_once('=') {
            Some((flag, value)) => format!("{flag}={}", filled_in(value, directory)),
            None => word.to_owned(),
        },
    }
}

/// Where the commands are run: a partner to ask, an exporter to look at, and a place for what they write.
struct Stage {
    partner: Partner,
    exporter: Program,
    directory: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let partner = start(still(2)).await;
        let exporter = Program::start(&partner.base, &["--web.enable-lifecycle"], &[]).await;
        Self {
            partner,
            exporter,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The configuration of an operator who followed the page that far, but for the API, which is simulated.
    fn environment(&self) -> Vec<(String, String)> {
        let variables = crate::support::environment(&self.partner.base, &[("ELEMENTS_API__VERSION", "v3")]);
        let text = |text: std::ffi::OsString| text.into_string().unwrap();
        variables
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    /// Runs the exporter with these words. What stays is stopped once it listens.
    async fn run_exporter(&self, told: &Told, words: &[&str]) {
        let words: Vec<String> = words
            .iter()
            .map(|word| filled_in(word, self.directory.path()))
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
        let mut program = Command::new(env!("CARGO_BIN_EXE_elements_exporter"));
        program.args(&words).env_clear().envs(self.environment());
        if serves && !words.contains(&"--help") && !words.contains(&"--version") {
            serves_until_killed(told, &mut program, self.directory.path()).await;
        } else {
            succeeds(told, &mut program);
        }
    }

    /// Runs a command of a page, or says why not.
    async fn hold(&self, told: &Told) {
        let words = words(&told.text);
        names_what_is_there(told, &words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["export", setting] => assert!(setting.starts_with("ELEMENTS_") && setting.contains('='), "{told:?}"),
            ["elements_exporter", words @ ..] => self.run_exporter(told, words).await,
            ["cargo", "run", words @ ..] => {
                let at = words
                    .iter()
                    .position(|word| *word == "--")
                    .map_or(words.len(), |at| at + 1);
                self.run_exporter(told, &words[at..]).await;
            }
            ["curl", words @ ..] => {
                let here = |word: &&str| {
                    let told = word.replace("EXPORTER", "127.0.0.1").replace("localhost", "127.0.0.1");
                    told.replace("http://127.0.0.1:10027", &self.exporter.base)
                };
                let words: Vec<String> = words.iter().map(here).collect();
                succeeds(
                    told,
                    Command::new("curl")
                        .args(["--fail", "--silent", "--noproxy", "*"])
                        .args(words),
                );
            }
            [tool @ ("promtool" | "amtool"), words @ ..] => {
                let variable = format!("EXPORTER_TEST_{}", tool.to_uppercase());
                let program = std::env::var(variable).unwrap_or_else(|_| (*tool).to_owned());
                succeeds(told, Command::new(program).args(words).current_dir(root()));
            }
            _ => {
                let known = NOT_RUN.iter().any(|(beginning, _)| told.text.starts_with(beginning));
                assert!(
                    known,
                    "{}: {:?} is not run by any test. Teach tests/it/docs.rs to run it, or, where no test can, put it into \
                     NOT_RUN with the reason. Where it is no command, put it into NO_COMMANDS.",
                    told.page, told.text
                );
            }
        }
    }
}

fn succeeds(told: &Told, command: &mut Command) -> Output {
    let output = tokio::task::block_in_place(|| command.output()).unwrap_or_else(|error| panic!("{told:?}: {error}"));
    assert!(
        output.status.success(),
        "{told:?} ends with {:?}: {}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Starts a program that serves, and ends it once it says where.
async fn serves_until_killed(told: &Told, command: &mut Command, directory: &Path) {
    let log = directory.join("log");
    let file = fs::File::create(&log).unwrap();
    let streams = (file.try_clone().unwrap(), file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(streams.0)
        .stderr(streams.1)
        .spawn()
        .unwrap();
    let signs = ["start page ", "message=listening", "The simulated partner API is at "];
    eventually(&format!("{told:?} serves"), || {
        let said = fs::read_to_string(&log).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "{told:?} has ended: {said}");
        async move { signs.iter().any(|sign| said.contains(sign)).then_some(()) }
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The words of a command, as a shell takes them apart, where nothing is quoted but whole words or values.
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

/// Files, variables, flags and keys that a command names exist.
fn names_what_is_there(told: &Told, words: &[String]) {
    let variables: BTreeSet<String> = config::KEYS.iter().map(config::Key::variable).collect();
    for word in words {
        for name in word.split('=').filter(|part| part.starts_with("ELEMENTS_")) {
            assert!(variables.contains(name), "{told:?}: there is no variable {name}");
        }
        let path = word.trim_start_matches("./");
        let is_ours = ["deploy/", "tests/", "docs/", "dashboards/", "benches/", "fuzz/", ".ci/"]
            .iter()
            .any(|folder| path.starts_with(folder));
        assert!(!is_ours || root().join(path).exists(), "{told:?}: there is no {path}");
    }
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        "docker" if word(1) == "build" => assert!(root().join("Dockerfile").exists()),
        // What stands behind the image is for the program.
        "docker" if word(1) == "run" => {
            let image = words.iter().position(|word| word == "elements_exporter");
            let image = image.unwrap_or_else(|| panic!("{told:?} names no image"));
            flags_exist(told, &words[image + 1..]);
        }
        "helm" => {
            let chart = words.iter().find(|word| word.starts_with("deploy/helm/"));
            let chart = chart.unwrap_or_else(|| panic!("{told:?} names no chart"));
            let values = fs::read_to_string(root().join(chart).join("values.yaml")).unwrap();
            let values = yaml_rust2::YamlLoader::load_from_str(&values).unwrap().remove(0);
            for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
                let path = pair[1].split_once('=').map_or(pair[1].as_str(), |(path, _)| path);
                let value = path.split('.').fold(&values, |value, key| &value[key]);
                assert!(!value.is_badvalue(), "{told:?}: the chart has no value {path}");
            }
        }
        "sudo" if word(1) == "systemctl" => {
            let unit = words.last().unwrap();
            let file = format!("deploy/systemd/{unit}.service");
            assert!(root().join(&file).exists(), "{told:?}: there is no {file}");
        }
        "sudo" if word(1) == "apt" => {
            let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
            let package = word(3).rsplit('/').next().unwrap().split('_').next().unwrap();
            assert!(
                manifest.contains(&format!("name = \"{package}\"")),
                "{told:?}: {package}"
            );
        }
        "elements_exporter" => flags_exist(told, &words[1..]),
        first => {
            let program = root().join(first);
            if first.contains('/') && program.is_file() {
                succeeds(told, Command::new("bash").arg("-n").arg(program));
            }
        }
    }
}

/// The program knows all flags that it is given, whatever they are for.
fn flags_exist(told: &Told, words: &[String]) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_elements_exporter"));
    succeeds(told, program.args(words).arg("--help").env_clear());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_documentation_works() {
    let told: Vec<Told> = pages().iter().flat_map(|page| commands(page)).collect();
    let in_blocks = told.iter().filter(|told| told.in_block).count();
    assert!(in_blocks >= 15, "blocks are not found any more: {told:#?}");
    let stage = Stage::set().await;
    let mut held = Vec::<&Told>::new();
    for told in &told {
        if !held.iter().any(|held| held.text == told.text) {
            stage.hold(told).await;
            held.push(told);
        }
    }
    // What is not said any more needs no reason.
    let everything = pages()
        .iter()
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .collect::<String>();
    for (beginning, _) in NOT_RUN {
        assert!(everything.contains(beginning), "no page says {beginning:?}");
    }
}

#[test]
fn commands_are_found_wherever_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let page: PathBuf = directory.path().join("page.md");
    let text = "# A page\n\n    frobnicate --now\n\n    elements_exporter check \\\n      --output=json\n    # a comment\n\n```console\n$ curl x | \
                head\n```\n\nA query:\n\n    time() - elements_up > 5\n\nSee `elements_exporter\nonce`, and `elements_up`.\n\n\
                - an item\n    that goes on\n\n```yaml\ncurl: x\n```\n";
    fs::write(&page, text).unwrap();
    let found = commands(page.to_str().unwrap());
    let found: Vec<(&str, bool)> = found.iter().map(|told| (told.text.as_str(), told.in_block)).collect();
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
