//! The `configbump` executable: reads the options, runs, and turns the outcome into an exit code.

use std::io::Write;
use std::process::ExitCode;

use configbump::child;
use configbump::cli::{self, Asked};
use configbump::config::Config;
use configbump::doctor;
use configbump::run::{RunError, confine, run};
use configbump::telemetry::{self, Recent, STDERR};
use tokio::runtime::Runtime;
use zeroizing_alloc::ZeroAlloc;

/// Overwrites what is given back: a Secret is in the buffers of TLS and of the connection as well.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// Wrong usage, as for other commands.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let code = act();
    STDERR.finish();
    code
}

fn act() -> ExitCode {
    match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Asked::Run(config)) => run_as_asked(*config),
        Ok(Asked::Examine(config)) => match examine(&config) {
            Ok(is_well) => ExitCode::from(u8::from(!is_well)),
            Err(error) => complain(&*error, 1),
        },
        Ok(Asked::Print(text)) => match write!(std::io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, 1),
        },
        Err(error) => complain(&error, USAGE),
    }
}

fn run_as_asked(mut config: Config) -> ExitCode {
    let denied = [confine::close_memory().err(), child::init::take_name().err()];
    config.notes.extend(denied.into_iter().flatten());
    // Before there is any thread: process 1 has nothing but its children to look after.
    if config.starts_commands()
        && let Some(ended) = child::init::serve_as_process_1()
    {
        return ended.map_or_else(|error| complain(&error, 1), ExitCode::from);
    }
    // What it is sent is for the program then.
    if config.bump.program.is_some()
        && let Err(error) = child::hold_faults()
    {
        return complain(&error, 1);
    }
    match start(config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&error, error.code().unwrap_or(USAGE)),
    }
}

fn runtime() -> Result<Runtime, RunError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().map_err(RunError::Runtime)
}

fn examine(config: &Config) -> Result<bool, Box<dyn std::error::Error>> {
    telemetry::init(config.log_format, config.log_level, None);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        tokio::spawn(STDERR.drain());
        doctor::examine(config, &mut std::io::stdout()).await
    });
    runtime.shutdown_background();
    Ok(outcome?)
}

fn start(mut config: Config) -> Result<u8, RunError> {
    let recent = Recent::default();
    telemetry::init(config.log_format, config.log_level, config.listen.map(|_| &recent));
    for note in std::mem::take(&mut config.notes) {
        tracing::warn!("{note}");
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        tokio::spawn(STDERR.drain());
        run(config, recent).await
    });
    // A reader that waits for the server must not delay the end.
    runtime.shutdown_background();
    outcome
}

/// The one line that is not in the log's form: it is for whoever typed the command.
fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    STDERR.write(format!("configbump: {error}\n").as_bytes());
    ExitCode::from(code)
}
