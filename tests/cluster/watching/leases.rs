//! Holders of leases. Each takes a lease, attaches a key to it, renews it for a while, stops, and
//! waits until the key is gone. The lease must not end within its TTL, counted from the time at
//! which the last answered renewal was *sent*. It must end soon after its TTL, counted from the
//! last attempted renewal, or from the last kill or change of leader: a new leader restarts the TTL
//! of every lease.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ordinal::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    kv_client::KvClient, lease_client::LeaseClient,
};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    cluster::harness::Cluster,
    support::{WAIT_TIMEOUT, retry::promise, rng::Rng},
};

const LEASE_HOLDERS: usize = 8;
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
const CALL_TIMEOUT: Duration = Duration::from_secs(6);
const RETRY_DELAY: Duration = Duration::from_millis(30);
/// Allows for an election, a batch of expiries and a busy machine.
const LATE_MAX: Duration = Duration::from_secs(8);

/// Running holders.
pub struct Leases {
    stop: Arc<AtomicBool>,
    holders: Vec<JoinHandle<()>>,
    tally: Arc<Tally>,
}

/// Statistics of the leases.
#[derive(Debug)]
pub struct Tally {
    ended: AtomicU64,
    renewals: AtomicU64,
    /// The last time at which a member stopped or started, or a new leader was observed.
    disturbed: Mutex<Instant>,
    term: AtomicU64,
    latest: Mutex<Duration>,
}

impl Tally {
    /// A new leader restarts the TTL of all leases.
    fn note_term(&self, term: u64) {
        if self.term.fetch_max(term, Ordering::Relaxed) < term {
            *self.disturbed.lock().unwrap() = Instant::now();
        }
    }

    fn note_late(&self, late: Duration) {
        let mut latest = self.latest.lock().unwrap();
        *latest = late.max(*latest);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ended, renewals) = (&self.ended, &self.renewals);
        let (ended, renewals) = (ended.load(Ordering::Relaxed), renewals.load(Ordering::Relaxed));
        let latest = *self.latest.lock().unwrap();
        write!(
            f,
            "{ended} leases ended, {renewals} renewals, none early, {latest:.1?} late at most"
        )
    }
}

impl Leases {
    pub fn start(cluster: &Cluster, rng: &mut Rng) -> Leases {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally {
            ended: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            disturbed: Mutex::new(Instant::now()),
            term: AtomicU64::new(0),
            latest: Mutex::new(Duration::ZERO),
        });
        let start = |number: usize| {
            let channel = |endpoint: String| {
                let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).unwrap();
                endpoint.connect_timeout(DIAL_TIMEOUT).timeout(CALL_TIMEOUT).connect_lazy()
            };
            let members = cluster.members.iter().map(|m| channel(m.endpoint())).collect();
            let key = format!("l/{number}").into();
            let holder = LeaseHolder { members, key, rng: rng.split(), tally: tally.clone() };
            tokio::spawn(holder.run(stop.clone()))
        };
        Leases { holders: (0..LEASE_HOLDERS).map(start).collect(), stop, tally }
    }

    /// Leadership may change now or soon, and a new leader restarts the TTL of all leases.
    pub fn disturbed(&self) {
        *self.tally.disturbed.lock().unwrap() = Instant::now();
    }

    /// Waits until every lease has ended.
    pub async fn stop(self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for holder in self.holders {
            holder.await.expect("a holder failed an assertion");
        }
        self.tally
    }
}

struct LeaseHolder {
    members: Vec<Channel>,
    key: Bytes,
    rng: Rng,
    tally: Arc<Tally>,
}

/// A lease of this holder.
struct HeldLease {
    id: i64,
    ttl: Duration,
    /// When the last answered renewal was sent: the lease lives at least a TTL longer.
    renewed: Instant,
    /// When the last renewal with an unknown outcome ended.
    tried: Instant,
}

impl HeldLease {
    fn certainly_lives(&self) -> bool {
        Instant::now() < self.renewed + self.ttl
    }
}

impl LeaseHolder {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut held) = self.grant().await else {
                sleep(RETRY_DELAY).await;
                continue;
            };
            let put = self.attach_key(&held).await;
            for _ in 0..self.rng.below(6) {
                sleep(Duration::from_millis(self.rng.below(1200) as u64)).await;
                self.renew(&mut held).await;
            }
            self.check_remaining(&held).await;
            if put {
                self.wait_until_expired(&held).await;
            }
        }
    }

    fn member(&mut self) -> Channel {
        self.members[self.rng.below(self.members.len())].clone()
    }

    async fn grant(&mut self) -> Result<HeldLease, Status> {
        let ttl = 2 + self.rng.below(3) as i64;
        let sent = Instant::now();
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted = LeaseClient::new(self.member()).lease_grant(request).await?.into_inner();
        assert!(granted.ttl >= ttl && granted.id != 0, "{granted:?}");
        let ttl = Duration::from_secs(granted.ttl as u64);
        Ok(HeldLease { id: granted.id, ttl, renewed: sent, tried: Instant::now() })
    }

    /// Whether the key is certainly attached to the lease now.
    async fn attach_key(&mut self, held: &HeldLease) -> bool {
        let request = PutRequest { key: self.key.clone(), lease: held.id, ..Default::default() };
        match KvClient::new(self.member()).put(request).await {
            Ok(_) => true,
            Err(status) => {
                self.check_refusal(held, &status);
                false
            }
        }
    }

    async fn renew(&mut self, held: &mut HeldLease) {
        let sent = Instant::now();
        let renewed = timeout(CALL_TIMEOUT, self.keep_alive(held.id)).await;
        held.tried = Instant::now();
        match renewed {
            Ok(Ok(0)) => promise(|| assert!(!held.certainly_lives(), "refused, and yet it lives")),
            Ok(Ok(ttl)) => {
                assert_eq!(Duration::from_secs(ttl as u64), held.ttl);
                held.renewed = sent;
                self.tally.renewals.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn keep_alive(&mut self, id: i64) -> Result<i64, Status> {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let answers = LeaseClient::new(self.member()).lease_keep_alive(requests).await?;
        let answer = answers.into_inner().message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the stream ended"))?;
        assert_eq!(answer.id, id);
        Ok(answer.ttl)
    }

    /// The remaining TTL is at least the certain rest, and at most the whole TTL.
    async fn check_remaining(&mut self, held: &HeldLease) {
        let request = LeaseTimeToLiveRequest { id: held.id, keys: true };
        let answer = LeaseClient::new(self.member()).lease_time_to_live(request).await;
        let Ok(answer) = answer.map(tonic::Response::into_inner) else { return };
        if !held.certainly_lives() {
            return;
        }
        // Whole seconds, rounded down, minus the short time since.
        let least = (held.renewed + held.ttl).duration_since(Instant::now()).as_secs() as i64;
        let most = held.ttl.as_secs() as i64;
        assert!(least <= answer.ttl && answer.ttl <= most, "{answer:?}: {least} to {most}");
    }

    /// Waits until the key is gone.
    async fn wait_until_expired(&mut self, held: &HeldLease) {
        loop {
            let request = RangeRequest { key: self.key.clone(), ..Default::default() };
            let answer = KvClient::new(self.member()).range(request).await;
            let answer = answer.map(tonic::Response::into_inner);
            let now = Instant::now();
            let header = answer.as_ref().ok().and_then(|answer| answer.header.as_ref());
            self.tally.note_term(header.map_or(0, |header| header.raft_term));
            let since = held.tried.max(*self.tally.disturbed.lock().unwrap());
            let late = now.saturating_duration_since(since + held.ttl);
            // Without an answer there is nothing to check, but an answer must come in time.
            let Ok(answer) = answer else {
                assert!(late < WAIT_TIMEOUT, "no member answers");
                sleep(RETRY_DELAY).await;
                continue;
            };
            if answer.kvs.is_empty() {
                let left = (held.renewed + held.ttl).checked_duration_since(now);
                promise(|| assert!(left.is_none(), "the lease ended {left:?} early"));
                self.tally.ended.fetch_add(1, Ordering::Relaxed);
                return;
            }
            assert!(late < LATE_MAX, "the lease should have ended {late:?} ago");
            self.tally.note_late(late);
            sleep(RETRY_DELAY).await;
        }
    }

    /// A lease that has certainly not expired exists.
    fn check_refusal(&self, held: &HeldLease, status: &Status) {
        let gone = status.code() == Code::NotFound;
        promise(|| assert!(!(gone && held.certainly_lives()), "the lease ended early: {status}"));
    }
}
