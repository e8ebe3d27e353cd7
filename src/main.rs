//! The program: arguments, logging, and then the command that was asked for.

use std::process::ExitCode;

use elements_exporter::{args, commands, core_dumps, logging};
use tracing::warn;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // Where even that cannot be printed, the exit code is all there is to say.
            let _ = error.print();
            return ExitCode::from(args::exit_code(&error));
        }
    };
    logging::start(args.log);
    // Before the configuration is read, so that there has been no moment in which a core would have held a secret.
    if let Err(error) = core_dumps::switch_off() {
        warn!(%error, "core dumps cannot be switched off; one would hold the secret");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::report(&error, 1),
    };
    match runtime.block_on(commands::run(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => commands::report(&error, error.exit_code()),
    }
}
