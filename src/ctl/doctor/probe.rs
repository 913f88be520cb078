//! Calls every member of a cluster for its state.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    client::{Client, ClientError, Endpoint, Timeouts},
    ctl::context::ClientConfig,
    proto::{
        cluster_admin::ClusterReply,
        etcdserverpb::{AlarmMember, HashKvResponse, Member, StatusResponse},
    },
};

/// The longest time that one unreachable member delays the report.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of a cluster, as its members report it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Empty: no member has answered.
    pub members: Vec<Member>,
    /// Why the member list is not linearizable.
    pub member_list_error: Option<ClientError>,
    pub alarms: Vec<AlarmMember>,
    pub probes: Vec<Probe>,
}

/// The responses of one member, or of an endpoint that is not in the member list.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Zero: unknown.
    pub id: u64,
    pub name: String,
    pub endpoint: String,
    pub status: Result<StatusResponse, ClientError>,
    /// `None`: an etcd, or no answer.
    pub cluster: Option<ClusterReply>,
    pub clock: Option<Clock>,
    /// At one revision, the same for all members.
    pub hash: Option<HashKvResponse>,
}

/// A member's clock, compared with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Its time, less the time since the report began: equal for members whose clocks agree.
    pub offset_ms: i64,
    /// Half of the round trip.
    pub error_ms: i64,
}

pub async fn facts(config: &ClientConfig) -> Facts {
    let Timeouts { dial, command } = config.timeouts;
    let timeouts = Timeouts { dial: dial.min(PROBE_TIMEOUT), command: command.min(PROBE_TIMEOUT) };
    let client = Client::new(config.endpoints.clone(), timeouts);
    let (listed, cluster, alarms) =
        tokio::join!(client.member_list(), client.cluster(), client.alarms());
    let (members, member_list_error) = match (listed, cluster) {
        (Ok(list), _) => (list.members, None),
        // Without a quorum, the list of a single member is the best one.
        (Err(error), Ok(reply)) => {
            (reply.members.into_iter().map(as_listed).collect(), Some(error))
        }
        (Err(error), Err(_)) => (vec![], Some(error)),
    };
    let started = Instant::now();
    let targets = targets(&members, &config.endpoints);
    let probes = targets.into_iter().map(|target| target.probe(timeouts, started));
    let mut probes = without_duplicates(join_all(probes).await);
    add_hashes(&mut probes, timeouts).await;
    let alarms = alarms.map(|answer| answer.alarms).unwrap_or_default();
    Facts { members, member_list_error, alarms, probes }
}

fn as_listed(member: crate::proto::cluster_admin::ClusterMember) -> Member {
    Member {
        id: member.member_id,
        is_learner: !member.votes && !member.will_vote,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
    }
}

/// An endpoint to call.
struct ProbeTarget {
    id: u64,
    name: String,
    endpoint: Endpoint,
}

/// The first address of each listed member, and the given endpoints that no member lists.
fn targets(members: &[Member], endpoints: &[Endpoint]) -> Vec<ProbeTarget> {
    let listed = members.iter().filter_map(|member| {
        let endpoint = member.client_ur_ls.iter().find_map(|url| url.parse().ok())?;
        Some(ProbeTarget { id: member.id, name: member.name.clone(), endpoint })
    });
    let listed: Vec<ProbeTarget> = listed.collect();
    let address = |endpoint: &Endpoint| endpoint.to_string().replacen("http://", "", 1);
    let known: BTreeSet<String> = listed.iter().map(|target| address(&target.endpoint)).collect();
    let others = endpoints.iter().filter(|endpoint| !known.contains(&address(endpoint)));
    let others = others.map(|e| ProbeTarget { id: 0, name: String::new(), endpoint: e.clone() });
    let others: Vec<ProbeTarget> = others.collect();
    listed.into_iter().chain(others).collect()
}

impl ProbeTarget {
    async fn probe(self, timeouts: Timeouts, started: Instant) -> Probe {
        let client = Client::new(vec![self.endpoint.clone()], timeouts);
        let status = client.status().await;
        let sent = started.elapsed();
        let cluster = if status.is_ok() { client.cluster().await.ok() } else { None };
        let received = started.elapsed();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let answerer = cluster.as_ref().and_then(|reply| reply.answerer.as_ref());
        let clock = answerer.map(|answerer| Clock {
            offset_ms: answerer.unix_ms.cast_signed() - millis((sent + received) / 2),
            error_ms: millis((received - sent) / 2) + 1,
        });
        let id = status.as_ref().ok().and_then(|s| s.header).map_or(self.id, |h| h.member_id);
        let endpoint = self.endpoint.to_string();
        Probe { id, name: self.name, endpoint, status, cluster, clock, hash: None }
    }
}

/// Keeps one probe of a member that answers at several addresses: the listed one. An address without
/// an answer stays, unless its member answers at another one.
fn without_duplicates(probes: Vec<Probe>) -> Vec<Probe> {
    let mut ids = BTreeSet::new();
    let once = probes.into_iter().filter(|probe| probe.status.is_err() || ids.insert(probe.id));
    let once: Vec<Probe> = once.collect();
    let answers_elsewhere =
        |probe: &Probe| probe.status.is_err() && probe.id != 0 && ids.contains(&probe.id);
    once.into_iter().filter(|probe| !answers_elsewhere(probe)).collect()
}

/// Hashes all members at the newest revision that each of them has.
async fn add_hashes(probes: &mut [Probe], timeouts: Timeouts) {
    let revision = |probe: &Probe| Some(probe.status.as_ref().ok()?.header?.revision);
    let Some(revision) = probes.iter().filter_map(revision).min().filter(|at| *at > 0) else {
        return;
    };
    let hashes = probes.iter().map(async |probe| {
        let endpoint = probe.endpoint.parse().ok().filter(|_| probe.status.is_ok())?;
        // An error is no finding: the revision may be compacted meanwhile.
        Client::new(vec![endpoint], timeouts).hash_kv(revision).await.ok()
    });
    let hashes = join_all(hashes).await;
    probes.iter_mut().zip(hashes).for_each(|(probe, hash)| probe.hash = hash);
}
