//! `kvctl cluster`: all members at a glance.

use super::{
    CtlError,
    print::Answer,
    request::{Connection, Outcome},
};
use crate::{
    client::{Client, Timeouts},
    proto::own::ClusterReply,
};

/// Shows the cluster at a glance: ordinals, incarnations, roles, who is in contact, how far each is
/// behind, what the planner of the membership waits for, and how many losses are tolerated.
///
/// The leader knows most: it is asked, if it can be reached where it says that it is.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl cluster\n  kvctl cluster -w json")]
pub(crate) struct ClusterArgs {}

impl ClusterArgs {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
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
