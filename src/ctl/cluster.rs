//! `kvctl cluster`: all members at a glance.

use super::{
    CtlError,
    print::Answer,
    request::{Connection, Outcome},
};
use crate::{
    client::{Client, Timeouts},
    proto::own::{ClusterMember, ClusterReply},
};

/// Shows the cluster at a glance: ordinals, incarnations, roles, who is in contact, how far each is
/// behind, what the planner of the membership waits for, and how many losses are tolerated.
///
/// The leader knows most: it is asked, if it can be reached where it says that it is.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl cluster\n  kvctl cluster -w json")]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    verb: Option<ClusterVerb>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ClusterVerb {
    Recover(RecoverArgs),
}

/// The last resort, when a majority of the volumes is lost for good: one member goes on alone, as a new
/// cluster. The others of the old one are refused then, until their volumes are gone.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl cluster recover --from kv-2 --accept-data-loss")]
struct RecoverArgs {
    /// Whose volume is kept: a member's name, ordinal or endpoint
    #[arg(long, value_name = "MEMBER")]
    from: String,
    /// What the lost volumes had and this one has not is gone
    #[arg(long, required = true)]
    accept_data_loss: bool,
}

impl RecoverArgs {
    async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        let endpoints = match self.from.parse() {
            Ok(endpoint) if self.from.contains(':') => vec![endpoint],
            _ => {
                let known = connection.client().cluster().await?;
                let named =
                    |m: &&ClusterMember| m.name == self.from || m.ordinal.to_string() == self.from;
                let Some(member) = known.members.iter().find(named) else {
                    let names: Vec<_> = known.members.iter().map(|m| m.name.as_str()).collect();
                    let (from, names) = (self.from, names.join(", "));
                    return Err(CtlError::BadArguments(format!(
                        "no member {from:?}: there are {names}"
                    )));
                };
                member.client_urls.iter().filter_map(|url| url.parse().ok()).collect()
            }
        };
        let reply = Client::new(endpoints, connection.timeouts).recover().await?;
        Ok(Outcome { answer: Answer::Recovering(reply.cluster_id), complaints: vec![] })
    }
}

impl ClusterArgs {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        if let Some(ClusterVerb::Recover(args)) = self.verb {
            return args.call(connection).await;
        }
        let answer = Answer::Cluster(best(connection).await?);
        Ok(Outcome { answer, complaints: vec![] })
    }
}

/// What whoever answers knows; better what the leader knows.
pub(crate) async fn best(connection: &Connection) -> Result<ClusterReply, CtlError> {
    let reply = connection.client().cluster().await?;
    Ok(of_leader(&reply, connection.timeouts).await.unwrap_or(reply))
}

/// What the leader knows, unless it has answered already or cannot be asked.
async fn of_leader(reply: &ClusterReply, timeouts: Timeouts) -> Option<ClusterReply> {
    if reply.leading.is_some() {
        return None;
    }
    let leader = reply.members.iter().find(|m| m.member_id == reply.leader)?;
    let endpoints: Vec<_> = leader.client_urls.iter().filter_map(|url| url.parse().ok()).collect();
    if endpoints.is_empty() {
        return None;
    }
    let told = Client::new(endpoints, timeouts).cluster().await.ok()?;
    // Another cluster may be at that address, as seen from here.
    (told.cluster_id == reply.cluster_id && told.leading.is_some()).then_some(told)
}
