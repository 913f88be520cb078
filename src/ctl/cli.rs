//! The command line: global flags and verbs. Names and defaults are etcdctl's.

use std::{ffi::OsString, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::{
    args,
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
    print::Format,
    put::PutArgs,
    top::TopArgs,
    txn::TxnArgs,
    watch::WatchArgs,
};

/// Reads, writes and operates a key-value store with the etcd v3 API.
#[derive(Debug, Parser)]
#[command(
    name = "kvctl",
    version,
    after_help = "Example:\n  kvctl put greeting hello && kvctl get greeting",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 80
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Members to call, in this order [default: KVCTL_ENDPOINTS, then ETCDCTL_ENDPOINTS, then
    /// 127.0.0.1:2379]
    #[arg(long, global = true, value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub endpoints: Vec<String>,

    /// Output format
    #[arg(short, long, global = true, value_enum, default_value = "simple", value_name = "FORMAT")]
    pub write_out: Format,

    /// Print keys and values as hexadecimal bytes
    #[arg(long, global = true)]
    pub hex: bool,

    /// Time limit of connecting
    #[arg(long, global = true, default_value = "2s", value_parser = gotext::parse_duration, value_name = "TIME")]
    pub dial_timeout: Duration,

    /// Time limit of a call once connected
    #[arg(long, global = true, default_value = "5s", value_parser = gotext::parse_duration, value_name = "TIME")]
    pub command_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
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
    /// Prints the versions of kvctl and of its API.
    #[command(after_help = "Example:\n  kvctl version")]
    Version,
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Parses the command line, the program's name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    args::parse_as(arguments.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
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
