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
    Serve(Serve),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    server::end_process_on_panic();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
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

async fn run(command: Command) -> anyhow::Result<()> {
    let (telemetry, quiet) = match &command {
        Command::Dev(dev) => (&dev.tuning.telemetry, Some("warn,openraft=error,sled=error")),
        Command::Serve(serve) => (&serve.tuning.telemetry, None),
    };
    let telemetry = server::init_telemetry(telemetry, quiet)?;
    let result = match command {
        Command::Dev(args) => server::dev(args).await,
        Command::Serve(args) => server::serve(args).await,
    };
    // Everything has ended: there is nothing left to be held up by its blocking.
    telemetry.end();
    result
}

fn failed(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("kvd: {error:#}");
    std::process::ExitCode::FAILURE
}
