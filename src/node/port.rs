//! What a member offers to the services above it. `Node` implements it; so can a test.

use std::future::Future;

use bytes::Bytes;

use crate::types::{
    AlarmKind, ClusterId, Command, CommandError, LeaseId, MemberId, Ordinal, Range, RangeReply,
    Reply, Revision, Term, Txn, TxnReply,
};

/// Why a request got no answer. The API layer maps each to etcd's code and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// A deterministic refusal by the state machine.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Nothing was appended: there is no leader to append it.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The outcome is *unknown*: the leader went away while it held the request.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// The outcome is *unknown*: no answer within the time limit.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// Nothing was appended: a bound on requests in flight is reached.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// Nothing was appended: larger than `--max-request-bytes`.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// Nothing was appended: this member is shutting down or not ready yet.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The member cannot read its own disk; it is about to stop.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
}

/// What every response header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub revision: Revision,
    pub term: Term,
}

/// An applied command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub term: Term,
    pub reply: Reply,
}

/// A read, and the revision of the store it was made at (the header's; not `Range::revision`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeAt {
    pub revision: Revision,
    pub reply: RangeReply,
}

/// How long a lease has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeToLive {
    /// Seconds after each renewal.
    pub granted: i64,
    /// Whole seconds from now.
    pub remaining: i64,
    /// What is attached to it, in ascending order; empty if nobody asked.
    pub keys: Vec<Bytes>,
}

/// One member of the cluster, as `member list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    pub id: MemberId,
    pub ordinal: Ordinal,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub learner: bool,
}

/// How this member is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    pub leader: Option<MemberId>,
    pub term: Term,
    /// The last log index that this member holds.
    pub raft_index: u64,
    pub applied_index: u64,
    pub db_size_bytes: u64,
    pub db_size_in_use_bytes: u64,
    pub db_size_quota_bytes: u64,
    pub learner: bool,
    /// What else is wrong, in words: beyond what `leader` and `alarms` say.
    pub errors: Vec<String>,
    /// Raised alarms, by member.
    pub alarms: Vec<(MemberId, AlarmKind)>,
}

/// A member. Cheap to clone; every method may be called concurrently.
pub trait NodePort: Clone + Send + Sync + 'static {
    /// The header of an answer given now.
    fn header(&self) -> Header;

    /// Replicates a command and answers what applying it answered. Forwards to the leader where
    /// needed; proposes again only what certainly was never appended.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Applied, NodeError>> + Send;

    /// Reads. Linearizable unless `serializable`, which reads what this member has applied.
    fn range(
        &self,
        range: Range,
        serializable: bool,
    ) -> impl Future<Output = Result<RangeAt, NodeError>> + Send;

    /// Evaluates a transaction that writes nothing, without going through the log.
    fn read_txn(
        &self,
        txn: Txn,
        serializable: bool,
    ) -> impl Future<Output = Result<(Revision, TxnReply), NodeError>> + Send;

    /// A hash over all that is alive at `revision` (zero: now): `(hash, compact revision, revision)`.
    /// Equal on all members at equal compact revisions.
    fn hash_kv(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(u32, Revision, Revision), NodeError>> + Send;

    /// Waits until nothing that a compaction up to `revision` made superfluous is indexed any more.
    fn compaction_done(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send;

    /// Grants a lease: a reply of [`Reply::LeaseGrant`]. An id of zero is replaced by one that nobody
    /// has; a TTL that is too short to be kept is raised. Answers the id with it.
    fn lease_grant(
        &self,
        id: LeaseId,
        ttl: i64,
    ) -> impl Future<Output = Result<(LeaseId, Applied), NodeError>> + Send;

    /// Renews a lease, and answers for how many seconds; `None`: there is no such lease.
    fn lease_renew(
        &self,
        id: LeaseId,
    ) -> impl Future<Output = Result<Option<i64>, NodeError>> + Send;

    /// Linearizable. `None`: there is no such lease.
    fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> impl Future<Output = Result<Option<TimeToLive>, NodeError>> + Send;

    /// All leases, in ascending order. Linearizable.
    fn leases(&self) -> impl Future<Output = Result<Vec<LeaseId>, NodeError>> + Send;

    /// All members, as of now if `linearizable`.
    fn members(
        &self,
        linearizable: bool,
    ) -> impl Future<Output = Result<Vec<Member>, NodeError>> + Send;

    fn status(&self) -> Status;

    /// Whether somebody leads, and a majority follows, as far as this member can know.
    fn has_leader(&self) -> bool;

    /// Waits until this member has applied `revision`: what another member has answered, it answers
    /// then, too. [`NodeError::Timeout`] if it does not in time.
    fn caught_up(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send + 'static;

    /// Resolves when this member has known no leader for so long that a client should look for
    /// another member.
    fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static;
}
