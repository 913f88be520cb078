//! A running member: owns the tasks that bring requests to the leader, and answers its services.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use tracing::field::Empty;

use super::{
    forward::{self, LeaderLink},
    leader,
    leases::{self, LeaderSide, LeaseCounters, Lessor, Query, Want},
    metrics::NodeMetrics,
    port::{Applied, Header, Member, NodeError, NodePort, RangeAt, Status, TimeToLive},
    proposals::{self, Proposal, Ways},
    reads::{self, Confirm, Read},
};
use crate::{
    fault::Fault,
    lane::{Lane, Lanes},
    metrics::Histogram,
    proto::convert,
    raft::{Raft, SLOW},
    rng::Rng,
    state::{Attempt, ReadError, StorageError, View, reads_only},
    stop::Stop,
    types::{
        AlarmKind, ClusterId, Command, CommandError, LeaseId, MemberId, Range, Revision, Txn,
        TxnReply,
    },
};

/// Commands in flight from this member, at most (etcd: 5000 entries between commit and apply).
const INFLIGHT_COMMANDS: usize = 5000;
/// Their bytes, at most.
const INFLIGHT_BYTES: usize = 64 << 20;
/// One unit of the bytes' semaphore.
const SHARE_BYTES: usize = 1 << 10;
/// Lanes for reads that need the disk or take long.
const READ_LANES: usize = 2;
/// Reads waiting for such a lane, at most.
const WAITING_READS: usize = 1024;

/// Renewals of leases, and questions about them, that wait; beyond, who asks waits to ask.
const WAITING_LEASES: usize = 16_384;

/// What a node is made from.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// Writes are refused beyond so many live bytes.
    pub quota_bytes: u64,
    pub max_request_bytes: usize,
    pub lanes: Lanes,
    /// For the ids of leases.
    pub rng: Arc<dyn Rng>,
    /// Follows the state of `raft`.
    pub lessor: Arc<Lessor>,
}

/// Cheap to clone; all clones are the same member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    options: NodeOptions,
    raft: Raft,
    view: View,
    fault: Fault,
    proposals: mpsc::UnboundedSender<Proposal>,
    reads: mpsc::UnboundedSender<Read>,
    leader_side: LeaderSide,
    lease_queries: mpsc::UnboundedSender<Query>,
    disk_reads: ReadLanes,
    commands: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting_reads: Arc<Semaphore>,
    waiting_leases: Arc<Semaphore>,
    metrics: Arc<NodeMetrics>,
    leader_lost: watch::Receiver<bool>,
}

/// A read for a lane. It answers by itself.
type DiskRead = Box<dyn FnOnce() + Send>;
/// The ways to the lanes. Emptied at the end: a connection that outlives its server holds a node.
type ReadLanes = Arc<RwLock<Vec<mpsc::UnboundedSender<DiskRead>>>>;

/// What [`Node::start`] made and somebody must join.
#[derive(Debug)]
pub struct NodeTasks {
    tasks: Vec<JoinHandle<()>>,
    lanes: Vec<Lane>,
    disk_reads: ReadLanes,
    stop: Stop,
}

impl NodeTasks {
    /// Ends them: waiting requests get [`NodeError::Stopped`], those under way their answer if it
    /// comes soon.
    pub async fn stop(self) {
        self.stop.stop();
        for task in self.tasks {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "a task of the node ended badly");
            }
        }
        self.disk_reads.write().unwrap_or_else(PoisonError::into_inner).clear();
        for lane in self.lanes {
            lane.join().await;
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Node {
    pub fn start<L: LeaderLink>(
        options: NodeOptions,
        raft: Raft,
        link: L,
        fault: Fault,
    ) -> std::io::Result<(Node, NodeTasks)> {
        let stop = Stop::default();
        let stopping = stop.stopping();
        let (forward_tx, forward_rx) = mpsc::unbounded_channel();
        let (proposals, proposals_rx) = mpsc::unbounded_channel();
        let (reads, reads_rx) = mpsc::unbounded_channel();
        let (confirmations, confirm_rx) = mpsc::unbounded_channel();
        let metrics = Arc::<NodeMetrics>::default();
        let ways = Ways { raft: raft.clone(), forward: forward_tx.clone() };
        let (lease_queries, queries_rx) = mpsc::unbounded_channel();
        let lessor = options.lessor.clone();
        let leader_side = LeaderSide { raft: raft.clone(), confirm: confirmations.clone(), lessor };
        let leadership = raft.watch_leadership();
        let (lost, leader_lost) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(leader::watch(raft.clone(), lost, stopping.clone())),
            tokio::spawn(forward::run(link, forward_rx, leadership, stopping.clone())),
            tokio::spawn(proposals::run(ways, proposals_rx, stopping.clone())),
            tokio::spawn(reads::confirm(raft.clone(), confirm_rx, stopping.clone())),
            tokio::spawn(leases::expire(
                raft.clone(),
                leader_side.lessor.clone(),
                stopping.clone(),
            )),
            tokio::spawn(leases::ask(
                leader_side.clone(),
                forward_tx.clone(),
                queries_rx,
                stopping.clone(),
            )),
            tokio::spawn(reads::index(
                reads::Ways {
                    raft: raft.clone(),
                    confirm: confirmations,
                    forward: forward_tx,
                    metrics: metrics.clone(),
                },
                reads_rx,
                stopping,
            )),
        ];
        let mut lanes = Vec::new();
        let mut disk_reads = Vec::new();
        for i in 0..READ_LANES {
            let (tx, rx) = mpsc::unbounded_channel::<DiskRead>();
            let run = |work: &mut Vec<DiskRead>| work.drain(..).for_each(|read| read());
            lanes.push(options.lanes.start(&format!("read-{i}"), rx, run)?);
            disk_reads.push(tx);
        }
        let disk_reads = Arc::new(RwLock::new(disk_reads));
        let inner = Inner {
            view: raft.view().clone(),
            options,
            raft,
            fault,
            proposals,
            reads,
            leader_side,
            lease_queries,
            disk_reads: disk_reads.clone(),
            commands: Arc::new(Semaphore::new(INFLIGHT_COMMANDS)),
            bytes: Arc::new(Semaphore::new(INFLIGHT_BYTES / SHARE_BYTES)),
            waiting_reads: Arc::new(Semaphore::new(WAITING_READS)),
            waiting_leases: Arc::new(Semaphore::new(WAITING_LEASES)),
            metrics,
            leader_lost,
        };
        let tasks = NodeTasks { tasks, lanes, disk_reads, stop };
        Ok((Node { inner: Arc::new(inner) }, tasks))
    }

    pub fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// What this member has seen of leases.
    pub fn lease_counters(&self) -> LeaseCounters {
        self.inner.options.lessor.counters(&self.inner.view)
    }

    /// How long the leases live that were granted.
    pub fn lease_ttls(&self) -> &Histogram {
        self.inner.options.lessor.ttls()
    }

    pub fn metrics(&self) -> &NodeMetrics {
        &self.inner.metrics
    }

    /// Commands of this member's clients that are under way.
    pub fn pending_proposals(&self) -> usize {
        INFLIGHT_COMMANDS - self.inner.commands.available_permits()
    }

    pub(super) fn confirmations(&self) -> &mpsc::UnboundedSender<Confirm> {
        &self.inner.leader_side.confirm
    }

    pub(super) fn leader_side(&self) -> &LeaderSide {
        &self.inner.leader_side
    }

    /// Asks the leader.
    async fn ask_of_lease(&self, lease: LeaseId, want: Want) -> Result<leases::Answer, NodeError> {
        let inner = &self.inner;
        let share = inner.waiting_leases.clone().acquire_owned().await;
        let share = share.map_err(|_| NodeError::Stopped)?;
        let deadline = Instant::now() + inner.raft.timing().request_timeout();
        let (reply, answer) = oneshot::channel();
        let query = Query { lease, want, deadline, reply, share };
        inner.lease_queries.send(query).map_err(|_| NodeError::Stopped)?;
        // Answered in any case: the rounds keep to their own time limit.
        answer.await.unwrap_or(Err(NodeError::Stopped))
    }

    /// Why this member takes no writes now, if so.
    pub fn refuses_writes(&self) -> Option<NodeError> {
        if self.inner.fault.is_stopped() {
            return Some(NodeError::Stopped);
        }
        self.inner.raft.is_full().then_some(NodeError::TooManyRequests)
    }

    fn over_quota(&self) -> bool {
        self.inner.view.size().live_bytes > self.inner.options.quota_bytes
    }

    /// Waits until everything acknowledged before now is applied here.
    async fn linearize(&self) -> Result<(), NodeError> {
        let (tx, rx) = oneshot::channel();
        self.inner.reads.send(tx).map_err(|_| NodeError::Stopped)?;
        let limit = self.inner.raft.timing().request_timeout();
        match tokio::time::timeout(limit, rx).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(NodeError::Stopped),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// Runs a read that may block, on a lane.
    async fn on_lane<R: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, NodeError> {
        let Ok(waiting) = self.inner.waiting_reads.clone().try_acquire_owned() else {
            return Err(NodeError::TooManyRequests);
        };
        let lane = self.inner.waiting_reads.available_permits() % READ_LANES;
        let (tx, rx) = oneshot::channel();
        let node = self.clone();
        let work: DiskRead = Box::new(move || {
            // It counts until it is done, also for a caller who has given up; but is not done for him.
            let _waiting = waiting;
            if !tx.is_closed() {
                let begun = Instant::now();
                let read = read(&node.inner.view);
                node.note_slow_read(begun.elapsed());
                let _ = tx.send(read);
            }
        });
        let sent = {
            let lanes = self.inner.disk_reads.read().unwrap_or_else(PoisonError::into_inner);
            lanes.get(lane).is_some_and(|lane| lane.send(work).is_ok())
        };
        if !sent {
            return Err(NodeError::Stopped);
        }
        match rx.await {
            Ok(result) => result.map_err(|e| self.read_failed(e)),
            Err(_) => Err(NodeError::Stopped),
        }
    }

    fn note_slow_read(&self, took: Duration) {
        if took > SLOW {
            self.inner.metrics.slow_reads.increment();
            let at = self.inner.view.applied().unwrap_or_default();
            let revision = self.inner.view.revision().0;
            tracing::warn!(
                term = at.term.0,
                index = at.index,
                revision,
                ?took,
                "a read took too long"
            );
        }
    }

    async fn read_range(&self, range: Range) -> Result<RangeAt, NodeError> {
        let read = self.inner.view.range(range)?;
        let read = match read.in_memory().map_err(|e| self.storage_failed(&e))? {
            Attempt::Done(revision, reply) => return Ok(RangeAt { revision, reply }),
            Attempt::Unfinished(read) => read,
        };
        let (revision, reply) = self.on_lane(move |_| Ok(read.finish()?)).await?;
        Ok(RangeAt { revision, reply })
    }

    fn read_failed(&self, error: ReadError) -> NodeError {
        match error {
            ReadError::Refused(refusal) => NodeError::Command(refusal),
            ReadError::Storage(e) => self.storage_failed(&e),
        }
    }

    /// A disk that lies stops the member.
    fn storage_failed(&self, error: &StorageError) -> NodeError {
        self.inner.fault.stop(error);
        NodeError::Corrupt
    }
}

/// Whether a command needs room. Deletes and compactions make room.
fn needs_room(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => !reads_only(txn),
        _ => false,
    }
}

/// Only positive ids are chosen, as in etcd; a client may choose any.
fn random_lease(rng: &dyn Rng) -> LeaseId {
    loop {
        let id = LeaseId((rng.next_u64() >> 1).cast_signed());
        if id != LeaseId::default() {
            return id;
        }
    }
}

/// A lease should outlive a change of leader, in which nobody can renew it: one and a half election
/// timeouts, in whole seconds, as in etcd.
fn shortest_lease(election_timeout: Duration) -> i64 {
    let whole = (election_timeout * 3 / 2).as_millis().div_ceil(1000);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

impl NodePort for Node {
    fn header(&self) -> Header {
        Header {
            cluster: self.inner.options.cluster,
            member: self.inner.options.member,
            revision: self.inner.view.revision(),
            term: self.inner.raft.leadership().term,
        }
    }

    async fn propose(&self, command: Command) -> Result<Applied, NodeError> {
        if let Some(refused) = self.refuses_writes() {
            return Err(refused);
        }
        if needs_room(&command) && (self.over_quota() || self.inner.raft.log_is_short()) {
            return Err(NodeError::Command(CommandError::NoSpace));
        }
        let command = convert::encode_commands([command]);
        if command.len() > self.inner.options.max_request_bytes {
            return Err(NodeError::RequestTooLarge);
        }
        let shares = u32::try_from(command.len() / SHARE_BYTES + 1).unwrap_or(u32::MAX);
        let inner = &self.inner;
        let Ok(slot) = inner.commands.clone().try_acquire_owned() else {
            return Err(NodeError::TooManyRequests);
        };
        let Ok(share) = inner.bytes.clone().try_acquire_many_owned(shares) else {
            return Err(NodeError::TooManyRequests);
        };
        let deadline = Instant::now() + inner.raft.timing().request_timeout();
        let (reply, answer) = oneshot::channel();
        let bytes = command.len();
        let span = tracing::debug_span!("propose", bytes, term = Empty, index = Empty);
        let proposal =
            Proposal { command, deadline, reply, share: (slot, share), span: span.clone() };
        inner.proposals.send(proposal).map_err(|_| NodeError::Stopped)?;
        let answer = match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The task that held it is gone: it may have been sent.
            Ok(Err(_)) => Err(NodeError::LeaderChanged),
            Err(_) => Err(NodeError::Timeout),
        };
        if !matches!(answer, Ok(_) | Err(NodeError::Command(_))) {
            inner.metrics.proposals_failed.increment();
        }
        answer
    }

    async fn range(&self, range: Range, serializable: bool) -> Result<RangeAt, NodeError> {
        if !serializable {
            self.linearize().await?;
        }
        let begun = Instant::now();
        let read = self.read_range(range).await;
        let metrics = &self.inner.metrics;
        metrics.ranges.increment();
        let histogram = if read.is_ok() { &metrics.range } else { &metrics.range_failed };
        histogram.observe(begun.elapsed());
        read
    }

    async fn read_txn(
        &self,
        txn: Txn,
        serializable: bool,
    ) -> Result<(Revision, TxnReply), NodeError> {
        if !serializable {
            self.linearize().await?;
        }
        self.inner.metrics.count_txn(&txn);
        let view = &self.inner.view;
        match view.read_txn_in_memory(&txn).map_err(|e| self.read_failed(e))? {
            Some(done) => Ok(done),
            None => self.on_lane(move |view| view.read_txn(&txn)).await,
        }
    }

    async fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision, Revision), NodeError> {
        let begun = Instant::now();
        let hash = self.on_lane(move |view| view.hash_kv(revision)).await?;
        self.inner.metrics.hash.observe(begun.elapsed());
        Ok((hash.hash, hash.compacted, hash.revision))
    }

    async fn compaction_done(&self, revision: Revision) -> Result<(), NodeError> {
        let pruned = self.inner.raft.pruned_at_least(revision);
        // As long as a read under way may hold it up, and no longer.
        match tokio::time::timeout(Duration::from_secs(60), pruned).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NodeError::Stopped),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<(LeaseId, Applied), NodeError> {
        let id = if id == LeaseId::default() { random_lease(&*self.inner.options.rng) } else { id };
        let ttl = ttl.max(shortest_lease(self.inner.raft.timing().election_timeout));
        Ok((id, self.propose(Command::LeaseGrant { id, ttl }).await?))
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<Option<i64>, NodeError> {
        Ok(self.ask_of_lease(id, Want::Renewal).await?.seconds)
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<Option<TimeToLive>, NodeError> {
        let leases::Answer { seconds, index } = self.ask_of_lease(id, Want::Remaining).await?;
        let Some(remaining) = seconds else { return Ok(None) };
        let applied = self.inner.raft.applied_at_least(index);
        match tokio::time::timeout(self.inner.raft.timing().request_timeout(), applied).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(NodeError::Stopped),
            Err(_) => return Err(NodeError::Timeout),
        }
        // There may be a million keys: not on this thread.
        let found = if keys {
            self.on_lane(move |view| Ok(view.lease_with_keys(id))).await?
        } else {
            self.inner.view.lease(id).map(|lease| (lease, Vec::new()))
        };
        Ok(found.map(|(lease, keys)| TimeToLive { granted: lease.ttl, remaining, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, NodeError> {
        self.linearize().await?;
        let leases = self.on_lane(|view| Ok(view.leases())).await?;
        Ok(leases.into_iter().map(|lease| lease.id).collect())
    }

    async fn members(&self, linearizable: bool) -> Result<Vec<Member>, NodeError> {
        if linearizable {
            self.linearize().await?;
        }
        let described = self.inner.view.roster();
        let member = |m: crate::raft::RaftMember| {
            let attributes = described.members.get(&m.place.member).cloned().unwrap_or_default();
            Member {
                id: m.place.member,
                ordinal: m.place.ordinal,
                name: attributes.name,
                peer_urls: attributes.peer_urls,
                client_urls: attributes.client_urls,
                learner: !m.voter,
            }
        };
        Ok(self.inner.raft.members().into_iter().map(member).collect())
    }

    fn status(&self) -> Status {
        let inner = &self.inner;
        let now = inner.raft.leadership();
        let size = inner.view.size();
        let learner =
            inner.raft.members().iter().any(|m| m.place.member == inner.options.member && !m.voter);
        let mut alarms = Vec::new();
        if self.over_quota() {
            alarms.push((inner.options.member, AlarmKind::NoSpace));
        }
        Status {
            leader: now.leader.map(|l| l.member),
            term: now.term,
            raft_index: inner.raft.last_index().unwrap_or(0),
            applied_index: inner.view.applied().map_or(0, |p| p.index),
            db_size_bytes: size.total_bytes,
            db_size_in_use_bytes: size.live_bytes,
            db_size_quota_bytes: inner.options.quota_bytes,
            learner,
            errors: Vec::new(),
            alarms,
        }
    }

    fn has_leader(&self) -> bool {
        leader::is_there(&self.inner.raft)
    }

    fn caught_up(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send + 'static {
        let raft = self.inner.raft.clone();
        async move {
            let limit = raft.timing().request_timeout();
            match tokio::time::timeout(limit, raft.revision_at_least(revision)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(NodeError::Stopped),
                Err(_) => Err(NodeError::Timeout),
            }
        }
    }

    fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.inner.leader_lost.clone();
        async move {
            // A leader that has just come back is not lost again.
            let back = lost.wait_for(|lost| !lost).await.is_ok();
            if !back || lost.wait_for(|lost| *lost).await.is_err() {
                // The node has stopped, which says nothing of the leader.
                std::future::pending::<()>().await;
            }
        }
    }
}
