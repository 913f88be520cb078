//! `kvctl member` and `kvctl move-leader`: who is in the cluster, and who leads it.

use clap::Subcommand;
use tonic::Code;

use super::{
    CtlError,
    print::Answer,
    request::{Connection, Outcome},
};
use crate::{
    client::{Client, ClientError},
    proto::etcdserverpb::{
        Member, MemberAddResponse, MemberPromoteResponse, MemberRemoveResponse,
        MemberUpdateResponse, MoveLeaderResponse,
    },
};

/// About the members of the cluster.
///
/// In a StatefulSet members come and go with its replicas (kubectl scale), and these commands refuse.
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
    /// Keeps a place for a member. It is a learner until it has caught up, and votes then by itself.
    ///
    /// kvd needs no such command: a member joins when it starts.
    #[command(
        after_help = "Example:\n  kvctl member add kv-3 --peer-urls=http://kv-3.kv-peers:2380"
    )]
    Add {
        /// What it will be called
        name: String,
        /// Where the others will dial it
        #[arg(long, required = true, value_delimiter = ',', value_name = "URL,…")]
        peer_urls: Vec<String>,
        /// Not to vote at once (of etcd; with kvd nobody does)
        #[arg(long)]
        learner: bool,
    },
    /// Removes a member for good: its volume is worth nothing afterwards.
    ///
    /// Leadership and votes are handed over first. Its process ends; if it is started again, it joins
    /// as a new member.
    #[command(after_help = "Example:\n  kvctl member remove 8e9e05c52164694d")]
    Remove {
        #[command(flatten)]
        member: WhichMember,
    },
    /// Says where a member is dialled.
    ///
    /// With kvd that is in the flags of each member (--peers, --peer-template), so this refuses
    /// anything else.
    #[command(
        after_help = "Example:\n  kvctl member update 8e9e05c52164694d --peer-urls=http://kv-3:2380"
    )]
    Update {
        #[command(flatten)]
        member: WhichMember,
        /// Where the others will dial it
        #[arg(long, required = true, value_delimiter = ',', value_name = "URL,…")]
        peer_urls: Vec<String>,
    },
    /// Gives a learner its vote.
    ///
    /// With kvd a learner that has caught up votes by itself, if there is a vote for it; this waits for
    /// it, or says why there is none.
    #[command(after_help = "Example:\n  kvctl member promote kv-3")]
    Promote {
        #[command(flatten)]
        member: WhichMember,
    },
}

/// Has another member lead.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl move-leader kv-1")]
pub(crate) struct MoveLeaderArgs {
    #[command(flatten)]
    member: WhichMember,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WhichMember {
    /// Its id, as `member list` shows it, or its name
    #[arg(value_name = "ID|NAME")]
    member: String,
}

/// What became of a command about a member.
#[derive(Debug, Clone)]
pub(crate) enum MemberAnswer {
    Added { name: String, urls: Vec<String>, response: MemberAddResponse },
    Removed(u64, MemberRemoveResponse),
    Updated(u64, MemberUpdateResponse),
    Promoted(u64, MemberPromoteResponse),
    LeaderMoved { from: u64, to: u64, response: MoveLeaderResponse },
}

impl MemberVerb {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        let client = connection.client();
        let answer = match self {
            MemberVerb::List => return Ok(done(Answer::Members(client.member_list().await?))),
            MemberVerb::Add { name, peer_urls, learner } => {
                let response = client.member_add(peer_urls.clone(), learner).await?;
                MemberAnswer::Added { name, urls: peer_urls, response }
            }
            MemberVerb::Remove { member } => {
                let id = member.find(&client).await?;
                MemberAnswer::Removed(id, client.member_remove(id).await?)
            }
            MemberVerb::Update { member, peer_urls } => {
                let id = member.find(&client).await?;
                MemberAnswer::Updated(id, client.member_update(id, peer_urls).await?)
            }
            MemberVerb::Promote { member } => {
                let id = member.find(&client).await?;
                MemberAnswer::Promoted(id, client.member_promote(id).await?)
            }
        };
        Ok(done(Answer::Member(answer)))
    }
}

impl MoveLeaderArgs {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        let client = connection.client();
        let to = self.member.find(&client).await?;
        let from = client.status().await?.leader;
        let response = match client.move_leader(to).await {
            Err(error) if is_not_leader(&error) => {
                let leader = clients_of(&client, from, connection).await?;
                leader.ok_or(error)?.move_leader(to).await?
            }
            answer => answer?,
        };
        Ok(done(Answer::Member(MemberAnswer::LeaderMoved { from, to, response })))
    }
}

impl WhichMember {
    async fn find(&self, client: &Client) -> Result<u64, CtlError> {
        if let Ok(id) = u64::from_str_radix(&self.member, 16) {
            return Ok(id);
        }
        let members = client.member_list().await?.members;
        let mut named = members.iter().filter(|m| m.name == self.member);
        match (named.next(), named.next()) {
            (Some(member), None) => Ok(member.id),
            (Some(_), Some(_)) => Err(CtlError::BadArguments(format!(
                "several members are called {}: say which by its id (kvctl member list)",
                self.member
            ))),
            (None, _) => Err(CtlError::BadArguments(format!(
                "no member has the id or the name {}: kvctl member list shows them",
                self.member
            ))),
        }
    }
}

/// A client of this member alone, where its list of addresses is known.
pub(crate) async fn clients_of(
    client: &Client,
    id: u64,
    connection: &Connection,
) -> Result<Option<Client>, ClientError> {
    let members: Vec<Member> = client.member_list().await?.members;
    let urls = members.iter().find(|m| m.id == id).map(|m| m.client_ur_ls.as_slice());
    let endpoints: Vec<_> = urls.into_iter().flatten().filter_map(|url| url.parse().ok()).collect();
    Ok((!endpoints.is_empty()).then(|| Client::new(endpoints, connection.timeouts)))
}

/// An etcd that does not lead.
fn is_not_leader(error: &ClientError) -> bool {
    error.code() == Some(Code::FailedPrecondition) && error.to_string() == "etcdserver: not leader"
}

fn done(answer: Answer) -> Outcome {
    Outcome { answer, complaints: vec![] }
}
