//! Runs the program's commands, and determines their exit codes.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::{self, App, Demo, Error};
use crate::args::{self, Args, Command, CustomerOutput, Output, Web};
use crate::assets::{self, Links};
use crate::build_info::{REVISION, VERSION};
use crate::config;
use crate::domain;
use crate::error_chain::error_chain;
use crate::http::Reload;
use crate::output;
use crate::output::{print, print_coloured};
use crate::service_manager::{notify_ready, notify_stopping};
use crate::signals::{SignalAction, Signals};
use crate::simulator::Simulator;

const SUBTITLE: &str = "Backups, restore points, licences and scans of an AvePoint Elements partner's customers, \
                        for Prometheus.";

/// Runs a command. Returns false if the program must exit with code 1, for example because a check failed.
///
/// A stop signal during startup ends the command immediately. If the command can reload its configuration, a reload
/// signal waits until startup is complete; otherwise, the signal has no effect.
///
/// # Errors
/// Returns an error if the command cannot start or complete.
pub async fn run(args: Args, mut signals: Signals) -> Result<bool, Error> {
    let is_service = match &args.command {
        None | Some(Command::Simulate(_)) => true,
        Some(Command::Demo(options)) => options.backfill().is_none(),
        Some(_) => false,
    };
    let stop = CancellationToken::new();
    let (report_started, mut started) = oneshot::channel();
    let stopped = stop.clone();
    // The command runs on its own thread, so that signals are handled while a large state file is loaded from a slow
    // disk.
    let mut command =
        tokio::task::spawn_blocking(move || Handle::current().block_on(execute(args, stopped, report_started)));
    let mut reload: Option<Reload> = None;
    let (mut is_starting, mut is_open) = (true, true);
    let mut reloading: Option<JoinHandle<_>> = None;
    let stop_timeout = stop_timeout(stop.clone(), is_service);
    tokio::pin!(stop_timeout);
    loop {
        let ready = reload.as_ref().filter(|_| reloading.is_none() && !stop.is_cancelled());
        tokio::select! {
            ended = &mut command => return ended.unwrap_or_else(|panicked| {
                error!(error = %panicked, "command failed");
                Ok(false)
            }),
            started_by = &mut started, if is_open => {
                is_open = false;
                if let Ok(service_reload) = started_by {
                    (is_starting, reload) = (false, service_reload);
                }
            }
            () = finished(&mut reloading) => reloading = None,
            // The exit code is the same as for a command whose output cannot be written.
            () = &mut stop_timeout => return Ok(false),
            caught = signals.next(ready.is_some()) => match (caught, ready) {
                // The result is not used, because the reload logs and exposes its outcome.
                (SignalAction::Reload, Some(reload)) => reloading = Some(tokio::spawn(reload())),
                (SignalAction::Reload, None) => {}
                (SignalAction::Stop, _) if is_starting => return Ok(is_service),
                // A second signal ends a command immediately, but not a service, because a service may still have to
                // save its state.
                (SignalAction::Stop, _) if stop.is_cancelled() && !is_service => return Ok(false),
                (SignalAction::Stop, _) => {
                    info!("stopping");
                    notify_stopping();
                    stop.cancel();
                }
            },
        }
    }
}

/// Shutdown time limits of a command and of a service. Within a service, a shorter limit applies to stopping its parts
/// and saving its state.
const STOP_TIMEOUTS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Completes when a stopped command or service has exceeded its time limit.
async fn stop_timeout(stop: CancellationToken, is_service: bool) {
    stop.cancelled().await;
    let [command_timeout, service_timeout] = STOP_TIMEOUTS;
    tokio::time::sleep(if is_service { service_timeout } else { command_timeout }).await;
}

/// Prints the output of `--help` or `--version`, or a usage error, and returns the exit code. A signal interrupts the
/// write, even if the reader of the output is stuck.
pub async fn print_usage(usage: clap::Error, mut signals: Signals) -> ExitCode {
    let code = args::exit_code(&usage);
    let printing = tokio::task::spawn_blocking(move || output::print_usage(&usage));
    let is_printed = tokio::select! {
        printed = printing => printed.unwrap_or(false),
        _ = signals.next(false) => false,
    };
    if is_printed {
        ExitCode::from(code)
    } else {
        ExitCode::FAILURE
    }
}

/// Waits until the running reload is complete, or forever if there is none.
async fn finished<T>(reloading: &mut Option<JoinHandle<T>>) {
    match reloading {
        Some(reloading) => _ = reloading.await,
        None => std::future::pending().await,
    }
}

/// Sender of the message that the command has started and can be stopped with its cancellation token. The message
/// contains the function that reloads the configuration, if the command has one.
type ReportStarted = oneshot::Sender<Option<Reload>>;

async fn execute(args: Args, stop: CancellationToken, report_started: ReportStarted) -> Result<bool, Error> {
    let load = app::config_source(args.config_file.clone(), args.shard);
    // If the command has already been stopped, the receiver has been dropped.
    let report_started = |reload| _ = report_started.send(reload);
    let Some(command) = args.command else {
        let watch = args
            .auto_reload
            .then(|| app::Watch::new(Arc::clone(&load), args.config_file.clone()));
        let app = App::bind(load, args.config_file, args.web, SUBTITLE.to_owned()).await?;
        for address in app.addresses() {
            info!(%address, version = VERSION, revision = REVISION, "listening");
        }
        report_started(Some(app.reload()));
        notify_ready();
        let watching = watch.map(|watch| tokio::spawn(watch.run(app.reload(), stop.clone())));
        let was_stopped = app.run(stop).await;
        if let Some(watching) = watching {
            let _ = watching.await;
        }
        info!("stopped");
        return Ok(was_stopped);
    };
    match command {
        Command::Demo(options) => {
            if let Some(backfill) = options.backfill() {
                report_started(None);
                return write_backfill(&options.simulator, &backfill, stop).await;
            }
            let demo = Demo::bind(&options.simulator, args.web.clone()).await?;
            if !print(greeting(&demo, &args.web).as_bytes()) {
                return Ok(false);
            }
            report_started(Some(demo.app().reload()));
            notify_ready();
            Ok(demo.run(stop).await)
        }
        Command::Simulate(options) => {
            let simulator = app::simulate(&options).await?;
            if !print(introduction(&simulator).as_bytes()) {
                return Ok(false);
            }
            report_started(None);
            notify_ready();
            simulator.run(stop).await;
            Ok(true)
        }
        Command::Once => {
            let config = load()?;
            report_started(None);
            let (exposition, is_complete) = app::once(&config, stop).await?;
            Ok(print(&exposition) && is_complete)
        }
        Command::Customers { output } => {
            let config = load()?;
            report_started(None);
            let (customers, is_complete) = app::customers(config, stop).await?;
            let text = match output {
                CustomerOutput::Table => customers.table(),
                CustomerOutput::Csv => customers.csv(),
            };
            Ok(print(text.as_bytes()) && is_complete)
        }
        Command::Check { output, offline } => {
            let config = load()?;
            let report = match offline {
                true => app::check_offline(&config, args.config_file.as_deref(), args.web.config_file.as_deref())?,
                false => app::check(&config).await?,
            };
            let printed = match output {
                Output::Text => print_coloured(&report.text()),
                Output::Json => print(report.json().as_bytes()),
            };
            Ok(printed && report.passed())
        }
        Command::Assets(options) => Ok(write_assets(&options, &args.web)),
        Command::Healthcheck { ready } => healthcheck(&args.web, ready).await,
        Command::Schema => Ok(print(config::SCHEMA.as_bytes())),
        Command::Man => Ok(args::man_page().is_ok_and(|page| print(&page))),
        Command::Completions { shell } => Ok(print(&args::completions(shell))),
    }
}

async fn write_backfill(
    simulator: &args::Simulator,
    options: &args::Backfill,
    stop: CancellationToken,
) -> Result<bool, Error> {
    let written = match app::backfill(simulator, options, stop).await {
        // A closed pipe is not an error: the reader does not need the rest.
        Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
        written => written?,
    };
    let file = options.file.display();
    let message = format!(
        "{} samples covering {} days written to {file}\n\
         To load them into Prometheus:\n\n  \
         promtool tsdb create-blocks-from --max-block-duration=700h openmetrics {file} DATA_DIRECTORY\n\n",
        written.samples, written.days
    );
    let is_printed = output::is_stdout(&options.file) || print(message.as_bytes());
    Ok(is_printed && written.is_complete)
}

/// Writes the error to standard error as one line, and returns the exit code.
pub fn report(error: &dyn std::error::Error, code: u8) -> ExitCode {
    output::report(error_chain(error));
    ExitCode::from(code)
}

fn greeting(demo: &Demo, web: &Web) -> String {
    let addresses = demo.app().addresses();
    let Some(address) = addresses.first() else {
        return String::new();
    };
    let root = format!("{}://{address}{}", demo.app().scheme(), web.route_prefix());
    let (metrics, partner) = (&web.telemetry_path, demo.partner());
    format!(
        "elements_exporter demo: a simulated partner, polled as in production. Stop it with Ctrl-C.\n\
         \n  start page       {root}/\
         \n  metrics          {root}{metrics}\
         \n  one collector    {root}{metrics}?collector=jobs\
         \n  simulated API    {partner}/\n\
         \nTry:\
         \n  curl -s {root}{metrics} | grep -E 'elements_(up|customer_info|job_consecutive_failures)'\n\n"
    )
}

fn introduction(simulator: &Simulator) -> String {
    let defaults = crate::simulator::Settings::default();
    let (base, token) = (simulator.base_url(), simulator.token_url());
    let (id, secret) = (defaults.client_id, defaults.client_secret);
    format!(
        "The simulated partner API is at {base}/ (open it for documentation).\n\
         To point an exporter at it:\n\
         \n  export ELEMENTS_API__BASE_URL={base}\
         \n  export ELEMENTS_API__TOKEN_URL={token}\
         \n  export ELEMENTS_AUTH__CLIENT_ID={id}\
         \n  export ELEMENTS_AUTH__CLIENT_SECRET={secret}\
         \n  elements_exporter check\n\n"
    )
}

fn write_assets(options: &args::Assets, web: &Web) -> bool {
    let links = Links::new(web.external_url.as_ref(), web.grafana_url.as_ref());
    let all = options
        .dir
        .as_deref()
        .map(|directory| (directory, assets::write(directory, &links)));
    let alerts = options.grafana_alerts.as_deref();
    let alerts = alerts.map(|directory| {
        let written = assets::write_grafana_alerts(directory, &options.grafana_datasource, &links);
        (directory, written)
    });
    let reported = all.into_iter().chain(alerts).map(|(directory, written)| match written {
        Ok(files) => {
            let files = domain::counted(files, "file", "files");
            print(format!("{files} written under {}\n", directory.display()).as_bytes())
        }
        Err(error) => {
            output::report(format_args!("cannot write under {}: {error}", directory.display()));
            false
        }
    });
    reported.filter(|is_good| !is_good).count() == 0
}

/// Checks whether the exporter at the listen address is healthy (or ready), and reports the problem if it is not.
async fn healthcheck(web: &Web, ready: bool) -> Result<bool, Error> {
    let problem = match app::healthcheck(web, ready).await? {
        Ok(()) => return Ok(true),
        Err(problem) => problem,
    };
    output::report(error_chain(&problem));
    Ok(false)
}
