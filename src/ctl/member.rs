//! `kvctl member`: who is in the cluster.

use clap::Subcommand;

/// About the members of the cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    pub(crate) verb: MemberVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MemberVerb {
    /// Lists the members: id, status, name, peer addresses, client addresses, whether it is a
    /// learner.
    #[command(after_help = "Example:\n  kvctl member list -w table")]
    List,
}
