//! The port by which services reach a member. `Node` implements it, and so do fakes in tests.

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

/// The fields of every response header.
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
pub struct RangeResult {
    pub revision: Revision,
    pub reply: RangeReply,
}

/// How long a lease lives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeToLive {
    /// Seconds after each renewal.
    pub granted: i64,
    /// Whole seconds from now.
    pub remaining: i64,
    /// The attached keys, in ascending order; empty unless requested.
    pub keys: Vec<Bytes>,
}

/// One member of the cluster, as `member list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    pub id: MemberId,
    pub ordinal: Ordinal,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub learner: bool,
}

/// The status of the answering member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The active leader: a quorum was in contact with it within one election timeout.
    pub leader: Option<MemberId>,
    pub term: Term,
    /// The last log index that this member holds.
    pub raft_index: u64,
    pub applied_index: u64,
    pub db_size_bytes: u64,
    pub db_size_in_use_bytes: u64,
    pub db_size_quota_bytes: u64,
    pub learner: bool,
    /// Further problems, as texts: those that `leader` and `alarms` do not show.
    pub errors: Vec<String>,
    /// Raised alarms, by member.
    pub alarms: Vec<(MemberId, AlarmKind)>,
}

/// A member. Cheap to clone; every method may be called concurrently.
pub trait NodePort: Clone + Send + Sync + 'static {
    /// The header of a response sent now.
    fn header(&self) -> Header;

    /// Replicates a command and returns the reply of the state machine. Forwards to the leader where
    /// needed; retries only a proposal that certainly was never appended.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Applied, NodeError>> + Send;

    /// Reads a range. Linearizable unless `serializable`, which reads the state that this member has
    /// applied.
    fn range(
        &self,
        range: Range,
        serializable: bool,
    ) -> impl Future<Output = Result<RangeResult, NodeError>> + Send;

    /// Evaluates a transaction that writes nothing, without going through the log.
    fn read_txn(
        &self,
        txn: Txn,
        serializable: bool,
    ) -> impl Future<Output = Result<(Revision, TxnReply), NodeError>> + Send;

    /// A hash over all keys that exist at `revision` (zero: now): `(hash, compact revision, revision)`.
    /// Equal on all members at equal compact revisions.
    fn hash_kv(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(u32, Revision, Revision), NodeError>> + Send;

    /// Waits until the index holds no record that a compaction up to `revision` removes.
    fn compaction_done(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send;

    /// Grants a lease, and returns its id with [`Reply::LeaseGrant`]. An id of zero is replaced by an
    /// unused one; a TTL that is shorter than a change of leader is raised.
    fn lease_grant(
        &self,
        id: LeaseId,
        ttl: i64,
    ) -> impl Future<Output = Result<(LeaseId, Applied), NodeError>> + Send;

    /// Renews a lease, and returns its TTL in seconds; `None`: the lease does not exist.
    fn lease_renew(
        &self,
        id: LeaseId,
    ) -> impl Future<Output = Result<Option<i64>, NodeError>> + Send;

    /// Linearizable. `None`: the lease does not exist.
    fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> impl Future<Output = Result<Option<TimeToLive>, NodeError>> + Send;

    /// The leases in this member's state, in ascending order. As in etcd not linearizable, and possible
    /// without a leader: a grant that another member has just acknowledged may be missing.
    fn leases(&self) -> impl Future<Output = Result<Vec<LeaseId>, NodeError>> + Send;

    /// All members, as of now if `linearizable`.
    fn members(
        &self,
        linearizable: bool,
    ) -> impl Future<Output = Result<Vec<MemberInfo>, NodeError>> + Send;

    fn status(&self) -> Status;

    /// Whether there is an active leader: the leader that [`NodePort::status`] names.
    fn has_leader(&self) -> bool;

    /// Waits until this member has applied `revision`, so that its answers are not older than those of
    /// the member that named the revision. [`NodeError::Timeout`] if that takes too long.
    fn caught_up(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send + 'static;

    /// Resolves when this member has had no active leader for so long that a client should try another
    /// member.
    fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static;
}
