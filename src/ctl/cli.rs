//! The command line: global flags and verbs. Names and defaults are etcdctl's.

use std::{ffi::OsString, time::Duration};

use clap::{ArgAction, Args, Command, Parser, Subcommand, ValueEnum, error::ErrorKind};

use super::{
    bench::BenchArgs,
    cluster::ClusterArgs,
    compaction::CompactionArgs,
    completion::CompletionArgs,
    del::DelArgs,
    doctor::DoctorArgs,
    endpoint::EndpointArgs,
    get::GetArgs,
    gotext,
    lease::LeaseArgs,
    man::ManArgs,
    member::{MemberArgs, MoveLeaderArgs},
    put::PutArgs,
    top::TopArgs,
    txn::TxnArgs,
    watch::WatchArgs,
};

/// Reads and writes a store that speaks the etcd v3 API.
#[derive(Debug, Parser)]
#[command(
    name = "kvctl",
    version,
    after_help = "Example:\n  kvctl put greeting hello && kvctl get greeting",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Members to ask, in this order; KVCTL_ENDPOINTS, then ETCDCTL_ENDPOINTS, where not given
    /// [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub(crate) endpoints: Vec<String>,

    /// How to print the answer
    #[arg(short, long, global = true, value_enum, default_value = "simple", value_name = "FORMAT")]
    pub(crate) write_out: Format,

    /// Print keys and values as hexadecimal bytes
    #[arg(long, global = true)]
    pub(crate) hex: bool,

    /// How long to wait for a connection
    #[arg(long, global = true, default_value = "2s", value_parser = gotext::parse_duration, value_name = "TIME")]
    pub(crate) dial_timeout: Duration,

    /// How long to wait for the answer once connected
    #[arg(long, global = true, default_value = "5s", value_parser = gotext::parse_duration, value_name = "TIME")]
    pub(crate) command_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Simple,
    Table,
    Json,
    Fields,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
    Txn(TxnArgs),
    Compaction(CompactionArgs),
    Watch(WatchArgs),
    Lease(LeaseArgs),
    Bench(BenchArgs),
    Top(TopArgs),
    Cluster(ClusterArgs),
    Doctor(DoctorArgs),
    Member(MemberArgs),
    MoveLeader(MoveLeaderArgs),
    Endpoint(EndpointArgs),
    /// Prints the version of kvctl, and of the API it speaks.
    #[command(after_help = "Example:\n  kvctl version")]
    Version,
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Reads the command line, the program's name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    parse_as(args.into_iter().collect())
}

/// Reads arguments as those of `P`.
pub(crate) fn parse_as<P: Parser>(args: Vec<OsString>) -> Result<P, clap::Error> {
    let mut command = P::command();
    let separated = args.last().is_some_and(|last| last == "--");
    let parsed = P::try_parse_from(spell_out(args, &switches(&command)))?;
    if separated {
        let text = "bad number of arguments (found separator --, but no commands)";
        return Err(command.error(ErrorKind::WrongNumberOfValues, text));
    }
    Ok(parsed)
}

/// What is wrong with the arguments, without the advice that follows it.
pub(crate) fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").into()
}

/// etcdctl takes `--prefix=true` and `--prefix=false`, and scripts write them; clap's switches take
/// no value. So the former becomes the switch alone, and the latter nothing.
fn spell_out(
    args: impl IntoIterator<Item = OsString>,
    switches: &[String],
) -> impl Iterator<Item = OsString> {
    let mut only_values = false;
    args.into_iter().filter_map(move |arg| {
        only_values |= arg == "--";
        let assigned = arg.to_str().and_then(|arg| arg.split_once('='));
        let Some((switch, value)) = assigned.filter(|_| !only_values) else { return Some(arg) };
        if !switches.iter().any(|s| s == switch) {
            return Some(arg);
        }
        match value {
            "true" | "TRUE" | "True" | "t" | "T" | "1" => Some(switch.into()),
            "false" | "FALSE" | "False" | "f" | "F" | "0" => None,
            _ => Some(arg),
        }
    })
}

/// Every `--flag` that is on or off.
fn switches(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
    let own = own.filter_map(|arg| arg.get_long()).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn switches_may_be_assigned_as_etcdctl_allows() {
        let line = "kvctl get --prefix=true --keys-only=false --limit=1 -- --prefix=true";
        let spelled: Vec<_> = spell_out(words(line), &switches(&Cli::command())).collect();
        assert_eq!(spelled, words("kvctl get --prefix --limit=1 -- --prefix=true"));
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &Command) {
            for sub in command.get_subcommands() {
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example:\n  ") || sub.has_subcommands(), "{sub}");
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
