//! `kvctl cluster`: all members at a glance, founding despite former volumes, and recovery from a lost
//! majority.

mod answer;

pub use self::answer::tolerated;
use self::answer::{FoundingOrdered, RecoveryStarted};
use super::{context::ClientConfig, error::CtlError, print::Outcome};
use crate::{
    client::{Client, Timeouts},
    proto::cluster_admin::{ClusterMember, ClusterReply},
};

/// Shows ordinals, members, roles, contact and lag, the reason that blocks a membership change, and
/// how many losses the cluster tolerates.
///
/// The leader knows most: kvctl calls it, if it is reachable at its advertised address.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl cluster\n  kvctl cluster -w json")]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Option<ClusterVerb>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ClusterVerb {
    Found(FoundArgs),
    Recover(RecoverArgs),
}

/// Orders a pod that waits, because volumes of a former cluster exist, to found a new cluster.
///
/// Run it in a pod of the StatefulSet: it calls the peer port, because such a pod does not serve clients yet.
/// Any pod of the set may act on the order. This ABANDONS the data of the PersistentVolumeClaims that it
/// prints: the new cluster starts empty, and refuses the members whose volumes hold the former cluster's
/// data until their PersistentVolumeClaims are deleted.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kubectl exec kv-0 -- kvctl cluster found --despite-volumes")]
struct FoundArgs {
    /// Accept that the data in the volumes of the former cluster stays outside
    #[arg(long, required = true)]
    despite_volumes: bool,
    /// The pod's peer port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2380")]
    peer_endpoint: String,
}

impl FoundArgs {
    async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let endpoint = self.peer_endpoint.parse()?;
        let reply = Client::new(vec![endpoint], config.timeouts).found_despite_volumes().await?;
        Ok(Outcome::success(FoundingOrdered { former_claims: reply.former_claims }))
    }
}

/// Makes one member a new cluster. The last resort, when a majority of the volumes is lost for good.
///
/// The member asks all ordinals first. It refuses while a majority of the voters may be alive, because
/// silence proves nothing, and if another member has a later log. The new cluster refuses the other members
/// of the old one until their volumes are deleted.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl cluster recover --from kv-2 --accept-data-loss")]
struct RecoverArgs {
    /// Name, ordinal or endpoint of the member whose volume is kept
    #[arg(long, value_name = "MEMBER")]
    from: String,
    /// Accept that data which only the lost volumes have is lost
    #[arg(long, required = true)]
    accept_data_loss: bool,
    /// Insist although a majority may be alive: the present cluster's id, as kvctl cluster shows it
    #[arg(long, value_name = "ID", value_parser = parse_cluster_id)]
    cluster_id: Option<u64>,
}

impl RecoverArgs {
    async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let endpoints = match self.from.parse() {
            Ok(endpoint) if self.from.contains(':') => vec![endpoint],
            _ => {
                let known = config.client().cluster().await?;
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
        let reply = Client::new(endpoints, config.timeouts).recover(self.cluster_id).await?;
        Ok(Outcome::success(RecoveryStarted { cluster_id: reply.cluster_id }))
    }
}

fn parse_cluster_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|e| format!("not a hexadecimal id: {e}"))
}

impl ClusterArgs {
    pub async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        match self.verb {
            Some(ClusterVerb::Found(args)) => return args.call(config).await,
            Some(ClusterVerb::Recover(args)) => return args.call(config).await,
            None => {}
        }
        let reply = config.client().cluster().await?;
        let best = view_of_leader(&reply, config.timeouts).await.unwrap_or(reply);
        Ok(Outcome::success(best))
    }
}

/// The leader's view. `None`: `reply` is that already, or the leader is not reachable.
async fn view_of_leader(reply: &ClusterReply, timeouts: Timeouts) -> Option<ClusterReply> {
    if reply.leading.is_some() {
        return None;
    }
    let leader = reply.members.iter().find(|m| m.member_id == reply.leader)?;
    let endpoints: Vec<_> = leader.client_urls.iter().filter_map(|url| url.parse().ok()).collect();
    if endpoints.is_empty() {
        return None;
    }
    let view = Client::new(endpoints, timeouts).cluster().await.ok()?;
    // From here, the address may belong to another cluster.
    (view.cluster_id == reply.cluster_id && view.leading.is_some()).then_some(view)
}
