//! kvctl: the command line. Verbs, flags, output and exit codes are etcdctl's, so that scripts
//! work with either.
//!
//! A command goes through three steps that know nothing of each other: arguments and standard
//! input become a [`Request`]; the request is called and becomes an [`Answer`](print::Answer); the
//! answer is printed by pure functions, one file for each format.
//! Nothing is sent before all arguments and the output format are known to be good.

mod cli;
mod compaction;
mod completion;
mod del;
mod endpoint;
mod error;
mod get;
mod gotext;
mod keys;
mod member;
mod print;
mod put;
mod request;
#[cfg(test)]
mod tests;
mod txn;
mod txn_grammar;

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
};

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub use self::error::CtlError;
use self::{
    cli::{Cli, Format, Global, Verb},
    error::exit,
    get::GetArgs,
    member::MemberVerb,
    print::Style,
    request::{Connection, Request},
};
use crate::client::Timeouts;

/// The version of the API that requests are made in.
const API_VERSION: &str = "3.6";

/// Who listens where nobody was named.
const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// What a command may touch of the process it runs in.
pub struct Surroundings<'a> {
    pub stdin: &'a mut dyn BufRead,
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
    let request = match prepare(cli.verb, cli.global.write_out, around)? {
        Prepared::Ask(request) => request,
        Prepared::Say(text) => {
            around.stdout.write_all(&text)?;
            around.stdout.flush()?;
            return Ok(exit::OK);
        }
    };
    let connection = connection(&cli.global, around.env)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(request.call(&connection))?;

    let printed = print::render(&outcome.answer, cli.global.write_out, style)?;
    around.stderr.write_all(&printed.stderr)?;
    for complaint in &outcome.complaints {
        writeln!(around.stderr, "{complaint}")?;
    }
    around.stdout.write_all(&printed.stdout)?;
    around.stdout.flush()?;
    Ok(if outcome.complaints.is_empty() { exit::OK } else { exit::ERROR })
}

/// What is left to do once arguments and standard input are read.
enum Prepared {
    Ask(Request),
    Say(Vec<u8>),
}

fn prepare(
    verb: Verb,
    format: Format,
    around: &mut Surroundings<'_>,
) -> Result<Prepared, CtlError> {
    if matches!(verb, Verb::Get(_) | Verb::Put(_) | Verb::Del(_) | Verb::Txn(_)) {
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
        Verb::Txn(args) => Request::Txn(args.request(around.stdin, around.stdout)?),
        Verb::Compaction(args) => Request::Compaction(args.request()),
        Verb::Member(args) => match args.verb {
            MemberVerb::List => Request::MemberList,
        },
        Verb::Endpoint(args) => Request::Endpoint(args),
        Verb::Version => return Ok(Prepared::Say(version().into_bytes())),
        Verb::Completion(args) => return Ok(Prepared::Say(args.script())),
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
