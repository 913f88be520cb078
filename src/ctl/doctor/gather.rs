//! Asks every member how it is.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    client::{Client, ClientError, Endpoint, Timeouts},
    ctl::request::Connection,
    proto::{
        etcdserverpb::{AlarmMember, HashKvResponse, Member, StatusResponse},
        own::ClusterReply,
    },
};

/// A member that does not answer holds up the others so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Empty if nobody could tell.
    pub(super) members: Vec<Member>,
    /// Why there is no list that a majority stands for.
    pub(super) no_list: Option<ClientError>,
    pub(super) alarms: Vec<AlarmMember>,
    pub(super) seen: Vec<Seen>,
}

/// One member, or an endpoint that nobody lists.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Zero: it is not known who this is.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) endpoint: String,
    pub(super) status: Result<StatusResponse, ClientError>,
    /// `None`: it is an etcd, or does not answer.
    pub(super) cluster: Option<ClusterReply>,
    /// Its clock, and when that was told by ours: somewhere in the middle of so much time.
    pub(super) clock: Option<Clock>,
    /// At one revision, the same for all.
    pub(super) hash: Option<HashKvResponse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// Its time, less the time that had passed here: alike for all whose clocks agree.
    pub(super) offset_ms: i64,
    /// Which may be wrong by so much.
    pub(super) give_or_take_ms: i64,
}

pub(super) async fn facts(connection: &Connection) -> Facts {
    let Timeouts { dial, command } = connection.timeouts;
    let timeouts = Timeouts { dial: dial.min(PATIENCE), command: command.min(PATIENCE) };
    let client = Client::new(connection.endpoints.clone(), timeouts);
    let (listed, told, alarms) =
        tokio::join!(client.member_list(), client.cluster(), client.alarms());
    let (members, no_list) = match (listed, told) {
        (Ok(list), _) => (list.members, None),
        // Without a majority, one member's word is better than none.
        (Err(error), Ok(reply)) => {
            (reply.members.into_iter().map(as_listed).collect(), Some(error))
        }
        (Err(error), Err(_)) => (vec![], Some(error)),
    };
    let begun = Instant::now();
    let places = places(&members, &connection.endpoints);
    let asked = places.into_iter().map(|place| place.look(timeouts, begun));
    let mut seen = same_once(join_all(asked).await);
    hash(&mut seen, timeouts).await;
    let alarms = alarms.map(|answer| answer.alarms).unwrap_or_default();
    Facts { members, no_list, alarms, seen }
}

fn as_listed(member: crate::proto::own::ClusterMember) -> Member {
    Member {
        id: member.member_id,
        is_learner: !member.votes && !member.will_vote,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
    }
}

/// Whom to ask.
struct Place {
    id: u64,
    name: String,
    endpoint: Endpoint,
}

/// Each member where it says that it is; and the endpoints that were named, if none says so.
fn places(members: &[Member], endpoints: &[Endpoint]) -> Vec<Place> {
    let told = members.iter().filter_map(|member| {
        let endpoint = member.client_ur_ls.iter().find_map(|url| url.parse().ok())?;
        Some(Place { id: member.id, name: member.name.clone(), endpoint })
    });
    let told: Vec<Place> = told.collect();
    let address = |endpoint: &Endpoint| endpoint.to_string().replacen("http://", "", 1);
    let known: BTreeSet<String> = told.iter().map(|place| address(&place.endpoint)).collect();
    let others = endpoints.iter().filter(|endpoint| !known.contains(&address(endpoint)));
    let others = others.map(|e| Place { id: 0, name: String::new(), endpoint: e.clone() });
    let others: Vec<Place> = others.collect();
    told.into_iter().chain(others).collect()
}

impl Place {
    async fn look(self, timeouts: Timeouts, begun: Instant) -> Seen {
        let client = Client::new(vec![self.endpoint.clone()], timeouts);
        let status = client.status().await;
        let asked = begun.elapsed();
        let cluster = if status.is_ok() { client.cluster().await.ok() } else { None };
        let answered = begun.elapsed();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let told = cluster.as_ref().and_then(|reply| reply.answerer.as_ref());
        let clock = told.map(|told| Clock {
            offset_ms: told.unix_ms.cast_signed() - millis((asked + answered) / 2),
            give_or_take_ms: millis((answered - asked) / 2) + 1,
        });
        let id = status.as_ref().ok().and_then(|s| s.header).map_or(self.id, |h| h.member_id);
        let endpoint = self.endpoint.to_string();
        Seen { id, name: self.name, endpoint, status, cluster, clock, hash: None }
    }
}

/// A member that was found at several addresses counts once, where it is listed. An address that was
/// named and that no member answers at stays.
fn same_once(seen: Vec<Seen>) -> Vec<Seen> {
    let mut ids = BTreeSet::new();
    let once = seen.into_iter().filter(|one| one.status.is_err() || ids.insert(one.id));
    let once: Vec<Seen> = once.collect();
    // Found elsewhere, where it answers.
    let elsewhere = |one: &Seen| one.status.is_err() && one.id != 0 && ids.contains(&one.id);
    once.into_iter().filter(|one| !elsewhere(one)).collect()
}

/// Compares all at the newest revision that each of them has.
async fn hash(seen: &mut [Seen], timeouts: Timeouts) {
    let revision = |one: &Seen| Some(one.status.as_ref().ok()?.header?.revision);
    let Some(revision) = seen.iter().filter_map(revision).min().filter(|at| *at > 0) else {
        return;
    };
    let asked = seen.iter().map(async |one| {
        let endpoint = one.endpoint.parse().ok().filter(|_| one.status.is_ok())?;
        match Client::new(vec![endpoint], timeouts).hash_kv(revision).await {
            Ok(hash) => Some(hash),
            // Compacted meanwhile: another time.
            Err(error) if error.code() == Some(Code::OutOfRange) => None,
            Err(_) => None,
        }
    });
    let hashes = join_all(asked).await;
    seen.iter_mut().zip(hashes).for_each(|(one, hash)| one.hash = hash);
}
