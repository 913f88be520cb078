//! The commands of the log, and their replies.
//!
//! `proto::convert` is the only place that maps them from and to protobuf.

use super::{
    id::{LeaseId, MemberId, Ordinal, Revision, Term},
    kv::{DeleteRange, DeleteRangeReply, Put, PutReply, Txn, TxnReply},
    lease::{LeaseCheckpoint, LeaseRef},
    member::{DesiredReplicas, MemberAttributes},
};

/// A command in the log. Applying it is deterministic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    /// Discards versions that are visible only before this revision.
    Compact(Revision),
    /// A member describes itself, at each start and after a change.
    SetMemberAttributes(MemberAttributes),
    /// Assigns a member id that was never used, for a member at `ordinal`. The same `nonce` returns
    /// the same id.
    AssignMember {
        ordinal: Ordinal,
        nonce: u64,
    },
    /// Uses up an assigned id: the member may now be added to the membership. Refused if this or a
    /// higher id was admitted before.
    AdmitMember(MemberId),
    /// Records the replicas that the StatefulSet asks for.
    SetDesiredReplicas(DesiredReplicas),
    /// The proposer has chosen the id and raised `ttl` (seconds) to the minimum.
    LeaseGrant {
        id: LeaseId,
        ttl: i64,
    },
    /// Ends a lease, and deletes the keys attached to it in one revision.
    LeaseRevoke(LeaseId),
    /// Revokes leases that have expired at the leader of `term`, each in a revision of its own.
    /// Refused in an entry of another term. Skips leases that have changed since.
    LeaseExpire {
        term: Term,
        leases: Vec<LeaseRef>,
    },
    /// Records the remaining time of leases, for the next leader. Refused in an entry of another
    /// term. Skips leases that have changed since.
    LeaseCheckpoint {
        term: Term,
        checkpoints: Vec<LeaseCheckpoint>,
    },
    /// Renews leases: voids their checkpoints, including proposed ones. Refused in an entry of
    /// another term.
    LeaseRenew {
        term: Term,
        leases: Vec<LeaseId>,
    },
}

/// The reply to one command. `revision` is the store's revision after it.
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
    MembersUpdated,
    Assigned(MemberId),
    LeaseGrant {
        revision: Revision,
        ttl: i64,
    },
    LeaseRevoke {
        revision: Revision,
    },
    /// To expiry, checkpoints and renewals. Event sinks receive the change of each lease.
    LeasesUpdated,
}

/// Why a command or read was refused. Deterministic: every member gives the same reply.
/// The texts are etcd's, because clients match on them.
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
    /// Never sent to a client.
    #[error("ordinal: a member id that was used before")]
    MemberIdUsed,
    /// Never sent to a client.
    #[error("ordinal: proposed by the leader of another term")]
    StaleTerm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    NoSpace,
    Corrupt,
}
