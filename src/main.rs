//! The program: parses the arguments, starts logging and runs the command.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use elements_exporter::signals::Signals;
use elements_exporter::{args, commands, core_dumps, logging, output};
use tokio::runtime::{self, Runtime};
use tracing::warn;

/// Maximum number of file descriptors that the two runtimes need.
const DESCRIPTORS: usize = 12;

fn main() -> ExitCode {
    // Signal handlers are installed first, because each of these signals would otherwise end the process.
    let (runtime, signals) = match start() {
        Ok(started) => started,
        Err(error) => {
            output::report(format_args!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(usage) => {
            let code = runtime.block_on(commands::print_usage(usage, signals));
            runtime.shutdown_background();
            return code;
        }
    };
    logging::start(args.log);
    // Core dumps are disabled before secrets are read, because a dump would contain them.
    if let Err(error) = core_dumps::disable() {
        warn!(%error, "cannot disable core dumps; a dump may contain secrets");
    }
    let ended = runtime.block_on(commands::run(args, signals));
    // The exit does not wait for unfinished work, such as reading a large state file.
    runtime.shutdown_background();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => commands::report(&error, error.exit_code()),
    }
}

fn start() -> io::Result<(Runtime, Signals)> {
    // The runtime panics if too few file descriptors are free. This check returns an error instead.
    drop(
        (0..DESCRIPTORS / 2)
            .map(|_| UnixStream::pair())
            .collect::<io::Result<Vec<_>>>()?,
    );
    // A single-threaded runtime starts faster, so signals are caught earlier.
    let first = runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _guard = first.enter();
        Signals::catch()?
    };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok((runtime, signals))
}
