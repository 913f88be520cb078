//! The configuration of one member, of `kvd serve` or of `kvd dev`.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::servers::Ports;
use crate::{
    membership::{GracePeriod, Identity, LeaderUpdate, Orchestrator},
    peer::PeerAddresses,
    raft::{Retention, Timing},
    types::{MemberAttributes, Ordinal},
};

/// The parameters of one member.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    pub name: String,
    pub data_dir: PathBuf,
    pub ordinal: Ordinal,
    pub home: String,
    pub addresses: PeerAddresses,
    pub founders: u32,
    pub ports: Ports,
    pub client_urls: Vec<String>,
    /// The address that the member tells its peers, whose DNS may know an older one.
    pub pod_ip: Option<IpAddr>,
    pub timing: Timing,
    pub quota_bytes: u64,
    pub cache_bytes: usize,
    pub max_request_bytes: usize,
    /// Interval between progress notifications on idle watches.
    pub watch_progress_interval: Duration,
    /// Whether a leader that stops transfers its leadership first: not where all members stop at once.
    pub hands_over: bool,
    pub max_voters: u32,
    /// Present if the member runs in a pod of a StatefulSet.
    pub pod: Option<PodContext>,
    /// The number of SIGTERMs after the first one, where this process has only one member.
    pub repeated_sigterm: Option<watch::Receiver<u32>>,
    pub wal_segment_bytes: u64,
    pub retention: Retention,
}

/// The member's connections to Kubernetes.
#[derive(Debug, Clone)]
pub struct PodContext {
    pub orchestrator: Arc<dyn Orchestrator>,
    /// Receives the active leader, to publish it in Kubernetes.
    pub leader: watch::Sender<LeaderUpdate>,
    /// Time from SIGTERM to SIGKILL; the deletion of a pod may shorten it.
    pub grace: Duration,
}

impl MemberConfig {
    pub fn orchestrator(&self) -> Option<Arc<dyn Orchestrator>> {
        self.pod.as_ref().map(|pod| pod.orchestrator.clone())
    }

    /// The grace period of a shutdown that begins now.
    pub fn start_grace_period(&self, configured: Duration) -> GracePeriod {
        let never = || watch::channel(0).1;
        GracePeriod::start(configured, self.repeated_sigterm.clone().unwrap_or_else(never))
    }

    /// The ordinals that may know of a cluster, as far as the configuration names them.
    pub fn known_ordinals(&self) -> BTreeSet<Ordinal> {
        let founders = (0..self.founders).map(Ordinal);
        self.addresses.probe_candidates(self.ordinal).into_iter().chain(founders).collect()
    }

    /// The attributes that the member publishes to its cluster.
    pub fn attributes(&self, identity: &Identity) -> MemberAttributes {
        let peer = self.addresses.of(identity.ordinal);
        let peer = peer.unwrap_or_else(|| self.ports.peer.to_string());
        MemberAttributes {
            member: identity.member,
            ordinal: identity.ordinal,
            name: self.name.clone(),
            peer_urls: vec![format!("http://{peer}")],
            client_urls: self.client_urls.clone(),
            boot: identity.boot,
        }
    }
}
