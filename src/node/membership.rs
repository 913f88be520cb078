//! The port to change and show the members. `membership` implements it, and so do fakes in tests.

use std::{future::Future, time::Duration};

use super::port::NodeError;
use crate::types::{ClusterId, DesiredReplicas, MemberId, MemberRef, Term};

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Lets a member join at the ordinal with these addresses.
    Add {
        peer_urls: Vec<String>,
    },
    Remove(MemberId),
    Promote(MemberId),
    Update {
        member: MemberId,
        peer_urls: Vec<String>,
    },
    /// Makes this member the leader.
    MoveLeader(MemberId),
}

/// Why a change of the members failed. Most texts are etcd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: member not found")]
    NotFound,
    /// The ordinal has a member.
    #[error("etcdserver: Peer URLs already exists")]
    OrdinalTaken,
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    NotInSync,
    /// The change would leave too few voters, or too few that are in contact.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// The member is not a voter.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimedOut,
    /// The operator names another cluster than this one.
    #[error(
        "ordinal: cluster {0} is not this member's cluster: kvctl cluster shows the id, in hexadecimal"
    )]
    OtherCluster(ClusterId),
    /// The text names the right way.
    #[error("ordinal: {0}")]
    Refused(String),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// The state of the cluster, as one member knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterOverview {
    pub cluster: ClusterId,
    /// The answering member.
    pub answered_by: MemberId,
    /// The active leader, as in [`Status`](super::Status).
    pub leader: Option<MemberId>,
    pub term: Term,
    pub desired: Option<DesiredReplicas>,
    /// Whether the members follow the replicas of a StatefulSet, rather than commands.
    pub follows_pods: bool,
    /// Sorted by ordinal.
    pub members: Vec<MemberOverview>,
    /// On the active leader only.
    pub leading: Option<LeaderOverview>,
    pub local: LocalOverview,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOverview {
    pub member_ref: MemberRef,
    /// Empty: the member has not published it yet.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Number of starts of its volume.
    pub boot: u64,
    /// In the outgoing set; the same as `will_vote` unless voters are being changed.
    pub votes: bool,
    /// In the incoming set.
    pub will_vote: bool,
    /// Whether the member answered the leader lately; `None`: only the leader knows.
    pub in_contact: Option<bool>,
    /// Entries of the leader's log that the member is not known to hold; `None`: only the leader knows.
    pub lag: Option<u64>,
}

/// What only the leader knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderOverview {
    /// The condition that the next change of the membership waits for, as a text.
    pub waits_for: Option<String>,
    /// Number of voters that may fail before writes stop; `None`: too few are in contact already.
    pub tolerates: Option<u32>,
}

/// The answering member's own state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalOverview {
    /// The time of day, since 1970-01-01 UTC.
    pub now: Duration,
    /// The 99th percentile of the WAL's sync times; `None`: no sync yet.
    pub fsync_p99: Option<Duration>,
    /// The volume has no room for the next segment of the WAL.
    pub volume_full: bool,
}

/// Changes and shows the members, on any member. Cheap to clone.
pub trait MembershipPort: Clone + Send + Sync + 'static {
    /// Makes the change, through the leader, and returns the member that it concerned.
    fn change(
        &self,
        change: MemberChange,
    ) -> impl Future<Output = Result<MemberId, MembershipError>> + Send;

    fn overview(&self) -> ClusterOverview;

    /// Makes this member stop and continue alone at its next start, as a new cluster, whose id it
    /// returns. Refused while a majority is in contact, and while it may be alive unless the operator insists
    /// by naming this member's cluster.
    fn recover(
        &self,
        insisted: Option<ClusterId>,
    ) -> impl Future<Output = Result<ClusterId, MembershipError>> + Send;
}
