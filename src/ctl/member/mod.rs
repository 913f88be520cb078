//! `kvctl member` and `kvctl move-leader`: the members of the cluster, and its leader.

mod answer;

use clap::Subcommand;
use tonic::Code;

pub use self::answer::MemberChange;
use super::{context::ClientConfig, error::CtlError, print::Outcome};
use crate::{
    client::{Client, ClientError},
    proto::etcdserverpb::Member,
};

/// Lists and changes the members of the cluster.
///
/// In a StatefulSet, its replicas decide on the members: use kubectl scale; all but list fail.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct MemberArgs {
    #[command(subcommand)]
    pub verb: MemberVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub enum MemberVerb {
    /// Lists the members: id, status, name, peer addresses, client addresses, is learner.
    #[command(after_help = "Example:\n  kvctl member list -w table")]
    List,
    /// Adds a member that will start later. It is a learner until it has caught up, then a voter.
    ///
    /// With kvd this is optional: a member joins when it starts.
    #[command(
        after_help = "Example:\n  kvctl member add kv-3 --peer-urls=http://kv-3.kv-peers:2380"
    )]
    Add {
        /// Name of the member
        name: String,
        /// Its peer addresses
        #[arg(long, required = true, value_delimiter = ',', value_name = "URL,…")]
        peer_urls: Vec<String>,
        /// Add it as a learner (etcd only: with kvd every member starts as one)
        #[arg(long)]
        learner: bool,
    },
    /// Removes a member for good. Its volume cannot be used again.
    ///
    /// Leadership and vote are handed over first. Its process exits; when it is started again, it
    /// joins as a new member.
    #[command(after_help = "Example:\n  kvctl member remove 8e9e05c52164694d")]
    Remove {
        #[command(flatten)]
        member: MemberSelector,
    },
    /// Changes the peer addresses of a member.
    ///
    /// With kvd they are flags of each member (--peers, --peer-template); other addresses are refused.
    #[command(
        after_help = "Example:\n  kvctl member update 8e9e05c52164694d --peer-urls=http://kv-3:2380"
    )]
    Update {
        #[command(flatten)]
        member: MemberSelector,
        /// Its peer addresses
        #[arg(long, required = true, value_delimiter = ',', value_name = "URL,…")]
        peer_urls: Vec<String>,
    },
    /// Makes a learner a voter.
    ///
    /// With kvd a learner becomes a voter by itself once it has caught up, while the number of voters
    /// allows it: this waits for that, or fails with the reason.
    #[command(after_help = "Example:\n  kvctl member promote kv-3")]
    Promote {
        #[command(flatten)]
        member: MemberSelector,
    },
}

/// Transfers leadership to another member.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl move-leader kv-1")]
pub struct MoveLeaderArgs {
    #[command(flatten)]
    member: MemberSelector,
}

#[derive(Debug, Clone, clap::Args)]
pub struct MemberSelector {
    /// Its id, as `member list` prints it, or its name
    #[arg(value_name = "ID|NAME")]
    member: String,
}

impl MemberVerb {
    pub async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let client = config.client();
        let answer = match self {
            MemberVerb::List => return Ok(Outcome::success(client.member_list().await?)),
            MemberVerb::Add { name, peer_urls, learner } => {
                let response = client.member_add(peer_urls.clone(), learner).await?;
                MemberChange::Added { name, urls: peer_urls, response }
            }
            MemberVerb::Remove { member } => {
                let id = member.find(&client).await?;
                MemberChange::Removed(id, client.member_remove(id).await?)
            }
            MemberVerb::Update { member, peer_urls } => {
                let id = member.find(&client).await?;
                MemberChange::Updated(id, client.member_update(id, peer_urls).await?)
            }
            MemberVerb::Promote { member } => {
                let id = member.find(&client).await?;
                MemberChange::Promoted(id, client.member_promote(id).await?)
            }
        };
        Ok(Outcome::success(answer))
    }
}

impl MoveLeaderArgs {
    pub async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let client = config.client();
        let to = self.member.find(&client).await?;
        let from = client.status().await?.leader;
        let response = match client.move_leader(to).await {
            Err(error) if is_not_leader(&error) => {
                let leader = client_of(&client, from, config).await?;
                leader.ok_or(error)?.move_leader(to).await?
            }
            answer => answer?,
        };
        Ok(Outcome::success(MemberChange::LeaderMoved { from, to, response }))
    }
}

impl MemberSelector {
    async fn find(&self, client: &Client) -> Result<u64, CtlError> {
        if let Ok(id) = u64::from_str_radix(&self.member, 16) {
            return Ok(id);
        }
        let members = client.member_list().await?.members;
        let mut named = members.iter().filter(|m| m.name == self.member);
        match (named.next(), named.next()) {
            (Some(member), None) => Ok(member.id),
            (Some(_), Some(_)) => Err(CtlError::BadArguments(format!(
                "several members have the name {}: pass the id instead (kvctl member list)",
                self.member
            ))),
            (None, _) => Err(CtlError::BadArguments(format!(
                "no member has the id or name {}: see kvctl member list",
                self.member
            ))),
        }
    }
}

/// A client of one member. `None`: the member has no known client address.
pub async fn client_of(
    client: &Client,
    id: u64,
    config: &ClientConfig,
) -> Result<Option<Client>, ClientError> {
    let members: Vec<Member> = client.member_list().await?.members;
    let urls = members.iter().find(|m| m.id == id).map(|m| m.client_ur_ls.as_slice());
    let endpoints: Vec<_> = urls.into_iter().flatten().filter_map(|url| url.parse().ok()).collect();
    Ok((!endpoints.is_empty()).then(|| Client::new(endpoints, config.timeouts)))
}

/// etcd's answer when the member is not the leader.
fn is_not_leader(error: &ClientError) -> bool {
    error.code() == Some(Code::FailedPrecondition) && error.to_string() == "etcdserver: not leader"
}
