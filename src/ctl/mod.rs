//! kvctl: the command line. Verbs, flags, output and exit codes are etcdctl's, so that scripts
//! work with either.
//!
//! A command takes three steps, which do not depend on each other: arguments and standard input
//! become a [`Request`]; the call of the cluster returns an [`Answer`](print::Answer); the answer is
//! rendered by pure functions, one method for each format. Verbs that last (`watch`, `lease
//! keep-alive`) have many answers, and print each on their [`Output`]. Nothing is sent before all
//! arguments and the output format are checked.
//!
//! Only this file and the enum of verbs (`cli`) know all verbs. The verbs know `context`, `print`,
//! `output` and `error`, and not each other.

mod args;
mod bench;
mod cli;
mod cluster;
mod compaction;
mod completion;
mod context;
mod del;
mod doctor;
mod endpoint;
mod error;
mod get;
mod gotext;
mod keys;
mod lease;
mod man;
mod member;
mod output;
mod print;
mod put;
mod request;
#[cfg(test)]
mod tests;
mod top;
mod txn;
mod txn_grammar;
mod watch;

use std::{
    ffi::OsString,
    io::{self, BufRead},
};

use clap::{
    CommandFactory as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use self::{
    bench::BenchArgs,
    cli::{Cli, Global, Verb},
    context::ClientConfig,
    error::exit,
    get::GetArgs,
    lease::LeaseRequest,
    member::MemberVerb,
    output::{Output, interrupted},
    print::{Format, ValueStyle},
    request::Request,
    top::TopArgs,
    watch::WatchSource,
};
pub use self::{context::Environment, error::CtlError};
use crate::client::Timeouts;

/// The API version of requests.
const API_VERSION: &str = "3.6";

/// Used without --endpoints.
const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// Runs a command line, the program's name first, and returns the exit code. Blocks.
pub fn run(args: impl IntoIterator<Item = OsString>, environment: &mut Environment<'_>) -> u8 {
    let result = match cli::parse(args) {
        Ok(cli) => execute(cli, environment),
        Err(error) => print_usage(&error, environment),
    };
    match result {
        Ok(code) => code,
        // The reader of the output has closed the pipe, as `head` does.
        Err(CtlError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            // Without standard error, the exit code has to do.
            let _ = writeln!(environment.stderr, "Error: {error}");
            error.exit_code()
        }
    }
}

fn execute(cli: Cli, environment: &mut Environment<'_>) -> Result<u8, CtlError> {
    let value_only = matches!(&cli.verb, Verb::Get(GetArgs { print_value_only: true, .. }));
    let style = ValueStyle { hex: cli.global.hex, value_only };
    let format = cli.global.write_out;
    let prepared = prepare(cli.verb, format, environment)?;
    if let Prepared::Text(text) = prepared {
        environment.stdout.write_all(&text)?;
        environment.stdout.flush()?;
        return Ok(exit::OK);
    }
    let config = client_config(&cli.global, environment.variable)?;
    let runtime = match &prepared {
        // Load uses all processors.
        Prepared::Bench(_) => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    let interactive = environment.interactive;
    let stdin = std::mem::replace(&mut environment.stdin, Box::new(io::empty()));
    let mut output =
        Output { stdout: environment.stdout, stderr: environment.stderr, format, style };
    runtime.block_on(async {
        if let Prepared::Bench(args) = prepared {
            return args.run(&config, interactive, &mut output).await;
        }
        tokio::select! {
            code = perform(prepared, &config, stdin, &mut output) => code,
            () = interrupted() => Ok(exit::BY_CTRL_C),
        }
    })
}

/// Calls, and prints the answers; returns the exit code.
async fn perform(
    prepared: Prepared,
    config: &ClientConfig,
    stdin: Box<dyn BufRead + Send>,
    output: &mut Output<'_>,
) -> Result<u8, CtlError> {
    match prepared {
        Prepared::Text(_) | Prepared::Bench(_) => Ok(exit::OK),
        Prepared::Request(request) => {
            let outcome = request.call(config).await?;
            output.print(&*outcome.answer)?;
            for error in &outcome.errors {
                output.print_error(error)?;
            }
            Ok(if outcome.errors.is_empty() { exit::OK } else { exit::ERROR })
        }
        Prepared::Lease(request) => lease::run(request, &config.client(), output).await,
        Prepared::Top(args, columns) => args.run(config, columns, output).await,
        Prepared::Watch(source) => {
            match watch::follow(source, stdin, &config.client(), output).await? {}
        }
    }
}

/// A command whose arguments are read and checked, and standard input where it is part of them.
enum Prepared {
    Text(Vec<u8>),
    Request(Request),
    Lease(LeaseRequest),
    Watch(WatchSource),
    /// With the width of the terminal, if known.
    Top(TopArgs, Option<u16>),
    /// Handles Ctrl-C itself.
    Bench(BenchArgs),
}

fn prepare(
    verb: Verb,
    format: Format,
    environment: &mut Environment<'_>,
) -> Result<Prepared, CtlError> {
    if matches!(
        verb,
        Verb::Get(_) | Verb::Put(_) | Verb::Del(_) | Verb::Txn(_) | Verb::Watch(_) | Verb::Lease(_)
    ) {
        print::refuse_table(format)?;
    }
    Ok(Prepared::Request(match verb {
        Verb::Get(args) => {
            args.check(format)?;
            Request::Get(args.request())
        }
        Verb::Put(args) => Request::Put(args.request(Some(&mut environment.stdin))?),
        Verb::Del(args) => {
            let warning = args.warning().filter(|_| environment.interactive);
            if let Some(warning) = &warning {
                writeln!(environment.stderr, "{warning}")?;
            }
            Request::Del { request: args.request(), pause: warning.is_some() }
        }
        Verb::Txn(args) => Request::Txn(args.request(&mut environment.stdin, environment.stdout)?),
        Verb::Lease(args) => return Ok(Prepared::Lease(args.request()?)),
        Verb::Bench(args) => {
            args.check()?;
            return Ok(Prepared::Bench(args));
        }
        Verb::Top(args) => {
            args.check()?;
            let columns =
                (environment.variable)("COLUMNS").and_then(|columns| columns.parse().ok());
            return Ok(Prepared::Top(args, columns));
        }
        Verb::Watch(args) => return Ok(Prepared::Watch(args.source(environment.variable)?)),
        Verb::Compaction(args) => Request::Compaction(args.request()),
        Verb::Member(args) => {
            if !matches!(args.verb, MemberVerb::List) {
                print::refuse_table(format)?;
            }
            Request::Member(args.verb)
        }
        Verb::MoveLeader(args) => {
            print::refuse_table(format)?;
            Request::MoveLeader(args)
        }
        Verb::Cluster(args) => {
            print::refuse_fields(format)?;
            Request::Cluster(args)
        }
        Verb::Doctor(args) => {
            print::refuse_table(format)?;
            print::refuse_fields(format)?;
            Request::Doctor(args)
        }
        Verb::Endpoint(args) => Request::Endpoint(args),
        Verb::Version => return Ok(Prepared::Text(version().into_bytes())),
        Verb::Completion(args) => return Ok(Prepared::Text(args.script(Cli::command()))),
        Verb::Man(args) => return Ok(Prepared::Text(args.pages(Cli::command())?)),
    }))
}

fn version() -> String {
    format!("kvctl version: {}\nAPI version: {API_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn client_config(
    global: &Global,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<ClientConfig, CtlError> {
    let from_env = || variable("KVCTL_ENDPOINTS").or_else(|| variable("ETCDCTL_ENDPOINTS"));
    let names = match (&global.endpoints[..], from_env()) {
        ([], Some(names)) => names.split(',').map(String::from).collect(),
        ([], None) => vec![DEFAULT_ENDPOINT.into()],
        (names, _) => names.to_vec(),
    };
    let endpoints = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let timeouts = Timeouts { dial: global.dial_timeout, command: global.command_timeout };
    Ok(ClientConfig { endpoints, timeouts })
}

/// Prints clap's help or its error about the arguments; returns etcdctl's exit code.
fn print_usage(error: &clap::Error, environment: &mut Environment<'_>) -> Result<u8, CtlError> {
    let text = error.render().to_string();
    let code = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            environment.stdout.write_all(text.as_bytes())?;
            environment.stdout.flush()?;
            return Ok(exit::OK);
        }
        ErrorKind::MissingRequiredArgument
        | ErrorKind::ArgumentConflict
        | ErrorKind::TooManyValues
        | ErrorKind::WrongNumberOfValues => exit::BAD_ARGUMENTS,
        // A surplus argument that is not a flag.
        ErrorKind::UnknownArgument
            if !matches!(
                error.get(ContextKind::InvalidArg),
                Some(ContextValue::String(arg)) if arg.starts_with('-')
            ) =>
        {
            exit::BAD_ARGUMENTS
        }
        // Not one of the possible values.
        ErrorKind::InvalidValue => exit::BAD_FEATURE,
        _ => exit::ERROR,
    };
    environment.stderr.write_all(text.as_bytes())?;
    Ok(code)
}
