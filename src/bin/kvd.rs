//! `kvd`: the server.

use clap::{Parser, Subcommand};
use ordinal::{
    config::{Dev, Serve},
    server,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ordinal: a replicated key-value store with the etcd v3 API, at home in a Kubernetes StatefulSet
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a whole cluster on this machine, to try it: no configuration needed
    Dev(Dev),
    /// Runs one member
    Serve(Box<Serve>),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    server::end_process_on_panic();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e.into()),
    };
    let result = runtime.block_on(run(cli.command));
    // Nothing of ours is left running; a library's thread must not hold the end up.
    runtime.shutdown_background();
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

/// Half of the processors: what blocks and what applies has threads of its own, and a worker that finds
/// nothing to do costs those that have something. `TOKIO_WORKER_THREADS` says otherwise.
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
    // Everything has ended: there is nothing left to be held up by its blocking.
    telemetry.end();
    result
}

fn failed(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("kvd: {error:#}");
    std::process::ExitCode::FAILURE
}
