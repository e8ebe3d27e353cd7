//! The commands of the program, from arguments to exit code. Only here is anything printed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where the program speaks to people and pipes"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::{self, App, Demo, Error};
use crate::args::{self, Args, Command, Output, REVISION, VERSION, Web};
use crate::assets;
use crate::error_chain::error_chain;
use crate::http::Reload;
use crate::simulator::Simulator;

const SUBTITLE: &str = "Backups, restore points, licences and scans of the customers of an AvePoint Elements partner, \
                        for Prometheus.";

/// Runs the command that was asked for; false where it ended with less than it should.
///
/// # Errors
/// Where it could not begin.
pub async fn run(args: Args) -> Result<bool, Error> {
    let load = app::config_source(args.config_file.clone(), args.shard);
    let stop = CancellationToken::new();
    match args.command {
        Command::Run => {
            let app = App::bind(load, args.web, SUBTITLE.to_owned())
                .await?
                .read_from(args.config_file);
            watch_signals(stop.clone(), Some(app.reload()))?;
            for address in app.addresses() {
                info!(%address, version = VERSION, revision = REVISION, "listening");
            }
            app.run(stop).await;
            info!("stopped");
            Ok(true)
        }
        Command::Demo(wanted) => {
            let demo = Demo::bind(&wanted, args.web.clone()).await?;
            watch_signals(stop.clone(), Some(demo.app().reload()))?;
            greet(&demo, &args.web);
            demo.run(stop).await;
            Ok(true)
        }
        Command::Simulate(wanted) => {
            let simulator = app::simulate(&wanted).await?;
            watch_signals(stop.clone(), None)?;
            introduce(&simulator);
            Ok(simulator.run(stop).await.is_ok())
        }
        Command::Once => {
            let config = load()?;
            watch_signals(stop.clone(), None)?;
            let (exposition, good) = app::once(&config, stop).await?;
            Ok(print(&exposition) && good)
        }
        Command::Check(output) => {
            let report = app::check(&load()?).await?;
            let printed = match output {
                Output::Text => print_coloured(&report.text()),
                Output::Json => print(report.json().as_bytes()),
            };
            Ok(printed && report.is_good())
        }
        Command::Assets(directory) => Ok(write_assets(&directory)),
        Command::Healthcheck { ready } => healthcheck(&args.web, ready).await,
        Command::Man => Ok(args::man_page().is_ok_and(|page| print(&page))),
        Command::Completions(shell) => Ok(print(&args::completions(shell))),
    }
}

/// Says on standard error why the program ends, in one line, and gives its exit code.
pub fn report(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("elements_exporter: {}", error_chain(error));
    ExitCode::from(code)
}

/// Stops on SIGTERM and SIGINT, and reloads on SIGHUP.
fn watch_signals(stop: CancellationToken, reload: Option<Reload>) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::Signals);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up: Signal = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => if let Some(reload) = &reload {
                    // How it went is logged and shown by the reload itself; nobody waits for an answer here.
                    let _ = reload().await;
                },
            }
        }
        info!("stopping");
        stop.cancel();
    });
    Ok(())
}

fn greet(demo: &Demo, web: &Web) {
    let addresses = demo.app().addresses();
    let Some(address) = addresses.first() else { return };
    let root = format!("{}://{address}{}", demo.app().scheme(), web.route_prefix);
    println!("elements_exporter demo: a simulated partner, polled as in production. Stop it with Ctrl-C.");
    println!();
    println!("  start page       {root}/");
    println!("  metrics          {root}{}", web.telemetry_path);
    println!("  one collector    {root}{}?collector=jobs", web.telemetry_path);
    println!("  simulated API    {}/", demo.partner());
    println!();
    println!("Worth a look:");
    println!(
        "  curl -s {root}{} | grep -E 'elements_(up|customer_info|job_consecutive_failures)'",
        web.telemetry_path
    );
    println!();
}

fn introduce(simulator: &Simulator) {
    let defaults = crate::simulator::Settings::default();
    println!(
        "The simulated partner API is at {}/ (what it can do is described there).",
        simulator.base_url()
    );
    println!("To point an exporter at it:");
    println!();
    println!("  export ELEMENTS_API__BASE_URL={}", simulator.base_url());
    println!("  export ELEMENTS_API__TOKEN_URL={}", simulator.token_url());
    println!("  export ELEMENTS_AUTH__CLIENT_ID={}", defaults.client_id);
    println!("  export ELEMENTS_AUTH__CLIENT_SECRET={}", defaults.client_secret);
    println!("  elements_exporter check");
    println!();
}

/// Writes to standard output; false where nobody reads it.
fn print(text: &[u8]) -> bool {
    let mut output = std::io::stdout().lock();
    output.write_all(text).and_then(|()| output.flush()).is_ok()
}

/// The same with colours where they are seen: on a terminal, unless `NO_COLOR` is set.
fn print_coloured(text: &str) -> bool {
    let mut output = anstream::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_ok()
}

fn write_assets(directory: &Path) -> bool {
    match assets::write(directory) {
        Ok(files) => {
            println!("{files} files written under {}", directory.display());
            true
        }
        Err(error) => {
            eprintln!("elements_exporter: cannot write under {}: {error}", directory.display());
            false
        }
    }
}

/// Says whether the exporter that listens where the flags say is healthy, or ready, for containers without a shell.
async fn healthcheck(web: &Web, ready: bool) -> Result<bool, Error> {
    let problem = match app::healthcheck(web, ready).await? {
        Ok(()) => return Ok(true),
        Err(problem) => problem,
    };
    eprintln!("elements_exporter: {}", error_chain(&problem));
    Ok(false)
}
