//! Command-line arguments in the style of Prometheus: dotted flags, accepted before or after the subcommand.

mod listen;
mod manual;
mod simulator;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
pub use clap_complete::Shell;
use tracing::Level;
use url::Url;

pub use self::listen::{InvalidListenAddress, ListenAddress};
pub use self::manual::{completions, man_page};
pub use self::simulator::{Backfill, Demo, Simulator};
use crate::assets::DEFAULT_DATASOURCE;
use crate::build_info::{REVISION, RUSTVERSION, VERSION};
use crate::domain::Shard;

/// Default port of the exporter.
pub const DEFAULT_PORT: u16 = 10027;

/// Exit code for invalid usage: `EX_USAGE` of `sysexits.h`.
pub const USAGE_EXIT_CODE: u8 = 64;

/// Paths that `--web.telemetry-path` must not use.
const RESERVED_PATHS: [&str; 6] = ["/-", "/customers", "/dashboards", "/rules", "/runbooks", "/sd"];

static VERSION_TEXT: LazyLock<String> =
    LazyLock::new(|| format!("version {VERSION} (revision: {REVISION}, rustversion: {RUSTVERSION})"));

/// Display name that `--version` prints before the version, with a comma as in Prometheus.
const VERSION_NAME: &str = "elements_exporter,";

/// Prometheus exporter for AvePoint Elements.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(
    name = "elements_exporter",
    display_name = VERSION_NAME,
    version = VERSION_TEXT.as_str(),
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "If no command is given, the exporter runs. Secrets cannot be passed as flags."
)]
pub struct Args {
    /// Command to run instead of the exporter.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The configuration file. By default, only environment variables are used.
    #[arg(long = "config.file", global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Reload the configuration when the configuration file or api.ca_file changes.
    #[arg(
        long = "config.auto-reload",
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        action = ArgAction::Set
    )]
    pub auto_reload: bool,

    /// Shard of the customers to monitor, e.g. 0/3 for the first of three exporters [default: 0/1, all].
    #[arg(
        long = "shard",
        global = true,
        value_name = "I/N",
        default_value_t = Shard::WHOLE,
        hide_default_value = true
    )]
    pub shard: Shard,

    /// HTTP server.
    #[command(flatten)]
    pub web: Web,

    /// Logging.
    #[command(flatten)]
    pub log: Log,
}

/// Command to run instead of the exporter.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Run the exporter against a built-in simulated partner, without an account, network access or a configuration.
    #[command(display_name = VERSION_NAME)]
    Demo(Demo),
    /// Run only the simulated partner API, so that you can send requests by hand.
    #[command(display_name = VERSION_NAME)]
    Simulate(Simulator),
    /// Read the configuration, request a token, poll every enabled collector once and print a report.
    #[command(display_name = VERSION_NAME)]
    Check {
        /// Format of the report.
        #[arg(long, value_name = "FORMAT", default_value = "text", ignore_case = true)]
        output: Output,
        /// Check only files (including --web.config.file), keys, patterns and the format of the credentials, without
        /// sending requests.
        #[arg(long)]
        offline: bool,
    },
    /// Check the health of the exporter at --web.listen-address, for container health checks.
    Healthcheck {
        /// Check readiness instead of health. If authentication is required, only reachability is checked.
        #[arg(long)]
        ready: bool,
    },
    /// Print the customers with their attributes and modules; the CSV output can be edited and used
    /// as customers.attributes_file.
    #[command(display_name = VERSION_NAME)]
    Customers {
        /// Format of the output.
        #[arg(long, value_name = "FORMAT", default_value = "table", ignore_case = true)]
        output: CustomerOutput,
    },
    /// Poll every enabled collector once, print the metrics to stdout and exit.
    #[command(display_name = VERSION_NAME)]
    Once,
    /// Write the bundled dashboards, rules and alerts to directories.
    #[command(display_name = VERSION_NAME)]
    Assets(Assets),
    /// Print the JSON schema of the configuration file, for editors.
    #[command(display_name = VERSION_NAME)]
    Schema,
    /// Print the man page, for example to package it.
    Man,
    /// Print shell completions.
    Completions {
        /// Shell to generate completions for.
        shell: Shell,
    },
}

/// Bundled files to write.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Assets {
    /// Directory for dashboards and rules, created if missing.
    #[arg(required_unless_present = "grafana_alerts")]
    pub dir: Option<PathBuf>,
    /// Directory for Grafana-managed alert rules, written in Grafana's file provisioning format.
    #[arg(long, value_name = "DIR")]
    pub grafana_alerts: Option<PathBuf>,
    /// The UID of the Grafana data source that contains the metrics and the recorded series.
    #[arg(long, value_name = "UID", default_value = DEFAULT_DATASOURCE, requires = "grafana_alerts")]
    pub grafana_datasource: String,
}

/// HTTP server.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Web {
    /// An address to listen on; can be repeated. The default is :10027, which means all addresses; for demo, it is
    /// 127.0.0.1:10027.
    #[arg(
        long = "web.listen-address",
        global = true,
        value_name = "ADDRESS",
        action = ArgAction::Append
    )]
    pub listen_addresses: Vec<ListenAddress>,

    /// A web configuration file that enables TLS or basic auth, in the format of the exporter toolkit. By default, both
    /// are disabled.
    #[arg(id = "web_config_file", long = "web.config.file", global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// The path under which the metrics are served.
    #[arg(
        long = "web.telemetry-path",
        global = true,
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = parse_telemetry_path
    )]
    pub telemetry_path: String,

    /// The URL at which users reach the exporter, for example through a reverse proxy. If it is set, the rules link to
    /// the runbooks that the exporter serves. By default, these links are relative.
    #[arg(
        long = "web.external-url",
        global = true,
        value_name = "URL",
        value_parser = parse_external_url
    )]
    pub external_url: Option<Url>,

    /// The URL of Grafana, for links from customer pages and rules to the dashboards. By default, customer pages have
    /// no such links, and the links in rules are relative.
    #[arg(
        long = "web.grafana-url",
        global = true,
        value_name = "URL",
        value_parser = parse_grafana_url
    )]
    pub grafana_url: Option<Url>,

    /// Prefix of all routes. The default is the path of --web.external-url.
    #[arg(
        long = "web.route-prefix",
        global = true,
        value_name = "PATH",
        value_parser = parse_route_prefix
    )]
    route_prefix: Option<String>,

    /// Enable POST /-/reload for local or authenticated clients; SIGHUP always reloads.
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
    pub enable_lifecycle: bool,
}

/// Logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Log {
    /// Minimum log level.
    #[arg(
        id = "log_level",
        long = "log.level",
        global = true,
        value_name = "LEVEL",
        default_value = "info",
        ignore_case = true,
        value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]).try_map(|level| level.parse::<Level>())
    )]
    pub level: Level,

    /// Log format.
    #[arg(
        id = "log_format",
        long = "log.format",
        global = true,
        value_name = "FORMAT",
        default_value = "logfmt",
        ignore_case = true
    )]
    pub format: LogFormat,
}

impl Web {
    /// Returns the prefix of all routes: empty, or a path that begins but does not end with a slash.
    pub fn route_prefix(&self) -> &str {
        let of_url = || self.external_url.as_ref().map(|url| url.path().trim_end_matches('/'));
        self.route_prefix.as_deref().or_else(of_url).unwrap_or_default()
    }
}

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Human-readable text, in colour on a terminal.
    Text,
    /// Machine-readable JSON.
    Json,
}

/// Format of the list of customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CustomerOutput {
    /// Human-readable table.
    Table,
    /// CSV, for spreadsheets and customers.attributes_file.
    Csv,
}

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// Parses a command line. The first argument is the name of the program.
///
/// # Errors
///
/// Returns an error for invalid usage, and also for `--help` and `--version`. [`clap::Error::print`] prints the error
/// or the requested text, and [`exit_code`] distinguishes the cases.
pub fn parse<I, T>(args: I) -> Result<Args, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut args = Args::try_parse_from(args)?;
    let addresses = &mut args.web.listen_addresses;
    if addresses.is_empty() {
        addresses.push(match args.command {
            // A demo is meant for local use, so by default it is not exposed to the network.
            Some(Command::Demo(_)) => ListenAddress::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))),
            _ => ListenAddress::All(DEFAULT_PORT),
        });
    }
    Ok(args)
}

/// Returns the exit code for an error: 0 for `--help` and `--version`, [`USAGE_EXIT_CODE`] otherwise.
pub fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { USAGE_EXIT_CODE } else { 0 }
}

/// Returns whether a path is reserved for other pages and therefore cannot serve the metrics.
pub(crate) fn is_reserved(path: &str) -> bool {
    let is_below = |reserved: &str| {
        path.strip_prefix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/" || RESERVED_PATHS.into_iter().any(is_below)
}

fn parse_telemetry_path(text: &str) -> Result<String, String> {
    if !is_path(text) {
        Err("expected a path that starts with /, such as /metrics".to_owned())
    } else if is_reserved(text) {
        Err("the exporter serves other pages at this path; expected another path, such as /metrics".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn parse_route_prefix(text: &str) -> Result<String, String> {
    // As in Prometheus, the prefix may be written with or without surrounding slashes.
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

fn parse_external_url(text: &str) -> Result<Url, String> {
    parse_base_url(text, "https://monitoring.example.com/elements").and_then(|url| match is_path(url.path()) {
        true => Ok(url),
        false => Err("expected a URL with a plain path, such as https://monitoring.example.com/elements".to_owned()),
    })
}

fn parse_grafana_url(text: &str) -> Result<Url, String> {
    parse_base_url(text, "https://grafana.example.com")
}

/// Parses a URL to which paths will be appended. Rejects credentials, because every page would expose them.
fn parse_base_url(text: &str, example: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(format!("expected an http or https URL such as {example}"))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(format!("expected a URL without credentials, such as {example}"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err(format!("expected a URL without a query or fragment, such as {example}"))
        }
        Ok(url) => Ok(url),
        Err(_) => Err(format!("expected an http or https URL such as {example}")),
    }
}

/// Returns whether a string is a plain path, free of characters that the router would interpret as a pattern or query.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.contains("//")
        && text.chars().all(|character| {
            character.is_ascii_alphanumeric() || matches!(character, '/' | '-' | '_' | '.' | '~' | '%')
        })
}
