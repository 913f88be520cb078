//! A cluster as far as its membership goes: pods, volumes, and a log of configurations that is
//! replicated, committed and elected on as in Raft.
//!
//! The leader's view may be wrong: contact is what it `saw` last.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Member, Plan, Situation, Step, plan},
    judge,
};
use crate::types::{Desired, MemberId, Ordinal, PeerPlace};

/// One membership entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Config {
    pub(super) old: BTreeSet<MemberId>,
    pub(super) new: BTreeSet<MemberId>,
    pub(super) members: BTreeMap<MemberId, Ordinal>,
}

#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) up: bool,
    /// Whose volume it has.
    life: Option<MemberId>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    /// What is wanted, and what the leader knows of it.
    pub(super) desired: Option<Desired>,
    told: Option<Desired>,
    max_voters: u32,
    pub(super) pods: BTreeMap<Ordinal, Pod>,
    log: Vec<Config>,
    committed: usize,
    /// The last entry in each volume.
    held: BTreeMap<MemberId, usize>,
    leader: Option<MemberId>,
    seen: BTreeSet<MemberId>,
    caught_up: BTreeSet<MemberId>,
    newest: u64,
    /// Ids that were taken out.
    dead: BTreeSet<MemberId>,
    pub(super) steps: Vec<Step>,
}

impl Cluster {
    /// Formed of these founders, which all vote.
    pub(super) fn new(founders: u32, desired: Option<Desired>, max_voters: u32) -> Cluster {
        let ids = (0..founders).map(|n| (MemberId(u64::from(n) + 1), Ordinal(n)));
        let members: BTreeMap<MemberId, Ordinal> = ids.collect();
        let voters: BTreeSet<MemberId> = members.keys().copied().collect();
        let mut cluster = Cluster {
            told: desired.clone(),
            desired,
            max_voters,
            pods: members.iter().map(|(id, o)| (*o, Pod { up: true, life: Some(*id) })).collect(),
            log: vec![Config { old: voters.clone(), new: voters.clone(), members }],
            committed: 0,
            held: voters.iter().map(|id| (*id, 0)).collect(),
            leader: None,
            seen: voters,
            caught_up: BTreeSet::new(),
            newest: u64::from(founders),
            dead: BTreeSet::new(),
            steps: Vec::new(),
        };
        cluster.create_pods();
        cluster.elect(MemberId(1));
        cluster
    }

    pub(super) fn last(&self) -> &Config {
        &self.log[self.log.len() - 1]
    }

    pub(super) fn leader(&self) -> Option<MemberId> {
        self.leader.filter(|id| self.is_live(*id))
    }

    pub(super) fn wants(&self, ordinal: Ordinal) -> bool {
        self.desired.as_ref().is_none_or(|d| d.wants(ordinal))
    }

    /// Whether the process runs that has this member's volume.
    pub(super) fn is_live(&self, id: MemberId) -> bool {
        self.pods.values().any(|pod| pod.up && pod.life == Some(id))
    }

    /// Whether each set that may have to decide keeps a majority of those that are `good`.
    pub(super) fn keeps_majorities(&self, good: impl Fn(MemberId) -> bool) -> bool {
        let sets = self.log[self.committed..].iter().flat_map(|c| [&c.old, &c.new]);
        sets.into_iter().all(|set| is_majority(set, &good))
    }

    pub(super) fn life_at(&self, ordinal: Ordinal) -> Option<MemberId> {
        self.pods.get(&ordinal)?.life
    }

    // ------------------------------------------------------------ what happens to it

    pub(super) fn scale(&mut self, start: u32, replicas: u32) {
        let Some(desired) = &mut self.desired else { return };
        (desired.start, desired.replicas) = (start, replicas);
        desired.generation += 1;
        if replicas == 0 {
            self.pods.values_mut().for_each(|pod| pod.up = false);
        }
        self.create_pods();
    }

    fn create_pods(&mut self) {
        let Some(desired) = &self.desired else { return };
        for n in desired.start..desired.start + desired.replicas {
            self.pods.entry(Ordinal(n)).or_default().up = true;
        }
    }

    pub(super) fn tell(&mut self) {
        self.told.clone_from(&self.desired);
    }

    pub(super) fn down(&mut self, ordinal: Ordinal) {
        self.pods.entry(ordinal).or_default().up = false;
    }

    /// Those that are not wanted are not started again.
    pub(super) fn up(&mut self, ordinal: Ordinal) {
        if self.wants(ordinal) {
            self.pods.entry(ordinal).or_default().up = true;
        }
    }

    /// The pod dies and its volume is lost. The leader does not take it for well any more: that it
    /// gives it a vote in this very moment is a loss like that of a voter.
    pub(super) fn wipe(&mut self, ordinal: Ordinal) {
        self.down(ordinal);
        if let Some(id) = self.pods.get_mut(&ordinal).and_then(|pod| pod.life.take()) {
            self.held.remove(&id);
            self.seen.remove(&id);
        }
    }

    /// The leader looks who answers.
    pub(super) fn look(&mut self) {
        self.seen = self.last().members.keys().copied().filter(|id| self.is_live(*id)).collect();
    }

    pub(super) fn see(&mut self, id: MemberId, seen: bool) {
        if seen {
            self.seen.insert(id)
        } else {
            self.seen.remove(&id)
        };
    }

    pub(super) fn catch_up(&mut self, id: MemberId, caught_up: bool) {
        let held = self.held.get(&id) == Some(&(self.log.len() - 1));
        if caught_up && held {
            self.caught_up.insert(id)
        } else {
            self.caught_up.remove(&id)
        };
    }

    // ------------------------------------------------------------ Raft

    /// Elects it, if enough voters are there that lack nothing it has not got either.
    pub(super) fn elect(&mut self, id: MemberId) -> bool {
        let Some(&at) = self.held.get(&id) else { return false };
        let config = &self.log[at];
        let grants = |v: MemberId| self.is_live(v) && self.held.get(&v).is_none_or(|h| *h <= at);
        let votes = config.old.contains(&id) || config.new.contains(&id);
        let elected = is_majority(&config.old, grants) && is_majority(&config.new, grants);
        if !(votes && self.is_live(id) && elected) {
            return false;
        }
        assert!(at >= self.committed, "{id} leads and lacks what is committed");
        self.log.truncate(at + 1);
        self.held.values_mut().for_each(|h| *h = at.min(*h));
        self.leader = Some(id);
        self.caught_up = [id].into();
        true
    }

    /// The members that run get all of the log, and what a majority has is committed.
    pub(super) fn replicate(&mut self) {
        let Some(leader) = self.leader() else { return };
        let at = self.log.len() - 1;
        for id in self.log[at].members.keys().copied().chain([leader]).collect::<Vec<_>>() {
            if self.is_live(id) {
                self.held.insert(id, at);
            }
        }
        let has = |id: MemberId| self.held.get(&id) == Some(&at);
        if is_majority(&self.last().old, has) && is_majority(&self.last().new, has) {
            let before = self.log[self.committed].members.keys();
            self.dead.extend(before.filter(|id| !self.log[at].members.contains_key(id)));
            self.committed = at;
        }
        let (config, done) = (self.last(), self.committed == at);
        if done && !config.old.contains(&leader) && !config.new.contains(&leader) {
            self.leader = None;
        }
    }

    fn append(&mut self, leader: MemberId, config: Config) {
        assert!(config.members.keys().all(|id| !self.dead.contains(id)), "an id is used again");
        self.log.push(config);
        self.held.insert(leader, self.log.len() - 1);
    }

    pub(super) fn is_committed(&self) -> bool {
        self.committed == self.log.len() - 1
    }

    // ------------------------------------------------------------ members and their leader

    /// A pod that is wanted and whose volume is no member's joins, as a learner with an id of its own.
    pub(super) fn join(&mut self) -> bool {
        let Some(leader) = self.leader().filter(|_| self.is_committed()) else { return false };
        let (told, last) = (&self.told, &self.log[self.committed]);
        let new = self.pods.iter_mut().find(|(ordinal, pod)| {
            let member = pod.life.is_some_and(|id| last.members.contains_key(&id));
            pod.up && !member && told.as_ref().is_none_or(|d| d.wants(**ordinal))
        });
        let Some((ordinal, pod)) = new else { return false };
        let mut config = last.clone();
        self.newest += 1;
        let id = MemberId(self.newest);
        pod.life = Some(id);
        config.members.insert(id, *ordinal);
        self.append(leader, config);
        self.replicate();
        true
    }

    /// A pod that is not wanted goes once it has no vote, also in what is not committed yet, and the
    /// leader knows that it is not wanted: before, it might get a vote on its way out.
    pub(super) fn release(&mut self) {
        if self.told != self.desired {
            return;
        }
        let configs = &self.log[self.committed..];
        for (ordinal, pod) in &mut self.pods {
            let wanted = self.desired.as_ref().is_none_or(|d| d.wants(*ordinal));
            let votes = |id| configs.iter().any(|c| c.old.contains(&id) || c.new.contains(&id));
            if pod.up && !wanted && !pod.life.is_some_and(votes) {
                pod.up = false;
            }
        }
    }

    pub(super) fn situation(&self, me: MemberId) -> Situation {
        let config = self.last();
        let members = config.members.iter().map(|(id, ordinal)| Member {
            told_to_leave: false,
            place: PeerPlace { member: *id, ordinal: *ordinal },
            old_voter: config.old.contains(id),
            new_voter: config.new.contains(id),
            in_contact: *id == me || self.seen.contains(id),
            caught_up: *id == me || self.caught_up.contains(id),
        });
        Situation {
            me,
            members: members.collect(),
            committed: self.is_committed(),
            desired: self.told.clone(),
            max_voters: self.max_voters,
        }
    }

    /// The leader plans and begins what it planned.
    pub(super) fn turn(&mut self) -> Option<Plan> {
        let me = self.leader()?;
        let now = self.situation(me);
        let planned = plan(&now);
        if self.told.as_ref().is_some_and(|d| d.replicas == 0) {
            assert_eq!(planned, Plan::Settled, "all sleep");
        }
        let Plan::Do(step) = &planned else { return Some(planned) };
        judge(&now, step);
        let mut config = self.last().clone();
        match step {
            Step::FinishJoint => config.old = config.new.clone(),
            Step::ChangeVoters { add, remove } => config.new = &(&config.new | add) - remove,
            Step::Remove(gone) => config.members.retain(|id, _| !gone.contains(id)),
            Step::HandOver { to } => {
                self.elect(*to);
            }
        }
        if !matches!(step, Step::HandOver { .. }) {
            self.append(me, config);
        }
        self.steps.push(step.clone());
        Some(planned)
    }

    /// Whether the leader takes nobody for well who is gone.
    pub(super) fn sees_no_ghosts(&self) -> bool {
        self.seen.iter().all(|id| self.is_live(*id))
    }

    /// Nothing happens any more, everybody who runs catches up: follows the plan to its end, which
    /// must come, without having been anywhere twice. None if nobody can lead.
    pub(super) fn rest(&mut self) -> Option<Plan> {
        self.tell();
        let mut voters = vec![self.last().new.clone()];
        for _ in 0..80 {
            if self.leader().is_none() {
                let mut ids: Vec<_> = self.held.iter().map(|(id, at)| (*at, *id)).collect();
                ids.sort();
                ids.iter().rev().any(|(_, id)| self.elect(*id)).then_some(())?;
            }
            self.look();
            self.replicate();
            self.caught_up = self.seen.clone();
            self.release();
            if self.leader().is_none() || self.join() {
                continue;
            }
            let planned = self.turn()?;
            let Plan::Do(step) = &planned else { return Some(planned) };
            self.replicate();
            assert!(self.is_committed(), "{step:?} cannot be committed");
            if self.last().new != voters[voters.len() - 1] {
                assert!(!voters.contains(&self.last().new), "back again: {voters:?}");
                voters.push(self.last().new.clone());
            }
        }
        panic!("it goes on: {voters:?}");
    }
}

fn is_majority(set: &BTreeSet<MemberId>, good: impl Fn(MemberId) -> bool) -> bool {
    2 * set.iter().filter(|id| good(**id)).count() > set.len()
}
