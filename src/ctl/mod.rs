//! kvctl: the command line. Verbs, flags, output and exit codes are etcdctl's, so that scripts
//! work with either.
//!
//! A command goes through three steps that know nothing of each other: arguments and standard
//! input become a [`Request`]; the request is called and becomes an [`Answer`](print::Answer); the
//! answer is printed by pure functions, one file for each format. Verbs that last (`watch`, `lease
//! keep-alive`) have many answers, and print each on their [`Screen`].
//! Nothing is sent before all arguments and the output format are known to be good.

mod bench;
mod cli;
mod cluster;
mod compaction;
mod completion;
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
mod print;
mod put;
mod request;
mod screen;
#[cfg(test)]
mod tests;
mod top;
mod txn;
mod txn_grammar;
mod watch;

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
};

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub use self::error::CtlError;
use self::{
    bench::BenchArgs,
    cli::{Cli, Format, Global, Verb},
    error::exit,
    get::GetArgs,
    lease::LeaseRequest,
    member::MemberVerb,
    print::Style,
    request::{Connection, Request},
    screen::{Screen, interrupted},
    top::TopArgs,
    watch::Feed,
};
use crate::client::Timeouts;

/// The version of the API that requests are made in.
const API_VERSION: &str = "3.6";

/// Who listens where nobody was named.
const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// What a command may touch of the process it runs in.
pub struct Surroundings<'a> {
    pub stdin: Box<dyn BufRead + Send>,
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether somebody at a terminal reads `stderr`.
    pub interactive: bool,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("interactive", &self.interactive)
            .finish_non_exhaustive()
    }
}

/// Does what the command line says, the program's name first, and answers the exit code.
/// Blocks until it is done.
pub fn run(args: impl IntoIterator<Item = OsString>, around: &mut Surroundings<'_>) -> u8 {
    let result = match cli::parse(args) {
        Ok(cli) => execute(cli, around),
        Err(error) => explain(&error, around),
    };
    match result {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(CtlError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            // With no standard error there is nobody left to tell.
            let _ = writeln!(around.stderr, "Error: {error}");
            error.exit_code()
        }
    }
}

fn execute(cli: Cli, around: &mut Surroundings<'_>) -> Result<u8, CtlError> {
    let value_only = matches!(&cli.verb, Verb::Get(GetArgs { print_value_only: true, .. }));
    let style = Style { hex: cli.global.hex, value_only };
    let format = cli.global.write_out;
    let prepared = prepare(cli.verb, format, around)?;
    if let Prepared::Say(text) = prepared {
        around.stdout.write_all(&text)?;
        around.stdout.flush()?;
        return Ok(exit::OK);
    }
    let connection = connection(&cli.global, around.env)?;
    let runtime = match &prepared {
        // Load is made by all processors.
        Prepared::Bench(_) => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    let interactive = around.interactive;
    let stdin = std::mem::replace(&mut around.stdin, Box::new(io::empty()));
    let mut screen = Screen { stdout: around.stdout, stderr: around.stderr, format, style };
    runtime.block_on(async {
        if let Prepared::Bench(args) = prepared {
            return args.run(&connection, interactive, &mut screen).await;
        }
        tokio::select! {
            code = perform(prepared, &connection, stdin, &mut screen) => code,
            () = interrupted() => Ok(exit::BY_CTRL_C),
        }
    })
}

/// Asks, and prints the answer or the answers; answers the exit code.
async fn perform(
    prepared: Prepared,
    connection: &Connection,
    stdin: Box<dyn BufRead + Send>,
    screen: &mut Screen<'_>,
) -> Result<u8, CtlError> {
    match prepared {
        Prepared::Say(_) | Prepared::Bench(_) => Ok(exit::OK),
        Prepared::Ask(request) => {
            let outcome = request.call(connection).await?;
            screen.print(&outcome.answer)?;
            for complaint in &outcome.complaints {
                screen.complain(complaint)?;
            }
            Ok(if outcome.complaints.is_empty() { exit::OK } else { exit::ERROR })
        }
        Prepared::Lease(request) => lease::run(request, &connection.client(), screen).await,
        Prepared::Top(args, columns) => args.run(connection, columns, screen).await,
        Prepared::Watch(feed) => {
            match watch::follow(feed, stdin, &connection.client(), screen).await? {}
        }
    }
}

/// What is left to do once arguments are read, and standard input where it is part of them.
enum Prepared {
    Say(Vec<u8>),
    Ask(Request),
    Lease(LeaseRequest),
    Watch(Feed),
    /// With the width of the terminal, if it is known.
    Top(TopArgs, Option<u16>),
    /// Has a way of its own with Ctrl-C.
    Bench(BenchArgs),
}

fn prepare(
    verb: Verb,
    format: Format,
    around: &mut Surroundings<'_>,
) -> Result<Prepared, CtlError> {
    if matches!(
        verb,
        Verb::Get(_) | Verb::Put(_) | Verb::Del(_) | Verb::Txn(_) | Verb::Watch(_) | Verb::Lease(_)
    ) {
        print::refuse_table(format)?;
    }
    Ok(Prepared::Ask(match verb {
        Verb::Get(args) => {
            args.check(format)?;
            Request::Get(args.request())
        }
        Verb::Put(args) => Request::Put(args.request(Some(&mut around.stdin))?),
        Verb::Del(args) => {
            let warning = args.warning().filter(|_| around.interactive);
            if let Some(warning) = &warning {
                writeln!(around.stderr, "{warning}")?;
            }
            Request::Del { request: args.request(), pause: warning.is_some() }
        }
        Verb::Txn(args) => Request::Txn(args.request(&mut around.stdin, around.stdout)?),
        Verb::Lease(args) => return Ok(Prepared::Lease(args.request()?)),
        Verb::Bench(args) => {
            args.check()?;
            return Ok(Prepared::Bench(args));
        }
        Verb::Top(args) => {
            args.check()?;
            let columns = (around.env)("COLUMNS").and_then(|columns| columns.parse().ok());
            return Ok(Prepared::Top(args, columns));
        }
        Verb::Watch(args) => return Ok(Prepared::Watch(args.feed(around.env)?)),
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
        Verb::Version => return Ok(Prepared::Say(version().into_bytes())),
        Verb::Completion(args) => return Ok(Prepared::Say(args.script())),
        Verb::Man(args) => return Ok(Prepared::Say(args.pages()?)),
    }))
}

fn version() -> String {
    format!("kvctl version: {}\nAPI version: {API_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn connection(
    global: &Global,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Connection, CtlError> {
    let from_env = || env("KVCTL_ENDPOINTS").or_else(|| env("ETCDCTL_ENDPOINTS"));
    let names = match (&global.endpoints[..], from_env()) {
        ([], Some(names)) => names.split(',').map(String::from).collect(),
        ([], None) => vec![DEFAULT_ENDPOINT.into()],
        (names, _) => names.to_vec(),
    };
    let endpoints = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let timeouts = Timeouts { dial: global.dial_timeout, command: global.command_timeout };
    Ok(Connection { endpoints, timeouts })
}

/// Help and what is wrong with the arguments, in clap's words, with etcdctl's exit codes.
fn explain(error: &clap::Error, around: &mut Surroundings<'_>) -> Result<u8, CtlError> {
    let text = error.render().to_string();
    let code = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            around.stdout.write_all(text.as_bytes())?;
            around.stdout.flush()?;
            return Ok(exit::OK);
        }
        ErrorKind::MissingRequiredArgument
        | ErrorKind::ArgumentConflict
        | ErrorKind::TooManyValues
        | ErrorKind::WrongNumberOfValues => exit::BAD_ARGUMENTS,
        // An argument too many, where it is not a flag.
        ErrorKind::UnknownArgument
            if !matches!(
                error.get(ContextKind::InvalidArg),
                Some(ContextValue::String(arg)) if arg.starts_with('-')
            ) =>
        {
            exit::BAD_ARGUMENTS
        }
        // One of several words was asked for.
        ErrorKind::InvalidValue => exit::BAD_FEATURE,
        _ => exit::ERROR,
    };
    around.stderr.write_all(text.as_bytes())?;
    Ok(code)
}
