//! The commands of the program, from arguments to exit code.

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
use crate::signals::{Caught, Signals};
use crate::simulator::Simulator;

const SUBTITLE: &str = "Backups, restore points, licences and scans of the customers of an AvePoint Elements partner, \
                        for Prometheus.";

/// Runs a command. Returns false if it ended with a partial result. A stop during the start of a service ends it
/// immediately, and a reload waits until the start is complete.
///
/// # Errors
/// Returns an error if the command cannot start.
pub async fn run(args: Args, mut signals: Signals) -> Result<bool, Error> {
    let is_service = match &args.command {
        None | Some(Command::Simulate(_)) => true,
        Some(Command::Demo(wanted)) => wanted.backfill().is_none(),
        Some(_) => false,
    };
    let stop = CancellationToken::new();
    let (begin, mut begun) = oneshot::channel();
    let stopped = stop.clone();
    // On its own thread, so that neither a large state nor a slow disk delays signals.
    let mut command = tokio::task::spawn_blocking(move || Handle::current().block_on(perform(args, stopped, begin)));
    let mut reload: Option<Reload> = None;
    let (mut is_starting, mut is_open) = (true, true);
    let mut reloading: Option<JoinHandle<_>> = None;
    let overdue = overdue(stop.clone(), is_service);
    tokio::pin!(overdue);
    loop {
        let ready = reload.as_ref().filter(|_| reloading.is_none() && !stop.is_cancelled());
        tokio::select! {
            ended = &mut command => return ended.unwrap_or_else(|panicked| {
                error!(error = %panicked, "command failed");
                Ok(false)
            }),
            by = &mut begun, if is_open => {
                is_open = false;
                if let Ok(by) = by {
                    (is_starting, reload) = (false, by);
                }
            }
            () = over(&mut reloading) => reloading = None,
            // As if its output were not read.
            () = &mut overdue => return Ok(false),
            caught = signals.next(ready.is_some()) => match (caught, ready) {
                // The reload logs and exposes its outcome, so its result is not awaited.
                (Caught::Reload, Some(reload)) => reloading = Some(tokio::spawn(reload())),
                (Caught::Reload, None) => {}
                (Caught::Stop, _) if is_starting => return Ok(is_service),
                // A service ends soon in any case, and has a state to save.
                (Caught::Stop, _) if stop.is_cancelled() && !is_service => return Ok(false),
                (Caught::Stop, _) => {
                    info!("stopping");
                    notify_stopping();
                    stop.cancel();
                }
            },
        }
    }
}

/// Maximum time for which a command may continue after it was stopped. A service must end its parts and save its state,
/// for which it has a separate, shorter limit.
const STOP_LIMITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Returns when a command has exceeded its limit after it was stopped.
async fn overdue(stop: CancellationToken, is_service: bool) {
    stop.cancelled().await;
    let [of_command, of_service] = STOP_LIMITS;
    tokio::time::sleep(if is_service { of_service } else { of_command }).await;
}

/// Prints the help, the version or a usage error, and returns the exit code. Ends when it is stopped, even if its
/// output is not read.
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

/// Waits until a running reload is complete; forever if there is none.
async fn over<T>(reloading: &mut Option<JoinHandle<T>>) {
    match reloading {
        Some(reloading) => _ = reloading.await,
        None => std::future::pending().await,
    }
}

/// Reports, once, that the command can be stopped by its token, and how it is reloaded.
type Begin = oneshot::Sender<Option<Reload>>;

async fn perform(args: Args, stop: CancellationToken, begin: Begin) -> Result<bool, Error> {
    let load = app::config_source(args.config_file.clone(), args.shard);
    // The receiver is dropped if a stop came first.
    let begin = |reload| _ = begin.send(reload);
    let Some(command) = args.command else {
        let watch = args
            .auto_reload
            .then(|| app::Watch::new(Arc::clone(&load), args.config_file.clone()));
        let app = App::bind(load, args.config_file, args.web, SUBTITLE.to_owned()).await?;
        for address in app.addresses() {
            info!(%address, version = VERSION, revision = REVISION, "listening");
        }
        begin(Some(app.reload()));
        notify_ready();
        if let Some(watch) = watch {
            tokio::spawn(watch.run(app.reload(), stop.clone()));
        }
        let was_stopped = app.run(stop).await;
        info!("stopped");
        return Ok(was_stopped);
    };
    match command {
        Command::Demo(wanted) => {
            if let Some(backfill) = wanted.backfill() {
                begin(None);
                return write_past(&wanted.simulator, &backfill, stop).await;
            }
            let demo = Demo::bind(&wanted.simulator, args.web.clone()).await?;
            if !print(greeting(&demo, &args.web).as_bytes()) {
                return Ok(false);
            }
            begin(Some(demo.app().reload()));
            notify_ready();
            Ok(demo.run(stop).await)
        }
        Command::Simulate(wanted) => {
            let simulator = app::simulate(&wanted).await?;
            if !print(introduction(&simulator).as_bytes()) {
                return Ok(false);
            }
            begin(None);
            notify_ready();
            Ok(simulator.run(stop).await.is_ok())
        }
        Command::Once => {
            let config = load()?;
            begin(None);
            let (exposition, good) = app::once(&config, stop).await?;
            Ok(print(&exposition) && good)
        }
        Command::Customers { output } => {
            let config = load()?;
            begin(None);
            let (customers, is_good) = app::customers(config, stop).await?;
            let text = match output {
                CustomerOutput::Table => customers.table(),
                CustomerOutput::Csv => customers.csv(),
            };
            Ok(print(text.as_bytes()) && is_good)
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
            Ok(printed && report.is_good())
        }
        Command::Assets(wanted) => Ok(write_assets(&wanted, &args.web)),
        Command::Healthcheck { ready } => healthcheck(&args.web, ready).await,
        Command::Schema => Ok(print(config::schema_text().as_bytes())),
        Command::Man => Ok(args::man_page().is_ok_and(|page| print(&page))),
        Command::Completions { shell } => Ok(print(&args::completions(shell))),
    }
}

async fn write_past(
    simulator: &args::Simulator,
    wanted: &args::Backfill,
    stop: CancellationToken,
) -> Result<bool, Error> {
    let written = match app::backfill(simulator, wanted, stop).await {
        // A closed pipe is not an error: its reader has read enough.
        Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
        written => written?,
    };
    let file = wanted.file.display();
    let message = format!(
        "{} samples of {} days written to {file}\n\
         To load them into Prometheus:\n\n  \
         promtool tsdb create-blocks-from --max-block-duration=700h openmetrics {file} DATA_DIRECTORY\n\n",
        written.samples, written.days
    );
    let is_printed = output::is_stdout(&wanted.file) || print(message.as_bytes());
    Ok(is_printed && written.is_complete)
}

/// Reports the reason for the program's end in one line on standard error, and returns its exit code.
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

fn write_assets(wanted: &args::Assets, web: &Web) -> bool {
    let links = Links::new(web.external_url.as_ref(), web.grafana_url.as_ref());
    let all = wanted
        .dir
        .as_deref()
        .map(|directory| (directory, assets::write(directory, &links)));
    let alerts = wanted.grafana_alerts.as_deref();
    let alerts = alerts.map(|directory| {
        let written = assets::write_grafana_alerts(directory, &wanted.grafana_datasource, &links);
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

/// Reports whether the exporter at the address in the flags is healthy, or ready, for containers without a shell.
async fn healthcheck(web: &Web, ready: bool) -> Result<bool, Error> {
    let problem = match app::healthcheck(web, ready).await? {
        Ok(()) => return Ok(true),
        Err(problem) => problem,
    };
    output::report(error_chain(&problem));
    Ok(false)
}
