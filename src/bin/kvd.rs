//! `kvd`: the server.

use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use ordinal::{
    config::{self, Dev, Serve},
    server,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for the runtime to end its threads before the process exits.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_millis(250);

/// Ordinal: a replicated key-value store with the etcd v3 API, at home in a Kubernetes StatefulSet
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a whole cluster in one process, to try it; no configuration needed
    Dev(Dev),
    /// Runs one member
    Serve(Box<Serve>),
}

impl Cli {
    /// Ends the process where the command line is wrong or asks for help.
    fn read() -> Cli {
        let matches = config::with_renamed_variables(Cli::command()).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn main() -> std::process::ExitCode {
    let cli = Cli::read();
    server::end_process_on_panic();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e.into()),
    };
    let result = runtime.block_on(run(cli.command));
    // After a fault, Raft's tasks may still run and log. Wait for them, so that the reason is the last
    // line of the log; but not for long: a library's thread must not delay the exit.
    runtime.shutdown_timeout(SHUTDOWN_WAIT_MAX);
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

/// Workers for half of the processors: lanes that block or apply have threads of their own, and an
/// idle worker slows busy ones down. `TOKIO_WORKER_THREADS` overrides the number.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        builder.worker_threads(processors.div_ceil(2));
    }
    builder.enable_all().build()
}

async fn run(command: Command) -> anyhow::Result<()> {
    let (telemetry, quiet) = match &command {
        Command::Dev(dev) => (&dev.tuning.telemetry, Some("warn,openraft=error,sled=error")),
        Command::Serve(serve) => (&serve.tuning.telemetry, None),
    };
    let telemetry = server::init_telemetry(telemetry, quiet)?;
    let result = match command {
        Command::Dev(args) => server::dev(args).await,
        Command::Serve(args) => server::serve(*args).await,
    };
    // Blocks for a few seconds at most; all servers have ended.
    telemetry.shutdown();
    result
}

fn failed(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("kvd: {error:#}");
    std::process::ExitCode::FAILURE
}
