//! The command line, in the manner of Prometheus: dotted flags, usable before and after the command.

mod listen;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};
pub use clap_complete::Shell;
use url::Url;

pub use self::listen::{InvalidListenAddress, ListenAddress};
use crate::domain::Shard;

/// The port of the exporter.
pub const DEFAULT_PORT: u16 = 10027;

/// How the process ends on wrong usage: `EX_USAGE` of `sysexits.h`.
pub const USAGE_EXIT_CODE: u8 = 64;

/// The version of the exporter.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the exporter was built from, as its build was told.
pub const REVISION: &str = match option_env!("ELEMENTS_EXPORTER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The version of the compiler, as the build was told.
pub const RUSTVERSION: &str = match option_env!("ELEMENTS_EXPORTER_RUSTVERSION") {
    Some(version) => version,
    None => "unknown",
};

/// Paths of the server that no flag may give to something else.
const RESERVED_PATHS: [&str; 6] = ["/-", "/customers", "/dashboards", "/rules", "/runbooks", "/sd"];

static VERSION_TEXT: LazyLock<String> =
    LazyLock::new(|| format!("version {VERSION} (revision: {REVISION}, rustversion: {RUSTVERSION})"));

/// What `--version` puts before the version. It is a display name with a comma because that is how Prometheus writes it.
const VERSION_NAME: &str = "elements_exporter,";

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The configuration file; `None` leaves the environment alone.
    pub config_file: Option<PathBuf>,
    /// The share of the customers to watch.
    pub shard: Shard,
    /// How to be reached.
    pub web: Web,
    /// How to log.
    pub log: Log,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Run the exporter.
    Run,
    /// Run the exporter against a simulated partner.
    Demo(Simulator),
    /// Run the simulated partner alone.
    Simulate(Simulator),
    /// Try the configuration and every endpoint once.
    Check(Output),
    /// Poll once and print the exposition.
    Once,
    /// Ask the exporter that runs here whether it is healthy, or also whether it is ready.
    Healthcheck {
        /// Whether it has to be ready, too.
        ready: bool,
    },
    /// Write dashboards and rules below a directory.
    Assets(PathBuf),
    /// Print the man page.
    Man,
    /// Print completions for a shell.
    Completions(Shell),
}

/// How the exporter is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// The addresses to listen on; never empty.
    pub listen_addresses: Vec<ListenAddress>,
    /// A web configuration of the exporter toolkit: TLS and basic auth.
    pub config_file: Option<PathBuf>,
    /// The path of the metrics, below the route prefix; begins with a slash.
    pub telemetry_path: String,
    /// The URL under which the exporter is reachable from outside.
    pub external_url: Option<Url>,
    /// What the paths of all routes begin with: empty, or a path that begins with a slash and does not end in one.
    pub route_prefix: String,
    /// Whether `POST /-/reload` is served.
    pub enable_lifecycle: bool,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people; in colour on a terminal.
    Text,
    /// For programs.
    Json,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level to log.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// The least severe level to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names are the levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// A JSON object a line.
    Json,
}

/// The simulated partner.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Simulated partner")]
pub struct Simulator {
    /// The address on which the simulated partner listens.
    #[arg(
        long = "simulator.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10028"
    )]
    pub listen_address: ListenAddress,

    /// How many customers the simulated partner has.
    #[arg(long = "simulator.customers", value_name = "COUNT", default_value_t = 40)]
    pub customers: usize,

    /// The seed of the simulated world; one seed always makes the same world.
    #[arg(long = "simulator.seed", value_name = "SEED", default_value_t = 1)]
    pub seed: u64,

    /// How many times faster than real the schedules of the simulated world run; above 0.
    #[arg(long = "simulator.speed", value_name = "FACTOR", default_value_t = 60.0, value_parser = speed)]
    pub speed: f64,
}

/// Reads a command line, the name of the program first.
///
/// # Errors
///
/// What is to be shown in place of running: wrong usage, but also the help and the version. [`clap::Error::print`] shows it,
/// [`exit_code`] tells one from the other.
pub fn parse<I, T>(args: I) -> Result<Args, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(args).map(Args::from)
}

/// How the process ends after the error was shown: 0 for the help and the version, else 64.
pub fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { USAGE_EXIT_CODE } else { 0 }
}

/// The name of the program, in its man page and completions.
const NAME: &str = "elements_exporter";

/// The man page, made of the definition of the command line, so that it is always that of this version. Commands
/// stand in it with their flags.
///
/// # Errors
/// Where formatting fails, which into memory it does not.
pub fn man_page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command().display_name(NAME).version(VERSION);
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).source(format!("{NAME} {VERSION}"));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(commands_section(&command).as_bytes());
    page.extend_from_slice(AFTERWORD.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// The commands, each with the flags that only it has.
fn commands_section(command: &clap::Command) -> String {
    let mut section = String::from(".SH COMMANDS\n");
    let escaped = |text: String| text.replace('-', "\\-");
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(section, ".TP\n\\fB{}\\fR\n{}\n", command.get_name(), escaped(about));
        let own = command
            .get_arguments()
            .filter(|arg| !arg.is_global_set() && !is_built_in(arg));
        for arg in own {
            let name = match arg.get_long() {
                Some(long) => format!("--{long}"),
                None => arg.get_id().to_string().to_uppercase(),
            };
            let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
            let defaults: Vec<_> = defaults.collect();
            let default = match defaults.as_slice() {
                [] => String::new(),
                defaults => format!(" [default: {}]", defaults.join(" ")),
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let (name, help) = (escaped(name), escaped(format!("{help}{default}")));
            let _ = write!(section, ".RS\n.TP\n\\fB{name}\\fR\n{help}\n.RE\n");
        }
    }
    section
}

fn is_built_in(arg: &clap::Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

/// What the command line does not define and a manual page has.
const AFTERWORD: &str = ".SH FILES
.TP
\\fI/etc/elements_exporter/elements.yml\\fR
The configuration of the packaged service. Every key and its default stand in the reference at the end of README.md;
every key can be overridden by an environment variable, such as \\fBELEMENTS_COLLECTORS__JOBS__INTERVAL\\fR.
.SH SIGNALS
.TP
\\fBSIGHUP\\fR
The configuration is read again. A bad one changes nothing and is logged.
.TP
\\fBSIGTERM\\fR, \\fBSIGINT\\fR
Answers under way are finished, the state is saved, and the process ends.
.SH EXIT STATUS
.TP
\\fB0\\fR
Fine.
.TP
\\fB1\\fR
Anything not below, such as an address that is taken, or a check that fell short.
.TP
\\fB64\\fR
Wrong usage.
.TP
\\fB78\\fR
Bad configuration; the message names file, key and what was expected.
";

/// Completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command().display_name(NAME), NAME, &mut text);
    text
}

/// Prometheus exporter for AvePoint Elements.
#[derive(Debug, Parser)]
#[command(
    name = "elements_exporter",
    display_name = VERSION_NAME,
    version = VERSION_TEXT.as_str(),
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Without a command, the exporter runs. Secrets are taken from the configuration file and the environment only."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run against a built-in simulated partner: no account, no network, no configuration.
    #[command(display_name = VERSION_NAME)]
    Demo(Simulator),
    /// Run only the simulated partner API, for trying things by hand.
    #[command(display_name = VERSION_NAME)]
    Simulate(Simulator),
    /// Read the configuration, get a token, call every enabled endpoint once and print what worked.
    #[command(display_name = VERSION_NAME)]
    Check {
        /// How the report is written.
        #[arg(long, value_name = "FORMAT", default_value = "text", ignore_case = true)]
        output: Output,
    },
    /// Ask the exporter that listens at --web.listen-address whether it is healthy, as a container's health check does.
    Healthcheck {
        /// Ask whether it is ready in the place of whether it is healthy. Where a password or a certificate is asked for,
        /// this tells no more than that.
        #[arg(long)]
        ready: bool,
    },
    /// Make one full poll, print the exposition on stdout and exit.
    #[command(display_name = VERSION_NAME)]
    Once,
    /// Write the bundled dashboards and rules below a directory.
    #[command(display_name = VERSION_NAME)]
    Assets {
        /// The directory, which is made where it does not exist.
        dir: PathBuf,
    },
    /// Print the man page, for packages.
    Man,
    /// Print completions for a shell, for packages.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
struct Flags {
    /// The configuration file. By default there is none, and the environment alone configures.
    #[arg(long = "config.file", global = true, value_name = "FILE")]
    config_file: Option<PathBuf>,

    /// The share of the customers to watch, such as 0/3 for the first of three exporters. The default is 0/1, which is all.
    #[arg(
        long = "shard",
        global = true,
        value_name = "I/N",
        default_value_t = Shard::WHOLE,
        hide_default_value = true
    )]
    shard: Shard,

    /// An address to listen on; can be repeated. The default is :10027, which is all addresses; for demo it is 127.0.0.1:10027.
    #[arg(
        long = "web.listen-address",
        global = true,
        value_name = "ADDRESS",
        action = ArgAction::Append
    )]
    listen_addresses: Vec<ListenAddress>,

    /// A web configuration file that enables TLS or basic auth, in the format of the exporter toolkit. By default there is neither.
    #[arg(long = "web.config.file", global = true, value_name = "FILE")]
    web_config_file: Option<PathBuf>,

    /// The path under which the metrics are served.
    #[arg(
        long = "web.telemetry-path",
        global = true,
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = telemetry_path
    )]
    telemetry_path: String,

    /// The URL under which the exporter is reachable from outside, as behind a reverse proxy. By default links are relative.
    #[arg(
        long = "web.external-url",
        global = true,
        value_name = "URL",
        value_parser = external_url
    )]
    external_url: Option<Url>,

    /// What the paths of all routes begin with. The default is the path of --web.external-url.
    #[arg(
        long = "web.route-prefix",
        global = true,
        value_name = "PATH",
        value_parser = route_prefix
    )]
    route_prefix: Option<String>,

    /// Whether POST /-/reload reads the configuration again: from this machine, or from who is known by a password or a
    /// verified certificate. The default is false; SIGHUP always does.
    #[arg(
        long = "web.enable-lifecycle",
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        action = ArgAction::Set
    )]
    enable_lifecycle: bool,

    /// The least severe level that is logged.
    #[arg(
        long = "log.level",
        global = true,
        value_name = "LEVEL",
        default_value = "info",
        ignore_case = true
    )]
    log_level: LogLevel,

    /// How a log line looks.
    #[arg(
        long = "log.format",
        global = true,
        value_name = "FORMAT",
        default_value = "logfmt",
        ignore_case = true
    )]
    log_format: LogFormat,
}

impl From<Cli> for Args {
    fn from(Cli { command, flags }: Cli) -> Self {
        let command = command.map_or(Command::Run, Command::from);
        let route_prefix = flags
            .route_prefix
            .or_else(|| {
                let url = flags.external_url.as_ref()?;
                Some(url.path().trim_end_matches('/').to_owned())
            })
            .unwrap_or_default();
        Self {
            web: Web {
                listen_addresses: or_default(flags.listen_addresses, &command),
                config_file: flags.web_config_file,
                telemetry_path: flags.telemetry_path,
                external_url: flags.external_url,
                route_prefix,
                enable_lifecycle: flags.enable_lifecycle,
            },
            config_file: flags.config_file,
            shard: flags.shard,
            log: Log {
                level: flags.log_level,
                format: flags.log_format,
            },
            command,
        }
    }
}

impl From<CliCommand> for Command {
    fn from(command: CliCommand) -> Self {
        match command {
            CliCommand::Demo(simulator) => Self::Demo(simulator),
            CliCommand::Simulate(simulator) => Self::Simulate(simulator),
            CliCommand::Check { output } => Self::Check(output),
            CliCommand::Healthcheck { ready } => Self::Healthcheck { ready },
            CliCommand::Once => Self::Once,
            CliCommand::Assets { dir } => Self::Assets(dir),
            CliCommand::Man => Self::Man,
            CliCommand::Completions { shell } => Self::Completions(shell),
        }
    }
}

fn or_default(given: Vec<ListenAddress>, command: &Command) -> Vec<ListenAddress> {
    match command {
        _ if !given.is_empty() => given,
        // A demo is for the person at the machine; invented customers are nothing to show to the network unasked.
        Command::Demo(_) => vec![ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))],
        _ => vec![ListenAddress::All(DEFAULT_PORT)],
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(factor),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn telemetry_path(text: &str) -> Result<String, String> {
    let is_taken = |path: &str| {
        text.strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if !is_path(text) {
        Err("expected a path that starts with /, such as /metrics".to_owned())
    } else if text == "/" || RESERVED_PATHS.into_iter().any(is_taken) {
        Err("the path is taken by another page of the exporter".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn route_prefix(text: &str) -> Result<String, String> {
    // Prometheus takes the prefix with or without slashes around it.
    let prefix = text.trim_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let prefix = format!("/{prefix}");
    if is_path(&prefix) {
        Ok(prefix)
    } else {
        Err("expected a path such as /elements".to_owned())
    }
}

fn external_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && is_path(url.path()) => Ok(url),
        _ => Err("expected an http or https URL such as https://monitoring.example.com/elements".to_owned()),
    }
}

/// Whether a text is a plain path: what the router would take for a pattern or a query is not.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.contains("//")
        && text.chars().all(|character| {
            character.is_ascii_alphanumeric() || matches!(character, '/' | '-' | '_' | '.' | '~' | '%')
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::error::ErrorKind;

    use super::*;

    fn parsed(line: &str) -> Args {
        parse(std::iter::once("elements_exporter").chain(line.split_whitespace())).unwrap()
    }

    fn refused(line: &str) -> clap::Error {
        parse(std::iter::once("elements_exporter").chain(line.split_whitespace())).unwrap_err()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        assert_eq!(
            parsed(""),
            Args {
                command: Command::Run,
                config_file: None,
                shard: Shard::WHOLE,
                web: Web {
                    listen_addresses: vec![ListenAddress::All(10027)],
                    config_file: None,
                    telemetry_path: "/metrics".to_owned(),
                    external_url: None,
                    route_prefix: String::new(),
                    enable_lifecycle: false,
                },
                log: Log {
                    level: LogLevel::Info,
                    format: LogFormat::Logfmt,
                },
            }
        );
    }

    #[test]
    fn every_flag_before_and_after_the_command() {
        let flags = "--config.file=a.yml --shard=1/3 --web.listen-address :1 --web.listen-address=[::1]:2 --web.config.file=w.yml \
                     --web.telemetry-path=/m --web.external-url=https://x.example.com/e/ --web.route-prefix=p/ \
                     --web.enable-lifecycle --log.level=DEBUG --log.format json";
        let args = parsed(&format!("{flags} check"));
        assert_eq!(args, parsed(&format!("check {flags}")));
        assert_eq!(
            args,
            Args {
                command: Command::Check(Output::Text),
                config_file: Some("a.yml".into()),
                shard: "1/3".parse().unwrap(),
                web: Web {
                    listen_addresses: vec![ListenAddress::All(1), ListenAddress::Socket("[::1]:2".parse().unwrap()),],
                    config_file: Some("w.yml".into()),
                    telemetry_path: "/m".to_owned(),
                    external_url: Some(Url::parse("https://x.example.com/e/").unwrap()),
                    route_prefix: "/p".to_owned(),
                    enable_lifecycle: true,
                },
                log: Log {
                    level: LogLevel::Debug,
                    format: LogFormat::Json,
                },
            }
        );
    }

    #[test]
    fn commands() {
        let simulator = Simulator {
            listen_address: ListenAddress::Socket("127.0.0.1:10028".parse().unwrap()),
            customers: 40,
            seed: 1,
            speed: 60.0,
        };
        assert_eq!(parsed("demo").command, Command::Demo(simulator.clone()));
        assert_eq!(
            parsed("simulate --simulator.listen-address :0 --simulator.customers=2 --simulator.seed 3 --simulator.speed=0.5").command,
            Command::Simulate(Simulator {
                listen_address: ListenAddress::All(0),
                customers: 2,
                seed: 3,
                speed: 0.5,
            })
        );
        assert_eq!(parsed("check --output=json").command, Command::Check(Output::Json));
        assert_eq!(parsed("once").command, Command::Once);
        assert_eq!(parsed("healthcheck").command, Command::Healthcheck { ready: false });
        assert_eq!(
            parsed("healthcheck --ready").command,
            Command::Healthcheck { ready: true }
        );
        assert_eq!(parsed("man").command, Command::Man);
        assert_eq!(parsed("completions fish").command, Command::Completions(Shell::Fish));
        assert_eq!(parsed("assets out").command, Command::Assets("out".into()));
    }

    #[test]
    fn a_demo_stays_on_the_machine_unless_told_otherwise() {
        let addresses = |line: &str| parsed(line).web.listen_addresses;
        assert_eq!(
            addresses("demo"),
            [ListenAddress::Socket("127.0.0.1:10027".parse().unwrap())]
        );
        assert_eq!(
            addresses("demo --web.listen-address=:10027"),
            [ListenAddress::All(10027)]
        );
    }

    #[test]
    fn lifecycle_as_a_go_flag() {
        let enabled = |line: &str| parsed(line).web.enable_lifecycle;
        assert!(enabled("--web.enable-lifecycle"));
        assert!(enabled("--web.enable-lifecycle=true once"));
        assert!(enabled("--web.enable-lifecycle once"));
        assert!(!enabled("--web.enable-lifecycle=false"));
    }

    #[test]
    fn the_route_prefix_is_the_path_of_the_external_url() {
        let prefix = |line: &str| parsed(line).web.route_prefix;
        assert_eq!(prefix("--web.external-url=https://x.example.com"), "");
        assert_eq!(prefix("--web.external-url=https://x.example.com/a/b/"), "/a/b");
        assert_eq!(
            prefix("--web.external-url=https://x.example.com/a --web.route-prefix=/"),
            ""
        );
    }

    #[test]
    fn help_and_version_are_no_failure() {
        for line in ["--version", "demo --version"] {
            let version = refused(line);
            assert_eq!(version.kind(), ErrorKind::DisplayVersion);
            assert_eq!(exit_code(&version), 0);
            assert_eq!(
                version.to_string(),
                format!("elements_exporter, version {VERSION} (revision: {REVISION}, rustversion: {RUSTVERSION})\n")
            );
        }
        for line in ["--help", "demo --help"] {
            let help = refused(line);
            assert_eq!(exit_code(&help), 0);
            assert!(help.to_string().contains("Usage: elements_exporter"), "{help}");
        }
    }

    #[test]
    fn wrong_usage() {
        for line in [
            "frobnicate",
            "assets",
            "--web.telemetry-path=metrics",
            "--web.telemetry-path=/",
            "--web.telemetry-path=/-/healthy",
            "--web.telemetry-path=/rules",
            "--web.telemetry-path=/{m}",
            "--web.route-prefix=/{p}",
            "--web.external-url=example.com",
            "--web.listen-address=localhost",
            "--web.enable-lifecycle=maybe",
            "--log.level=loud",
            "--log.format=xml",
            "--simulator.seed=1",
            "demo --simulator.speed=0",
            "--auth.client-secret=x",
        ] {
            assert_eq!(exit_code(&refused(line)), USAGE_EXIT_CODE, "{line}");
        }
        let shown = refused("--web.listen-address=localhost").to_string();
        assert!(shown.contains("expected HOST:PORT, such as 127.0.0.1:10027"), "{shown}");
    }
}
