//! Commands about members, on any member: `kvctl member …`, `kvctl move-leader`.
//!
//! ```text
//! asked member ── ByHand: checks what it can, finds the leader ──▶ Steward::handle_change
//! ```
//!
//! No command changes the membership behind the planner's back: a removal is a wish that the planner
//! carries out with all its care for majorities (hand over, one joint change, remove), and whoever
//! asked waits for it. So what is done by hand and what goes on by itself cannot undo each other.
//!
//! Where the number of members follows the pods of a StatefulSet, members are added and removed with
//! them, and commands say so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Fellows, Formation, Steward, door,
    planner::{self, Plan, Situation, Waiting, Why},
    steward::lock,
};
use crate::{
    clock::Clock,
    lane::Lanes,
    node::{MemberChange, MembershipError, MembershipPort, NodeError, NodePort, Overview},
    proto::peer::{
        AddAt, ChangeMembersReply, ChangeRefused, change_members_reply::Result as Wire,
        change_members_request::Change, change_refused::Kind,
    },
    raft::{Raft, RaftMembership},
    rng::Rng,
    types::{ClusterId, Command, CommandError, MemberAttributes, MemberId, Ordinal, PeerPlace},
};

/// Between two looks at what became of it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Beside an election timeout: what cannot be done for so long is refused. A new leader has to listen
/// for a while before it knows who is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// A change of leader takes milliseconds.
const HAND_OVER: Duration = Duration::from_secs(2);

const FOLLOWS_PODS: &str = "members follow the replicas of the StatefulSet: use kubectl scale";

/// Takes commands on one member, whoever leads.
#[derive(Debug)]
pub struct ByHand<N, P>(Arc<Inner<N, P>>);

#[derive(Debug)]
struct Inner<N, P> {
    raft: Raft,
    steward: Arc<Steward<N>>,
    peers: P,
    formation: Arc<Formation>,
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl<N, P> Clone for ByHand<N, P> {
    fn clone(&self) -> Self {
        ByHand(self.0.clone())
    }
}

impl<N: NodePort, P: Fellows + 'static> ByHand<N, P> {
    pub fn new(
        raft: Raft,
        steward: Arc<Steward<N>>,
        peers: P,
        (formation, lanes): (Arc<Formation>, Lanes),
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> ByHand<N, P> {
        ByHand(Arc::new(Inner { raft, steward, peers, formation, lanes, clock, rng }))
    }

    fn add(&self, peer_urls: Vec<String>) -> Result<Change, MembershipError> {
        let mut places = peer_urls.iter().map(|url| self.ordinal_at(url));
        let ordinal = places.next().ok_or(MembershipError::BadUrls)??;
        for other in places {
            if other? != ordinal {
                return Err(MembershipError::BadUrls);
            }
        }
        let nonce = self.0.rng.next_id();
        Ok(Change::Add(AddAt { ordinal: ordinal.0, nonce, peer_urls }))
    }

    fn ordinal_at(&self, url: &str) -> Result<Ordinal, MembershipError> {
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = address.ok_or(MembershipError::BadUrls)?.trim_end_matches('/');
        self.0.peers.ordinal_at(address).map_err(|known| {
            MembershipError::Refused(format!(
                "{address} is no ordinal's address: members are dialled at {known}. Start all of \
                 them with --peers or --peer-template that name it"
            ))
        })
    }

    /// Nobody dials what is only told: so nothing but what is so already is agreed to.
    async fn update(
        &self,
        member: MemberId,
        peer_urls: &[String],
    ) -> Result<MemberId, MembershipError> {
        let members = self.0.steward.node.members(true).await?;
        let found = members.into_iter().find(|m| m.id == member);
        let found = found.ok_or(MembershipError::NotFound)?;
        if found.peer_urls == peer_urls {
            return Ok(member);
        }
        Err(MembershipError::Refused(format!(
            "ordinal {} is dialled at {}, as --peers or --peer-template of every member says: change it \
             there, and restart them one after the other",
            found.ordinal,
            found.peer_urls.join(",")
        )))
    }

    /// Asks whoever leads, until somebody does.
    async fn ask_leader(&self, change: Change) -> Result<MemberId, MembershipError> {
        let Inner { raft, steward, peers, .. } = &*self.0;
        let deadline = Instant::now() + raft.timing().request_timeout();
        let no_leader = Instant::now() + raft.timing().leader_wait();
        let was_there = matches!(change, Change::Remove(id) if raft.membership().has(MemberId(id)));
        let mut tries = 0;
        loop {
            let now = raft.leadership();
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match now.leader {
                None => Err(NodeError::NoLeader.into()),
                Some(_) if now.is_mine() => steward.change(change.clone()).await,
                Some(leader) => match peers.change_members(leader, change.clone(), left).await {
                    Ok(reply) => from_wire(reply),
                    Err(e) => {
                        tracing::debug!(error = %e, "the leader did not answer");
                        Err(NodeError::LeaderChanged.into())
                    }
                },
            };
            tries += usize::from(now.leader.is_some());
            match answer {
                Err(MembershipError::NotLeader) if Instant::now() < deadline => {}
                Err(MembershipError::Node(NodeError::NoLeader)) if Instant::now() < no_leader => {}
                // The leader before had begun with it.
                Err(MembershipError::NotFound) if was_there && tries > 1 => {
                    return answer.or(match change {
                        Change::Remove(id) => Ok(MemberId(id)),
                        _ => Err(MembershipError::NotFound),
                    });
                }
                Err(MembershipError::NotLeader) => return Err(NodeError::Timeout.into()),
                answer => return answer,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl<N: NodePort, P: Fellows + 'static> MembershipPort for ByHand<N, P> {
    async fn change(&self, change: MemberChange) -> Result<MemberId, MembershipError> {
        let moves = matches!(change, MemberChange::MoveLeader(_));
        if self.0.steward.follows_pods() && !moves {
            return Err(MembershipError::Refused(FOLLOWS_PODS.into()));
        }
        let change = match change {
            MemberChange::Add { peer_urls } => self.add(peer_urls)?,
            MemberChange::Update { member, peer_urls } => {
                return self.update(member, &peer_urls).await;
            }
            MemberChange::Remove(member) => Change::Remove(member.0),
            MemberChange::Promote(member) => Change::Promote(member.0),
            MemberChange::MoveLeader(to) => Change::MoveLeader(to.0),
        };
        self.ask_leader(change).await
    }

    async fn recover(&self) -> Result<ClusterId, MembershipError> {
        let recent = self.0.raft.timing().election_timeout * 2;
        let led = self.0.raft.leadership().leader.is_some();
        if led && self.0.raft.quorum_age().is_some_and(|age| age < recent) {
            return Err(MembershipError::Refused(
                "a majority is there: there is nothing to recover from".into(),
            ));
        }
        let formation = self.0.formation.clone();
        let ordered = self.0.lanes.run("identity", move || formation.order_recovery()).await;
        match ordered {
            Ok(Some(Ok(Some(cluster)))) => Ok(cluster),
            Ok(Some(Ok(None))) => {
                Err(MembershipError::Refused("this volume is on its way already".into()))
            }
            Ok(Some(Err(e))) => Err(MembershipError::Refused(e.to_string())),
            Ok(None) | Err(_) => {
                Err(MembershipError::Refused("the order could not be kept".into()))
            }
        }
    }

    fn overview(&self) -> Overview {
        self.0.steward.overview(self.0.clock.now())
    }
}

/// Takes the mark off again: who is not gone by then stays.
struct Leaving<'a, N> {
    steward: &'a Steward<N>,
    member: MemberId,
}

impl<N> Drop for Leaving<'_, N> {
    fn drop(&mut self) {
        lock(&self.steward.told_to_leave).remove(&self.member);
    }
}

/// How long something has been in the way.
#[derive(Debug, Default)]
struct Blocked(Option<Instant>);

impl Blocked {
    /// Whether it has been so for `limit`, without a break.
    fn for_long(&mut self, is_blocked: bool, limit: Duration) -> bool {
        if !is_blocked {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= limit
    }
}

impl<N: NodePort> Steward<N> {
    /// Answers another member that was asked.
    pub async fn handle_change(&self, change: Change) -> ChangeMembersReply {
        to_wire(self.change(change).await)
    }

    /// As the leader: carries it out.
    async fn change(&self, change: Change) -> Result<MemberId, MembershipError> {
        if !self.raft.leadership().is_mine() {
            return Err(MembershipError::NotLeader);
        }
        let limit = self.raft.timing().request_timeout();
        let done = async {
            match change {
                Change::Add(add) => self.add(add).await,
                Change::Remove(member) => self.remove(MemberId(member)).await,
                Change::Promote(member) => self.promote(MemberId(member)).await,
                Change::MoveLeader(to) => self.move_leader(MemberId(to)).await,
            }
        };
        tokio::time::timeout(limit, done).await.unwrap_or(Err(NodeError::Timeout.into()))
    }

    /// Keeps a place for a volume that has not come yet. The id is of nobody: whoever comes gets one of
    /// its own and takes the place over, as from a member that lost its volume.
    async fn add(&self, add: AddAt) -> Result<MemberId, MembershipError> {
        let ordinal = Ordinal(add.ordinal);
        if self.raft.members().iter().any(|m| m.place.ordinal == ordinal) {
            return Err(MembershipError::PlaceTaken);
        }
        let member = self.admit(ordinal, add.nonce).await?;
        let place = PeerPlace { member, ordinal };
        if !door::add(place, &self.raft).await {
            return Err(MembershipError::NotLeader);
        }
        let peer_urls = add.peer_urls;
        let attributes = MemberAttributes { member, ordinal, peer_urls, ..Default::default() };
        self.node.propose(Command::Describe(attributes)).await?;
        tracing::info!(%member, %ordinal, "added by hand: whoever starts with this ordinal joins");
        Ok(member)
    }

    async fn admit(&self, ordinal: Ordinal, nonce: u64) -> Result<MemberId, MembershipError> {
        let mut nonce = nonce;
        loop {
            let member = door::assign(ordinal, nonce, &self.node).await?;
            match self.node.propose(Command::AdmitMember(member)).await {
                Ok(_) => return Ok(member),
                // Another one was faster, with a higher id.
                Err(NodeError::Command(CommandError::DeadMember)) => {
                    nonce = nonce.wrapping_add(1);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Marks it, and waits until the planner has let it go.
    async fn remove(&self, member: MemberId) -> Result<MemberId, MembershipError> {
        if !self.raft.membership().has(member) {
            return Err(MembershipError::NotFound);
        }
        lock(&self.told_to_leave).insert(member);
        let _leaving = Leaving { steward: self, member };
        let mut blocked = Blocked::default();
        loop {
            let (newest, committed) = (self.raft.membership(), self.raft.committed_membership());
            if !committed.has(member) && !newest.has(member) {
                tracing::info!(%member, "removed by hand");
                return Ok(member);
            }
            // Perhaps by handing over: the next leader goes on.
            if !self.raft.leadership().is_mine() {
                return Err(MembershipError::NotLeader);
            }
            let plan = planner::plan(&self.situation());
            let waits =
                matches!(&plan, Plan::Wait(Waiting { why, .. }) if *why != Why::Uncommitted);
            if blocked.for_long(waits || plan == Plan::Settled, self.patience()) {
                return Err(MembershipError::NotEnoughStarted);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Learners get their vote by themselves: waits for it, or says why there is none.
    async fn promote(&self, member: MemberId) -> Result<MemberId, MembershipError> {
        let membership = self.raft.membership();
        if !membership.has(member) {
            return Err(MembershipError::NotFound);
        }
        if membership.is_voter(member) {
            return Err(MembershipError::NotLearner);
        }
        let mut blocked = Blocked::default();
        loop {
            let committed = self.raft.committed_membership();
            if committed.voters.iter().all(|set| set.contains(&member)) {
                return Ok(member);
            }
            if !self.raft.leadership().is_mine() {
                return Err(MembershipError::NotLeader);
            }
            let situation = self.situation();
            let plan = planner::plan(&situation);
            let uncommitted = !situation.committed || matches!(plan, Plan::Do(_));
            if blocked.for_long(!uncommitted, self.patience()) {
                return Err(not_promoted(member, &plan, &situation));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn move_leader(&self, to: MemberId) -> Result<MemberId, MembershipError> {
        if !votes(&self.raft.membership(), to) {
            return Err(MembershipError::BadTransferee);
        }
        if self.raft.leadership().me != to {
            self.raft.hand_over_to(to, HAND_OVER).await;
        }
        match self.raft.leadership().leader {
            Some(leader) if leader.member == to => Ok(to),
            _ => Err(MembershipError::TransferTimedOut),
        }
    }

    fn patience(&self) -> Duration {
        PATIENCE + self.raft.timing().election_timeout
    }
}

fn votes(membership: &RaftMembership, member: MemberId) -> bool {
    membership.voters.iter().all(|set| set.contains(&member))
}

/// Why a learner has no vote, though nothing is under way.
fn not_promoted(member: MemberId, plan: &Plan, situation: &Situation) -> MembershipError {
    let learner = situation.members.iter().find(|m| m.place.member == member);
    match learner {
        None => return MembershipError::NotFound,
        Some(learner) if !(learner.in_contact && learner.caught_up) => {
            return MembershipError::NotInSync;
        }
        Some(_) => {}
    }
    let voters = situation.members.iter().filter(|m| m.new_voter).count();
    if voters >= situation.max_voters as usize {
        return MembershipError::Refused(format!(
            "{voters} members vote, as many as --max-voters allows: it gets the vote of one that is \
             lost or removed, and serves reads and watches meanwhile"
        ));
    }
    if matches!(plan, Plan::Wait(waiting) if waiting.why == Why::PresentVoters) {
        return MembershipError::NotEnoughStarted;
    }
    MembershipError::Refused(format!(
        "{} voters would tolerate no more losses than {voters}: it votes as soon as there is one \
         member more, or a voter is lost or removed, and serves reads and watches meanwhile",
        voters + 1
    ))
}

fn to_wire(done: Result<MemberId, MembershipError>) -> ChangeMembersReply {
    let refused = |kind: Kind, why: String| Wire::Refused(ChangeRefused { kind: kind.into(), why });
    let result = match done {
        Ok(member) => Wire::MemberId(member.0),
        Err(e) => {
            let kind = match &e {
                MembershipError::NotLeader => Kind::NotLeader,
                MembershipError::NotFound => Kind::NotFound,
                MembershipError::PlaceTaken => Kind::PlaceTaken,
                MembershipError::NotLearner => Kind::NotLearner,
                MembershipError::NotInSync => Kind::NotInSync,
                MembershipError::NotEnoughStarted => Kind::NotEnoughStarted,
                MembershipError::BadTransferee => Kind::BadTransferee,
                MembershipError::TransferTimedOut => Kind::TransferTimedOut,
                MembershipError::Refused(why) => {
                    return ChangeMembersReply { result: Some(refused(Kind::Other, why.clone())) };
                }
                MembershipError::BadUrls => Kind::Other,
                MembershipError::Node(_) => Kind::Unknown,
            };
            refused(kind, e.to_string())
        }
    };
    ChangeMembersReply { result: Some(result) }
}

fn from_wire(reply: ChangeMembersReply) -> Result<MemberId, MembershipError> {
    let refused = match reply.result {
        Some(Wire::MemberId(member)) => return Ok(MemberId(member)),
        Some(Wire::Refused(refused)) => refused,
        None => return Err(NodeError::LeaderChanged.into()),
    };
    Err(match refused.kind() {
        Kind::Unknown => NodeError::Timeout.into(),
        Kind::NotLeader => MembershipError::NotLeader,
        Kind::NotFound => MembershipError::NotFound,
        Kind::PlaceTaken => MembershipError::PlaceTaken,
        Kind::NotLearner => MembershipError::NotLearner,
        Kind::NotInSync => MembershipError::NotInSync,
        Kind::NotEnoughStarted => MembershipError::NotEnoughStarted,
        Kind::BadTransferee => MembershipError::BadTransferee,
        Kind::TransferTimedOut => MembershipError::TransferTimedOut,
        Kind::Other => MembershipError::Refused(refused.why),
    })
}
