//! `Node`: the handle by which the services above reach one member.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use tracing::field::Empty;

use super::{
    admission::Admission,
    leases::{LeaseCounters, LeaseQuery, LeaseQueryAnswer, LeaseQueryKind, LeaseServer, Lessor},
    metrics::NodeMetrics,
    port::{Applied, Header, MemberInfo, NodeError, NodePort, RangeResult, Status, TimeToLive},
    proposals::Proposal,
    read_pool::{ReadPool, ReadPoolError},
    reads::{LinearizableRead, ReadIndexRequest},
};
use crate::{
    fault::Fault,
    lane::Lanes,
    metrics::Histogram,
    proto::convert,
    raft::{Raft, RaftMember},
    rng::Rng,
    state::{ReadError, ReadProgress, StorageError, View},
    types::{AlarmKind, ClusterId, Command, LeaseId, MemberId, Range, Revision, Txn, TxnReply},
};

/// Limit of the wait for a compaction: reads in progress may delay it this long, and no longer.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// Writes that would bring the live bytes to this number are refused.
    pub quota_bytes: u64,
    pub max_request_bytes: usize,
    pub lanes: Lanes,
    /// Source of lease ids.
    pub rng: Arc<dyn Rng>,
    /// An event sink of the state of `raft`.
    pub lessor: Arc<Lessor>,
}

/// One member. Cheap to clone; all clones are the same member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub options: NodeOptions,
    pub raft: Raft,
    pub view: View,
    pub fault: Fault,
    pub admission: Admission,
    pub proposals: mpsc::UnboundedSender<Proposal>,
    pub linearizable_reads: mpsc::UnboundedSender<LinearizableRead>,
    pub lease_server: LeaseServer,
    pub lease_queries: mpsc::UnboundedSender<LeaseQuery>,
    pub lease_query_permits: Arc<Semaphore>,
    pub read_pool: ReadPool,
    pub metrics: Arc<NodeMetrics>,
    pub leader_lost: watch::Receiver<bool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Node {
    /// [`Node::start`] makes a node with its tasks.
    pub(super) fn new(inner: Inner) -> Node {
        Node { inner: Arc::new(inner) }
    }

    pub fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// Lease events that this member has counted.
    pub fn lease_counters(&self) -> LeaseCounters {
        self.inner.options.lessor.counters(&self.inner.view)
    }

    /// The TTLs of all leases that were granted.
    pub fn lease_ttls(&self) -> &Histogram {
        self.inner.options.lessor.ttls()
    }

    pub fn metrics(&self) -> &NodeMetrics {
        &self.inner.metrics
    }

    /// Commands of this member's clients that are in flight.
    pub fn pending_proposals(&self) -> usize {
        self.inner.admission.inflight_commands()
    }

    pub(super) fn read_index_requests(&self) -> &mpsc::UnboundedSender<ReadIndexRequest> {
        &self.inner.lease_server.leader_batcher
    }

    pub(super) fn lease_server(&self) -> &LeaseServer {
        &self.inner.lease_server
    }

    /// Sends a lease query to the leader.
    async fn query_lease(
        &self,
        lease: LeaseId,
        kind: LeaseQueryKind,
    ) -> Result<LeaseQueryAnswer, NodeError> {
        let inner = &self.inner;
        let permit = inner.lease_query_permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| NodeError::Stopped)?;
        let deadline = Instant::now() + inner.raft.timing().request_timeout();
        let (reply, answer) = oneshot::channel();
        let query = LeaseQuery { lease, kind, deadline, reply, permit };
        inner.lease_queries.send(query).map_err(|_| NodeError::Stopped)?;
        // No timeout here: the query batcher observes the deadline.
        answer.await.unwrap_or(Err(NodeError::Stopped))
    }

    /// The reason why this member takes no writes now, if there is one.
    pub fn refuses_writes(&self) -> Option<NodeError> {
        if self.inner.fault.is_stopped() {
            return Some(NodeError::Stopped);
        }
        self.inner.raft.is_write_buffer_full().then_some(NodeError::TooManyRequests)
    }

    /// Waits until everything acknowledged before now is applied here.
    async fn linearize(&self) -> Result<(), NodeError> {
        let (tx, rx) = oneshot::channel();
        self.inner.linearizable_reads.send(tx).map_err(|_| NodeError::Stopped)?;
        let limit = self.inner.raft.timing().request_timeout();
        match tokio::time::timeout(limit, rx).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(NodeError::Stopped),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// Runs a read that may block on a read lane.
    async fn read_on_lane<R: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, NodeError> {
        self.inner.read_pool.run(read).await.map_err(|error| match error {
            ReadPoolError::Refused(refused) => refused,
            ReadPoolError::Failed(error) => self.read_failed(error),
        })
    }

    async fn read_range(&self, range: Range) -> Result<RangeResult, NodeError> {
        let read = self.inner.view.range(range)?;
        let read = match read.in_memory().map_err(|e| self.storage_failed(&e))? {
            ReadProgress::Done(revision, reply) => return Ok(RangeResult { revision, reply }),
            ReadProgress::Unfinished(read) => read,
        };
        let (revision, reply) = self.read_on_lane(move |_| Ok(read.finish()?)).await?;
        Ok(RangeResult { revision, reply })
    }

    fn read_failed(&self, error: ReadError) -> NodeError {
        match error {
            ReadError::Refused(refusal) => NodeError::Command(refusal),
            ReadError::Storage(e) => self.storage_failed(&e),
        }
    }

    /// Damage on disk stops the member.
    fn storage_failed(&self, error: &StorageError) -> NodeError {
        self.inner.fault.stop(error);
        NodeError::Corrupt
    }
}

/// A random positive id, as in etcd; a client may choose any id but zero.
fn random_lease(rng: &dyn Rng) -> LeaseId {
    loop {
        let id = LeaseId((rng.next_u64() >> 1).cast_signed());
        if id != LeaseId::default() {
            return id;
        }
    }
}

/// A lease should outlive a change of leader, during which it cannot be renewed: one and a half
/// election timeouts, in whole seconds, as in etcd.
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
        let inner = &self.inner;
        inner.admission.check_space(&command, &inner.raft)?;
        let command = convert::encode_commands([command]);
        let bytes = command.len();
        let permits = inner.admission.admit(bytes)?;
        let deadline = Instant::now() + inner.raft.timing().request_timeout();
        let (reply, answer) = oneshot::channel();
        let span = tracing::debug_span!("propose", bytes, term = Empty, index = Empty);
        let proposal = Proposal { command, deadline, reply, permits, span: span.clone() };
        inner.proposals.send(proposal).map_err(|_| NodeError::Stopped)?;
        let answer = match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The task that held the proposal is gone; it may have sent the proposal.
            Ok(Err(_)) => Err(NodeError::LeaderChanged),
            Err(_) => Err(NodeError::Timeout),
        };
        if !matches!(answer, Ok(_) | Err(NodeError::Command(_))) {
            inner.metrics.proposals_failed.increment();
        }
        answer
    }

    async fn range(&self, range: Range, serializable: bool) -> Result<RangeResult, NodeError> {
        if !serializable {
            self.linearize().await?;
        }
        let begun = Instant::now();
        let read = self.read_range(range).await;
        let metrics = &self.inner.metrics;
        metrics.ranges.increment();
        let histogram =
            if read.is_ok() { &metrics.range_duration } else { &metrics.failed_range_duration };
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
            None => self.read_on_lane(move |view| view.read_txn(&txn)).await,
        }
    }

    async fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision, Revision), NodeError> {
        let begun = Instant::now();
        let hash = self.read_on_lane(move |view| view.hash_kv(revision)).await?;
        self.inner.metrics.hash_duration.observe(begun.elapsed());
        Ok((hash.hash, hash.compacted, hash.revision))
    }

    async fn compaction_done(&self, revision: Revision) -> Result<(), NodeError> {
        let pruned = self.inner.raft.wait_pruned(revision);
        match tokio::time::timeout(COMPACTION_TIMEOUT, pruned).await {
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
        Ok(self.query_lease(id, LeaseQueryKind::Renew).await?.seconds)
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<Option<TimeToLive>, NodeError> {
        let LeaseQueryAnswer { seconds, index } =
            self.query_lease(id, LeaseQueryKind::TimeToLive).await?;
        let Some(remaining) = seconds else { return Ok(None) };
        let applied = self.inner.raft.wait_applied(index);
        match tokio::time::timeout(self.inner.raft.timing().request_timeout(), applied).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(NodeError::Stopped),
            Err(_) => return Err(NodeError::Timeout),
        }
        // A lease may have a million keys, too many to collect on an async worker.
        let found = if keys {
            self.read_on_lane(move |view| Ok(view.lease_with_keys(id))).await?
        } else {
            self.inner.view.lease(id).map(|lease| (lease, Vec::new()))
        };
        Ok(found.map(|(lease, keys)| TimeToLive { granted: lease.ttl, remaining, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, NodeError> {
        let leases = self.read_on_lane(|view| Ok(view.leases())).await?;
        Ok(leases.into_iter().map(|lease| lease.id).collect())
    }

    async fn members(&self, linearizable: bool) -> Result<Vec<MemberInfo>, NodeError> {
        if linearizable {
            self.linearize().await?;
        }
        let described = self.inner.view.roster();
        let member = |m: RaftMember| {
            let attributes =
                described.members.get(&m.member_ref.member).cloned().unwrap_or_default();
            MemberInfo {
                id: m.member_ref.member,
                ordinal: m.member_ref.ordinal,
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
        let now = inner.raft.active_leadership();
        let size = inner.view.size();
        let learner = inner
            .raft
            .members()
            .iter()
            .any(|m| m.member_ref.member == inner.options.member && !m.voter);
        let mut alarms = Vec::new();
        if inner.admission.is_out_of_space(&inner.raft) {
            alarms.push((inner.options.member, AlarmKind::NoSpace));
        }
        Status {
            leader: now.leader.map(|l| l.member),
            term: now.term,
            raft_index: inner.raft.last_index().unwrap_or(0),
            applied_index: inner.view.applied().map_or(0, |p| p.index),
            db_size_bytes: size.total_bytes,
            db_size_in_use_bytes: size.live_bytes,
            db_size_quota_bytes: inner.admission.quota_bytes(),
            learner,
            errors: Vec::new(),
            alarms,
        }
    }

    fn has_leader(&self) -> bool {
        self.inner.raft.active_leadership().leader.is_some()
    }

    fn caught_up(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send + 'static {
        let raft = self.inner.raft.clone();
        async move {
            let limit = raft.timing().request_timeout();
            match tokio::time::timeout(limit, raft.wait_revision(revision)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(NodeError::Stopped),
                Err(_) => Err(NodeError::Timeout),
            }
        }
    }

    fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.inner.leader_lost.clone();
        async move {
            // A loss that began before this call does not count: first wait for a leader.
            let back = lost.wait_for(|lost| !lost).await.is_ok();
            if !back || lost.wait_for(|lost| *lost).await.is_err() {
                // The node has stopped, which means nothing for the leader.
                std::future::pending::<()>().await;
            }
        }
    }
}
