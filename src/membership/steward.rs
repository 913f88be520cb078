//! Carries out what the planner decides, where this member leads.
//!
//! Three things go on beside each other, each bounded by itself: what is wanted is asked of Kubernetes
//! and replicated; the plan is made and its one step taken; a claim that was lost is written again. Every
//! step is guarded by the membership that it was decided on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    Claim, Claimed, Intent, LeaderNews, News, Orchestrator,
    planner::{self, Member, Plan, Situation, Step, Waiting, Why},
};
use crate::{
    node::NodePort,
    raft::{Raft, RaftMembership},
    stop::Stopping,
    types::{ClusterId, Command, MemberId, Ordinal, PeerPlace, Term},
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A learner this close behind the log keeps up with it.
const NEAR_ENTRIES: u64 = 256;
/// It must have been so for this many looks in a row.
const STABLE_LOOKS: u32 = 3;
/// A step that is not committed within this is looked at anew.
const STEP_LIMIT: Duration = Duration::from_secs(5);
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between two questions to Kubernetes how many pods there are to be.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Every so many questions, the claim is looked at too.
const CLAIM_EVERY: u32 = 5;
/// A voter that was let go counts as gone for so long, if it is not seen to be back.
const GONE: Duration = Duration::from_secs(30);
/// A new leader listens for so many election timeouts before it lets a voter go.
const LISTEN_TIMEOUTS: u32 = 2;
/// What is waited for so long is said to people.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// Members that were told that they may stop, how often they had started then, and when.
type LetGo = BTreeMap<MemberId, (u64, Instant)>;

/// How one member tends to the membership.
pub struct Steward<N> {
    pub(super) raft: Raft,
    pub(super) node: N,
    pub(super) cluster: ClusterId,
    pub(super) max_voters: u32,
    orchestrator: Option<Arc<dyn Orchestrator>>,
    looks: Mutex<BTreeMap<MemberId, u32>>,
    let_go: Mutex<LetGo>,
    /// Since when this member leads.
    leads_since: Mutex<Option<(Term, Instant)>>,
    /// Who is being removed by hand, for as long as somebody waits for it.
    pub(super) told_to_leave: Mutex<BTreeSet<MemberId>>,
    plan: watch::Sender<Plan>,
}

impl<N> fmt::Debug for Steward<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steward").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why a voter should not stop yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayStop {
    Yes,
    NotLeader,
    Wait(String),
}

impl<N: NodePort> Steward<N> {
    pub fn new(
        raft: Raft,
        node: N,
        cluster: ClusterId,
        max_voters: u32,
        orchestrator: Option<Arc<dyn Orchestrator>>,
    ) -> Steward<N> {
        Steward {
            raft,
            node,
            cluster,
            max_voters,
            orchestrator,
            looks: Mutex::default(),
            let_go: Mutex::default(),
            leads_since: Mutex::default(),
            plan: watch::Sender::new(Plan::Settled),
            told_to_leave: Mutex::default(),
        }
    }

    /// What the planner decided last, on the leader.
    pub fn plan(&self) -> Plan {
        self.plan.borrow().clone()
    }

    /// Whether the number of members is decided by who runs the pods: not by hand, then.
    pub fn follows_pods(&self) -> bool {
        self.orchestrator.is_some()
    }

    /// What the leader knows; also for whoever shows it. Counts as a look.
    pub fn situation(&self) -> Situation {
        self.looked(&self.raft.membership())
    }

    fn looked(&self, membership: &RaftMembership) -> Situation {
        let me = self.raft.leadership().me;
        let timeout = self.raft.timing().election_timeout;
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.raft.progress();
        let let_go = self.let_go();
        let looks = lock(&self.looks);
        let told_to_leave = lock(&self.told_to_leave);
        let members = membership.members.iter().map(|member| {
            let id = member.place.member;
            let progress = progress.iter().find(|p| p.member == id);
            let near = progress
                .and_then(|p| p.matched)
                .is_some_and(|at| at.saturating_add(NEAR_ENTRIES) >= last);
            let silent = progress.and_then(|p| p.silent_for);
            let stable = looks.get(&id).is_some_and(|&n| n >= STABLE_LOOKS);
            Member {
                place: member.place,
                old_voter: membership.voters.first().is_some_and(|set| set.contains(&id)),
                new_voter: membership.voters.last().is_some_and(|set| set.contains(&id)),
                in_contact: id == me || silent.is_some_and(|silent| silent < timeout),
                // Who was told that it may stop is about to be gone: nobody is to depend on it.
                caught_up: id == me || (near && stable && !let_go.contains(&id)),
                told_to_leave: told_to_leave.contains(&id),
            }
        });
        let members = members.collect();
        let followed = self.orchestrator.is_some();
        Situation {
            me,
            members,
            committed: self.raft.committed_membership().at == membership.at,
            desired: self.raft.view().roster().desired.clone().filter(|_| followed),
            max_voters: self.max_voters,
        }
    }

    /// Counts for how many looks in a row each member has been near the end of the log.
    fn count_looks(&self, membership: &RaftMembership) {
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.raft.progress();
        let mut looks = lock(&self.looks);
        looks.retain(|id, _| membership.has(*id));
        for member in &membership.members {
            let progress = progress.iter().find(|p| p.member == member.place.member);
            let near = progress
                .and_then(|p| p.matched)
                .is_some_and(|at| at.saturating_add(NEAR_ENTRIES) >= last);
            let count = looks.entry(member.place.member).or_default();
            *count = if near { count.saturating_add(1) } else { 0 };
        }
    }

    /// Plans, and takes one step after the other. Ends when `stopping` says so.
    pub async fn run(&self, mut stopping: Stopping) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Patience::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.wait() => return,
            }
            if !self.raft.leadership().is_mine() {
                lock(&self.looks).clear();
                self.plan.send_if_modified(|plan| {
                    std::mem::replace(plan, Plan::Settled) != Plan::Settled
                });
                waiting = Patience::default();
                continue;
            }
            self.leads_for();
            let membership = self.raft.membership();
            self.count_looks(&membership);
            let situation = self.looked(&membership);
            // Without a word of who runs the pods nobody knows who is wanted.
            if self.orchestrator.is_some() && situation.desired.is_none() {
                continue;
            }
            let plan = self.let_leavers_finish(planner::plan(&situation), &situation);
            self.plan.send_replace(plan.clone());
            match plan {
                Plan::Settled => waiting = Patience::default(),
                Plan::Wait(why) => {
                    waiting.wait(why.to_string(), |why| self.say(News::of_set("Waiting", why)));
                }
                Plan::Do(step) => {
                    waiting = Patience::default();
                    tokio::select! {
                        () = stopping.wait() => return,
                        () = self.take(&step, &membership) => {}
                    }
                }
            }
        }
    }

    /// Whoever is removed gets no more of the log, so what it was asked it could not answer. It is waited
    /// for until it says that it is done, or is gone: its pod may not even have been told to stop yet.
    fn let_leavers_finish(&self, plan: Plan, situation: &Situation) -> Plan {
        let Plan::Do(Step::Remove(going)) = plan else { return plan };
        let done = self.let_go();
        let leavers = situation.members.iter().filter(|m| going.contains(&m.place.member));
        let (may_go, stay): (Vec<&Member>, Vec<&Member>) = leavers
            .partition(|m| done.contains(&m.place.member) || m.told_to_leave || !m.in_contact);
        if may_go.is_empty() {
            let for_members = stay.iter().map(|m| m.place).collect();
            let others = situation.members.iter().filter(|m| !going.contains(&m.place.member));
            let beside = Situation { members: others.copied().collect(), ..situation.clone() };
            // Whatever else is waited for is of more interest.
            return match planner::plan(&beside) {
                Plan::Settled => Plan::Wait(Waiting { for_members, why: Why::Leavers }),
                plan => plan,
            };
        }
        Plan::Do(Step::Remove(may_go.iter().map(|m| m.place.member).collect()))
    }

    /// One step. Without a quorum it might take for ever: after a while everything is looked at anew.
    async fn take(&self, step: &Step, membership: &RaftMembership) {
        let what = describe(step, membership);
        tracing::info!("changing the membership: {what}");
        let raft = &self.raft;
        let taken = async {
            match step.clone() {
                Step::FinishJoint => raft.finish_change(membership).await,
                Step::ChangeVoters { add, remove } => {
                    raft.change_voters(add, remove, membership).await
                }
                Step::Remove(members) => raft.remove_learners(members, membership).await,
                Step::HandOver { to } => {
                    raft.hand_over_to(to, HAND_OVER).await;
                    Ok(())
                }
            }
        };
        match tokio::time::timeout(STEP_LIMIT, taken).await {
            Ok(Ok(())) => self.tell(step, membership),
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "the membership was not changed: {what}");
            }
            Err(_) => tracing::warn!("the change is not committed yet: {what}"),
        }
    }

    fn tell(&self, step: &Step, membership: &RaftMembership) {
        let reason = match step {
            Step::ChangeVoters { remove, .. } if remove.is_empty() => "Joined",
            Step::ChangeVoters { add, .. } if add.is_empty() => "Left",
            Step::ChangeVoters { .. } => "Replaced",
            Step::Remove(_) => "Left",
            Step::FinishJoint | Step::HandOver { .. } => return,
        };
        self.say(News::of_set(reason, describe(step, membership)));
    }

    fn say(&self, news: News) {
        if let Some(pods) = &self.orchestrator {
            pods.say(news);
        }
    }

    /// As the leader: asks who runs the pods how many there are to be, and lets all members know.
    pub async fn follow_pods(&self, mut stopping: Stopping) {
        let Some(pods) = &self.orchestrator else { return };
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked = 0;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.wait() => return,
            }
            if !self.raft.leadership().is_mine() {
                continue;
            }
            asked += 1;
            tokio::select! {
                () = stopping.wait() => return,
                () = self.ask(&**pods) => {}
            }
            if asked % CLAIM_EVERY == 1 {
                tokio::select! {
                    () = stopping.wait() => return,
                    () = self.keep_claim(&**pods) => {}
                }
            }
        }
    }

    async fn ask(&self, pods: &dyn Orchestrator) {
        match pods.intent().await {
            Ok(Intent::Scale(desired)) => self.desire(desired).await,
            // All stop, and nobody leaves.
            Ok(Intent::Hibernate) => {}
            Err(e) => tracing::debug!(error = %e, "the membership stays as it is"),
        }
    }

    /// Lets all members know how many there are to be.
    pub(super) async fn desire(&self, desired: crate::types::Desired) {
        if self.raft.view().roster().desired.as_ref() == Some(&desired) {
            return;
        }
        if let Err(e) = self.node.propose(Command::Desire(desired)).await {
            tracing::debug!(error = %e, "what is wanted is not replicated yet");
        }
    }

    /// A claim that somebody emptied would let another cluster be founded.
    async fn keep_claim(&self, pods: &dyn Orchestrator) {
        let ours = Claim::Formed { cluster: self.cluster };
        match pods.claim().await {
            Ok(Some(Claimed { claim, .. })) if claim == ours => {}
            Ok(Some(Claimed { claim: Claim::Formed { cluster }, .. })) => {
                let message =
                    format!("the claim names cluster {cluster}, but {} lives", self.cluster);
                tracing::error!("{message}");
                pods.say(News { of_set: true, ..News::warning("Refused", message) });
            }
            Ok(Some(Claimed { version, .. })) => match pods.write_claim(ours, &version).await {
                Ok(true) => tracing::warn!("the claim was lost, and is written again"),
                Ok(false) => {}
                Err(e) => tracing::debug!(error = %e, "the claim is not written again yet"),
            },
            Ok(None) => {}
            Err(e) => tracing::debug!(error = %e, "the claim cannot be looked at"),
        }
    }

    /// How long this member has led, as far as anybody asked.
    fn leads_for(&self) -> Duration {
        let now = self.raft.leadership();
        let mut since = lock(&self.leads_since);
        if !now.is_mine() {
            *since = None;
            return Duration::ZERO;
        }
        match *since {
            Some((term, at)) if term == now.term => at.elapsed(),
            _ => {
                *since = Some((now.term, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Members that were told that they may stop, and are not seen to be back.
    pub fn let_go(&self) -> BTreeSet<MemberId> {
        let mut let_go = lock(&self.let_go);
        self.forget_those_who_are_back(&mut let_go);
        let_go.keys().copied().collect()
    }

    fn forget_those_who_are_back(&self, let_go: &mut LetGo) {
        let roster = self.raft.view().roster();
        let is_back =
            |id: &MemberId, boot: u64| roster.members.get(id).is_some_and(|said| said.boot > boot);
        // It handed over, and was handed the lead again by one that leaves too: it is there.
        let (me, led_for) = (self.raft.leadership().me, self.leads_for());
        let leads_again = |id: &MemberId, at: Instant| *id == me && at.elapsed() > led_for;
        let_go.retain(|id, (boot, at)| {
            at.elapsed() < GONE && !is_back(id, *boot) && !leads_again(id, *at)
        });
    }

    /// Whether this member may stop, as far as writes go. Whoever may is counted as gone from now on.
    pub fn may_stop(&self, member: MemberId, boot: u64) -> MayStop {
        if !self.raft.leadership().is_mine() {
            return MayStop::NotLeader;
        }
        if !self.raft.membership().is_voter(member) {
            lock(&self.let_go).insert(member, (boot, Instant::now()));
            return MayStop::Yes;
        }
        // Whom the leader before let go is still thought to be there.
        if self.leads_for() < self.raft.timing().election_timeout * LISTEN_TIMEOUTS {
            return MayStop::Wait("the leader has just begun to lead".into());
        }
        let mut situation = self.situation();
        // To the end: two that ask at once are not both told that the other one stays.
        let mut gone = lock(&self.let_go);
        self.forget_those_who_are_back(&mut gone);
        for other in &mut situation.members {
            other.in_contact &= !gone.contains_key(&other.place.member);
        }
        let waits_for: Vec<PeerPlace> = situation
            .members
            .iter()
            .filter(|m| (m.old_voter || m.new_voter) && !m.in_contact)
            .map(|m| m.place)
            .filter(|place| place.member != member)
            .collect();
        // With everybody there, waiting makes nothing better.
        if planner::may_stop(&situation, member) || waits_for.is_empty() {
            gone.insert(member, (boot, Instant::now()));
            return MayStop::Yes;
        }
        let ordinals: Vec<String> = waits_for.iter().map(|p| p.ordinal.to_string()).collect();
        MayStop::Wait(format!("ordinal {} is not back yet", ordinals.join(", ")))
    }

    /// Tells `news` who leads, from now on. Ends when `stopping` says so.
    pub async fn tell_leader(&self, news: watch::Sender<LeaderNews>, mut stopping: Stopping) {
        let mut leadership = self.raft.watch_leadership();
        loop {
            let now = leadership.now();
            news.send_replace(LeaderNews {
                cluster: self.cluster,
                term: now.term,
                leader: now.leader.map(|leader: PeerPlace| leader.ordinal),
                is_me: now.is_mine(),
            });
            tokio::select! {
                () = stopping.wait() => return,
                changed = leadership.changed() => if changed.is_none() { return },
            }
        }
    }

    /// Where the members of this cluster live.
    pub fn ordinals(&self) -> BTreeSet<Ordinal> {
        self.raft.members().into_iter().map(|m| m.place.ordinal).collect()
    }
}

/// A step, for people.
fn describe(step: &Step, membership: &RaftMembership) -> String {
    let named = |id: &MemberId| {
        let member = membership.members.iter().find(|m| m.place.member == *id);
        member.map_or_else(|| id.to_string(), |m| format!("{} (member {id})", m.place.ordinal))
    };
    let all = |ids: &BTreeSet<MemberId>| ids.iter().map(named).collect::<Vec<_>>().join(", ");
    match step {
        Step::FinishJoint => "the change of voters that was begun is finished".into(),
        Step::ChangeVoters { add, remove } if remove.is_empty() => {
            format!("ordinal {} votes", all(add))
        }
        Step::ChangeVoters { add, remove } if add.is_empty() => {
            format!("ordinal {} votes no more", all(remove))
        }
        Step::ChangeVoters { add, remove } => {
            format!("ordinal {} votes in place of {}", all(add), all(remove))
        }
        Step::Remove(members) => format!("ordinal {} is removed", all(members)),
        Step::HandOver { to } => format!("ordinal {} leads", named(to)),
    }
}

/// What is waited for, and since when: said once it has lasted.
#[derive(Debug, Default)]
struct Patience {
    why: String,
    since: Option<Instant>,
}

impl Patience {
    fn wait(&mut self, why: String, say: impl FnOnce(String)) {
        if why != self.why {
            tracing::info!("waiting: {why}");
            *self = Patience { why, since: Some(Instant::now()) };
        } else if self.since.is_some_and(|since| since.elapsed() > SAY_AFTER) {
            self.since = None;
            say(self.why.clone());
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
