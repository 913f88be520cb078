//! Tenants of leases: each takes one, hangs a key on it, renews it for a while, stops, and watches the
//! clock until the key is gone. Not before its TTL is over, counted from when the last renewal that
//! was answered was *sent*; and not much after it, counted from the last one that was tried, or from
//! the last time a member was killed or another led: a new leader gives every lease its time anew.

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

use crate::{cluster::Cluster, dice::Dice, process::PATIENCE};

const TENANTS: usize = 8;
const DIAL: Duration = Duration::from_millis(500);
const CALL: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(30);
/// An election, a batch of expiries and a busy machine.
const LATE_MAX: Duration = Duration::from_secs(8);

/// Running tenants.
pub(super) struct Leases {
    stop: Arc<AtomicBool>,
    tenants: Vec<JoinHandle<()>>,
    tally: Arc<Tally>,
}

/// What became of the leases.
#[derive(Debug)]
pub(super) struct Tally {
    ended: AtomicU64,
    renewals: AtomicU64,
    /// When a member went or came last, or another was seen to lead.
    disturbed: Mutex<Instant>,
    term: AtomicU64,
    latest: Mutex<Duration>,
}

impl Tally {
    /// Whoever leads in a new term gives all leases their time anew.
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
    pub(super) fn start(cluster: &Cluster, dice: &mut Dice) -> Leases {
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
                endpoint.connect_timeout(DIAL).timeout(CALL).connect_lazy()
            };
            let members = cluster.members.iter().map(|m| channel(m.endpoint())).collect();
            let key = format!("l/{number}").into();
            let tenant = Tenant { members, key, dice: dice.split(), tally: tally.clone() };
            tokio::spawn(tenant.run(stop.clone()))
        };
        Leases { tenants: (0..TENANTS).map(start).collect(), stop, tally }
    }

    /// Whoever leads from now on, or from a little later, gives all leases their time anew.
    pub(super) fn disturbed(&self) {
        *self.tally.disturbed.lock().unwrap() = Instant::now();
    }

    /// Waits until every lease has ended.
    pub(super) async fn stop(self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for tenant in self.tenants {
            tenant.await.expect("a lease did what it must not");
        }
        self.tally
    }
}

struct Tenant {
    members: Vec<Channel>,
    key: Bytes,
    dice: Dice,
    tally: Arc<Tally>,
}

/// A lease that this tenant has.
struct Held {
    id: i64,
    ttl: Duration,
    /// When the last renewal that was answered was sent: it lives at least a TTL longer.
    renewed: Instant,
    /// When the last renewal that may have been done ended.
    tried: Instant,
}

impl Held {
    fn lives(&self) -> bool {
        Instant::now() < self.renewed + self.ttl
    }
}

impl Tenant {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut held) = self.grant().await else {
                sleep(PAUSE).await;
                continue;
            };
            let put = self.hang_key_on(&held).await;
            for _ in 0..self.dice.below(6) {
                sleep(Duration::from_millis(self.dice.below(1200) as u64)).await;
                self.renew(&mut held).await;
            }
            self.check_remaining(&held).await;
            if put {
                self.see_it_end(&held).await;
            }
        }
    }

    fn member(&mut self) -> Channel {
        self.members[self.dice.below(self.members.len())].clone()
    }

    async fn grant(&mut self) -> Result<Held, Status> {
        let ttl = 2 + self.dice.below(3) as i64;
        let sent = Instant::now();
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted = LeaseClient::new(self.member()).lease_grant(request).await?.into_inner();
        assert!(granted.ttl >= ttl && granted.id != 0, "{granted:?}");
        let ttl = Duration::from_secs(granted.ttl as u64);
        Ok(Held { id: granted.id, ttl, renewed: sent, tried: Instant::now() })
    }

    /// Whether the key hangs on the lease now, for certain.
    async fn hang_key_on(&mut self, held: &Held) -> bool {
        let request = PutRequest { key: self.key.clone(), lease: held.id, ..Default::default() };
        match KvClient::new(self.member()).put(request).await {
            Ok(_) => true,
            Err(status) => {
                self.check_refusal(held, &status);
                false
            }
        }
    }

    async fn renew(&mut self, held: &mut Held) {
        let sent = Instant::now();
        let renewed = timeout(CALL, self.keep_alive(held.id)).await;
        held.tried = Instant::now();
        match renewed {
            Ok(Ok(0)) => assert!(!held.lives(), "refused, and yet it lives"),
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

    /// It has at least as much left as it must have, and no more than its TTL.
    async fn check_remaining(&mut self, held: &Held) {
        let request = LeaseTimeToLiveRequest { id: held.id, keys: true };
        let answer = LeaseClient::new(self.member()).lease_time_to_live(request).await;
        let Ok(answer) = answer.map(tonic::Response::into_inner) else { return };
        if !held.lives() {
            return;
        }
        // Whole seconds, rounded down; less what passed since, which is little.
        let least = (held.renewed + held.ttl).duration_since(Instant::now()).as_secs() as i64;
        let most = held.ttl.as_secs() as i64;
        assert!(least <= answer.ttl && answer.ttl <= most, "{answer:?}: {least} to {most}");
    }

    /// Waits until the key is gone.
    async fn see_it_end(&mut self, held: &Held) {
        loop {
            let request = RangeRequest { key: self.key.clone(), ..Default::default() };
            let answer = KvClient::new(self.member()).range(request).await;
            let answer = answer.map(tonic::Response::into_inner);
            let now = Instant::now();
            let header = answer.as_ref().ok().and_then(|answer| answer.header.as_ref());
            self.tally.note_term(header.map_or(0, |header| header.raft_term));
            let since = held.tried.max(*self.tally.disturbed.lock().unwrap());
            let late = now.saturating_duration_since(since + held.ttl);
            // Without an answer there is nothing to judge, but there must be one some time.
            let Ok(answer) = answer else {
                assert!(late < PATIENCE, "nobody answers any more");
                sleep(PAUSE).await;
                continue;
            };
            if answer.kvs.is_empty() {
                let left = (held.renewed + held.ttl).checked_duration_since(now);
                assert!(left.is_none(), "the lease ended {left:?} early");
                self.tally.ended.fetch_add(1, Ordering::Relaxed);
                return;
            }
            assert!(late < LATE_MAX, "the lease should have ended {late:?} ago");
            self.tally.note_late(late);
            sleep(PAUSE).await;
        }
    }

    /// A lease that certainly lives is there.
    fn check_refusal(&self, held: &Held, status: &Status) {
        let gone = status.code() == Code::NotFound;
        assert!(!(gone && held.lives()), "the lease ended early: {status}");
    }
}
