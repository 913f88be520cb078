//! The commands of the store and what they answer: etcd's KV model in domain types.
//!
//! `proto::convert` is the only place that maps them from and to protobuf.

use bytes::Bytes;

use super::{LeaseId, MemberId, Ordinal, Revision, Term};

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// When the key was created (the first put after it did not exist).
    pub create_revision: Revision,
    /// When this version was written.
    pub mod_revision: Revision,
    /// 1 for the version that created the key, one more with each put.
    pub version: i64,
    pub lease: LeaseId,
}

/// Keys from `start` up to, and without, `end`.
///
/// etcd's wire form: an empty `range_end` is one key; `\0` alone is "all keys from `start` on".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// May be empty (`end <= start`): then it holds no key, which is no error.
    Span {
        start: Bytes,
        end: Bytes,
    },
    From(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// By key, ascending; etcd also sorts ascending when a target other than the key is named.
    #[default]
    None,
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// A read. Every bound of zero means "no bound".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub keys: KeyRange,
    /// At most so many; zero or less: all.
    pub limit: i64,
    /// Read the store as it was then; zero or less: as it is.
    pub revision: Revision,
    pub sort_order: SortOrder,
    pub sort_target: SortTarget,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: Revision,
    pub max_mod_revision: Revision,
    pub min_create_revision: Revision,
    pub max_create_revision: Revision,
}

impl Range {
    /// A plain read of these keys as they are now.
    pub fn of(keys: KeyRange) -> Range {
        Range {
            keys,
            limit: 0,
            revision: Revision::ZERO,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision::ZERO,
            max_mod_revision: Revision::ZERO,
            min_create_revision: Revision::ZERO,
            max_create_revision: Revision::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeReply {
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut the answer short.
    pub more: bool,
    /// How many keys are in the range, whatever the limit (and, as in etcd, whatever the
    /// min/max revision filters).
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: LeaseId,
    pub prev_kv: bool,
    /// Keep the value the key has; `value` must be empty. An error if the key does not exist.
    pub ignore_value: bool,
    /// Keep the lease the key has; `lease` must be zero. An error if the key does not exist.
    pub ignore_lease: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutReply {
    pub prev_kv: Option<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRange {
    pub keys: KeyRange,
    pub prev_kv: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeReply {
    pub deleted: i64,
    /// In key order; filled only when asked for.
    pub prev_kvs: Vec<KeyValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What is compared, and with what. A key that does not exist has version, create, mod and lease 0
/// and no value: a comparison of values with it is false, whatever the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

/// True when it holds for every key of the range. An empty range of more than one possible key is
/// compared as one key that does not exist, as etcd does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub keys: KeyRange,
    pub op: CompareOp,
    pub target: CompareTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOp {
    Range(Range),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Box<Txn>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<TxnOp>,
    pub failure: Vec<TxnOp>,
}

/// The answer of one operation, with the revision its header carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnReply {
    pub succeeded: bool,
    pub responses: Vec<OpReply>,
    /// The revision in the headers of the responses of a nested transaction.
    pub revision: Revision,
}

/// A lease as it is replicated. When it ends is the leader's affair alone: no clock is in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    pub id: LeaseId,
    /// Seconds it lives after each renewal.
    pub ttl: i64,
    /// Seconds it had left at its last checkpoint; zero: renewed since, so all of `ttl`.
    pub remaining: i64,
    /// Another one with every change of the lease, never used again, also not for another lease of
    /// the same id: what was decided on an older one is refused.
    pub epoch: u64,
}

impl Lease {
    /// Longer lives are refused, as in etcd: 285 years.
    pub const TTL_MAX: i64 = 9_000_000_000;

    /// Seconds it has at least when a leader takes over.
    pub fn left(&self) -> i64 {
        if self.remaining > 0 { self.remaining } else { self.ttl }
    }
}

/// A lease as it was when something was decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseAt {
    pub id: LeaseId,
    pub epoch: u64,
}

/// What a lease had left when its leader looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    pub lease: LeaseAt,
    /// Seconds, rounded up.
    pub remaining: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    NoSpace,
    Corrupt,
}

/// How many members there are to be, as whoever runs the pods says: ordinals from `start`, so many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Desired {
    /// Names the set of pods for its life. Another one begins anew.
    pub set: String,
    /// Of the set: it only grows, so an older wish is known as one.
    pub generation: u64,
    pub start: u32,
    pub replicas: u32,
}

impl Desired {
    pub fn wants(&self, ordinal: super::Ordinal) -> bool {
        ordinal.0 >= self.start && ordinal.0 - self.start < self.replicas
    }
}

/// What a member says of itself to all others; replicated state, not Raft metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberAttributes {
    pub member: MemberId,
    pub ordinal: Ordinal,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// How often its volume was started. Zero: it did not say.
    pub boot: u64,
}

/// What the log replicates. Applying one is deterministic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    /// Forget what only revisions before this one can see.
    Compact(Revision),
    /// A member says (again) who it is.
    Describe(MemberAttributes),
    /// Hands out a member id that was never used: the one answered. `ordinal` is where it will live;
    /// asked again with the same `nonce` it answers the same id.
    AssignMember {
        ordinal: Ordinal,
        nonce: u64,
    },
    /// Uses up an id that was assigned: it is let into the membership now, or never. Refused if it, or a
    /// higher one, was before.
    AdmitMember(MemberId),
    /// Says how many members there are to be.
    Desire(Desired),
    /// The proposer has chosen the id, and raised `ttl` (seconds) to the minimum.
    LeaseGrant {
        id: LeaseId,
        ttl: i64,
    },
    /// Ends a lease, and deletes the keys attached to it in one revision.
    LeaseRevoke(LeaseId),
    /// The leader of `term` saw these leases end: each is revoked, in a revision of its own. Refused
    /// in an entry of another term. A lease that has changed since is left alone.
    LeaseExpire {
        term: Term,
        leases: Vec<LeaseAt>,
    },
    /// What these leases have left, for the leader after this one. Refused in an entry of another
    /// term. A lease that has changed since is left alone.
    LeaseCheckpoint {
        term: Term,
        checkpoints: Vec<LeaseCheckpoint>,
    },
    /// These leases were renewed: their checkpoints are void, those on their way too. Refused in an
    /// entry of another term.
    LeaseRenew {
        term: Term,
        leases: Vec<LeaseId>,
    },
}

/// The answer to one command. `revision` is the store's revision after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Put {
        revision: Revision,
        reply: PutReply,
    },
    DeleteRange {
        revision: Revision,
        reply: DeleteRangeReply,
    },
    Txn {
        revision: Revision,
        reply: TxnReply,
    },
    Compact {
        revision: Revision,
    },
    Described,
    Assigned(MemberId),
    LeaseGrant {
        revision: Revision,
        ttl: i64,
    },
    LeaseRevoke {
        revision: Revision,
    },
    /// To expiry, checkpoints and renewals: what became of each lease, who follows the store was told.
    LeasesUpdated,
}

/// Why a command or read was refused. Deterministic: every member answers the same.
/// The texts are etcd's; clients match on them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Never an answer to a client.
    #[error("ordinal: a member id that was used before")]
    DeadMember,
    /// Never an answer to a client.
    #[error("ordinal: proposed by the leader of another term")]
    OtherTerm,
}
