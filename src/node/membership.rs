//! What a member offers to whoever looks after the members. `membership` implements it; so can a test.

use std::{future::Future, time::Duration};

use super::NodeError;
use crate::types::{ClusterId, Desired, MemberId, PeerPlace, Term};

/// A command about members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A member may come to the place with these addresses.
    Add {
        peer_urls: Vec<String>,
    },
    Remove(MemberId),
    Promote(MemberId),
    Update {
        member: MemberId,
        peer_urls: Vec<String>,
    },
    /// This one shall lead.
    MoveLeader(MemberId),
}

/// Why a command about members was not carried out. Most texts are etcd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: member not found")]
    NotFound,
    /// There is a member at this place.
    #[error("etcdserver: Peer URLs already exists")]
    PlaceTaken,
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    NotInSync,
    /// Without it too few voters would be left, or would be there.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// It is no voter.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimedOut,
    /// The text says what to do instead.
    #[error("ordinal: {0}")]
    Refused(String),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// How the cluster is doing, as one member knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overview {
    pub cluster: ClusterId,
    /// Who answers.
    pub me: MemberId,
    pub leader: Option<MemberId>,
    pub term: Term,
    pub desired: Option<Desired>,
    /// Whether the number of members follows the pods of a StatefulSet, and not commands.
    pub follows_pods: bool,
    /// By ordinal.
    pub members: Vec<MemberOverview>,
    /// On the leader only.
    pub leading: Option<Leading>,
    pub own: OwnOverview,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOverview {
    pub place: PeerPlace,
    /// Empty: it has not said yet.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// How often its volume was started.
    pub boot: u64,
    /// In the outgoing set; the same as `will_vote` unless voters are being changed.
    pub votes: bool,
    /// In the incoming set.
    pub will_vote: bool,
    /// Whether it answered lately; `None`: only the leader knows.
    pub in_contact: Option<bool>,
    /// Entries of the leader's log that it is not known to hold; `None`: only the leader knows.
    pub lag: Option<u64>,
}

/// What only the leader knows of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leading {
    /// For what the next change of the membership waits, in words.
    pub waits_for: Option<String>,
    /// How many voters may go before writes stop; `None`: too few are in contact already.
    pub tolerates: Option<u32>,
}

/// The member that answers, of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnOverview {
    /// The time of day, since 1970-01-01 UTC.
    pub now: Duration,
    /// Ninety-nine of a hundred syncs of the log took no longer; `None`: there was none.
    pub fsync_p99: Option<Duration>,
    /// The volume has no room for the next file of the log.
    pub volume_full: bool,
}

/// What can be done about members, on any member. Cheap to clone.
pub trait MembershipPort: Clone + Send + Sync + 'static {
    /// Carries it out and answers which member it was about; the leader does, whoever is asked.
    fn change(
        &self,
        change: MemberChange,
    ) -> impl Future<Output = Result<MemberId, MembershipError>> + Send;

    fn overview(&self) -> Overview;

    /// Orders this member to stop and go on alone at its next start, as a new cluster: the one answered.
    /// Refused while a majority is there.
    fn recover(&self) -> impl Future<Output = Result<ClusterId, MembershipError>> + Send;
}
