//! A model of a cluster's membership: pods, volumes, and a log of configurations with Raft's rules for
//! replication, commit and election.
//!
//! The leader's view may be stale: contact is the set `seen` at its last look, and `stalled` are the members
//! whose disks hung at that time. A member with a hung disk answers the leader, and stores no entry.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Member, Observed, Plan, Step, plan},
    assert_safe,
};
use crate::{
    membership::restored_set::{Reading, RestoreDetector},
    types::{DesiredReplicas, MemberId, MemberRef, Ordinal},
};

/// One membership entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    pub old: BTreeSet<MemberId>,
    pub new: BTreeSet<MemberId>,
    pub members: BTreeMap<MemberId, Ordinal>,
}

#[derive(Debug, Default)]
pub struct Pod {
    pub up: bool,
    /// Its disk hangs. A restart is the cure.
    hung: bool,
    /// The member whose volume is attached.
    volume_of: Option<MemberId>,
}

#[derive(Debug)]
pub struct Cluster {
    /// The StatefulSet's replicas, and the leader's last reading of them.
    pub desired: Option<DesiredReplicas>,
    recorded: Option<DesiredReplicas>,
    restores: RestoreDetector,
    max_voters: u32,
    pub pods: BTreeMap<Ordinal, Pod>,
    log: Vec<Config>,
    committed: usize,
    /// The last entry in each volume.
    held: BTreeMap<MemberId, usize>,
    leader: Option<MemberId>,
    seen: BTreeSet<MemberId>,
    stalled: BTreeSet<MemberId>,
    caught_up: BTreeSet<MemberId>,
    newest: u64,
    /// Ids that were removed.
    removed: BTreeSet<MemberId>,
    pub steps: Vec<Step>,
}

impl Cluster {
    /// A cluster of these founders, which all vote.
    pub fn new(founders: u32, desired: Option<DesiredReplicas>, max_voters: u32) -> Cluster {
        let ids = (0..founders).map(|n| (MemberId(u64::from(n) + 1), Ordinal(n)));
        let members: BTreeMap<MemberId, Ordinal> = ids.collect();
        let voters: BTreeSet<MemberId> = members.keys().copied().collect();
        let mut cluster = Cluster {
            recorded: desired.clone(),
            restores: RestoreDetector::default(),
            desired,
            max_voters,
            pods: members
                .iter()
                .map(|(id, o)| (*o, Pod { up: true, hung: false, volume_of: Some(*id) }))
                .collect(),
            log: vec![Config { old: voters.clone(), new: voters.clone(), members }],
            committed: 0,
            held: voters.iter().map(|id| (*id, 0)).collect(),
            leader: None,
            seen: voters,
            stalled: BTreeSet::new(),
            caught_up: BTreeSet::new(),
            newest: u64::from(founders),
            removed: BTreeSet::new(),
            steps: Vec::new(),
        };
        cluster.create_pods();
        cluster.elect(MemberId(1));
        cluster
    }

    pub fn last(&self) -> &Config {
        &self.log[self.log.len() - 1]
    }

    pub fn leader(&self) -> Option<MemberId> {
        self.leader.filter(|id| self.is_live(*id))
    }

    pub fn is_wanted(&self, ordinal: Ordinal) -> bool {
        self.desired.as_ref().is_none_or(|d| d.includes(ordinal))
    }

    /// Whether the pod with this member's volume runs.
    pub fn is_live(&self, id: MemberId) -> bool {
        self.pods.values().any(|pod| pod.up && pod.volume_of == Some(id))
    }

    /// Whether the member is live and can store entries.
    pub fn is_well(&self, id: MemberId) -> bool {
        self.pods.values().any(|pod| pod.up && !pod.hung && pod.volume_of == Some(id))
    }

    /// Whether `good` members are a majority of each set that is in force or may come into force.
    pub fn keeps_majorities(&self, good: impl Fn(MemberId) -> bool) -> bool {
        let sets = self.log[self.committed..].iter().flat_map(|c| [&c.old, &c.new]);
        sets.into_iter().all(|set| is_majority(set, &good))
    }

    pub fn incarnation_at(&self, ordinal: Ordinal) -> Option<MemberId> {
        self.pods.get(&ordinal)?.volume_of
    }

    // ------------------------------------------------------------ Kubernetes

    pub fn scale(&mut self, start: u32, replicas: u32) {
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

    /// The control plane is restored from a backup: the set has an older generation.
    pub fn restore_set(&mut self, back: u64) {
        let Some(desired) = &mut self.desired else { return };
        desired.generation = desired.generation.saturating_sub(back);
    }

    /// The leader reads the set once.
    pub fn record_desired(&mut self) {
        let Some(desired) = &self.desired else { return };
        if self.restores.observe(desired, self.recorded.as_ref()) != Reading::Older {
            self.recorded = Some(desired.clone());
        }
    }

    pub fn down(&mut self, ordinal: Ordinal) {
        let pod = self.pods.entry(ordinal).or_default();
        (pod.up, pod.hung) = (false, false);
    }

    /// The pod's disk hangs, or answers again.
    pub fn hang(&mut self, ordinal: Ordinal, hung: bool) {
        let pod = self.pods.entry(ordinal).or_default();
        pod.hung = pod.up && hung;
    }

    /// Kubernetes does not restart a pod that is not wanted.
    pub fn up(&mut self, ordinal: Ordinal) {
        if self.is_wanted(ordinal) {
            self.pods.entry(ordinal).or_default().up = true;
        }
    }

    /// The pod dies and its volume is lost. The leader notices at once: a vote given in between would
    /// count as the loss of a voter.
    pub fn wipe(&mut self, ordinal: Ordinal) {
        self.down(ordinal);
        if let Some(id) = self.pods.get_mut(&ordinal).and_then(|pod| pod.volume_of.take()) {
            self.held.remove(&id);
            self.seen.remove(&id);
        }
    }

    /// The leader refreshes its view of the reachable members.
    pub fn look(&mut self) {
        self.seen = self.last().members.keys().copied().filter(|id| self.is_live(*id)).collect();
        self.stalled = self.seen.iter().copied().filter(|id| !self.is_well(*id)).collect();
    }

    /// The leader learns whether the member's disk hangs.
    pub fn see_disk(&mut self, id: MemberId) {
        match self.is_live(id) && !self.is_well(id) {
            true => self.stalled.insert(id),
            false => self.stalled.remove(&id),
        };
    }

    pub fn see(&mut self, id: MemberId, seen: bool) {
        if seen {
            self.seen.insert(id)
        } else {
            self.seen.remove(&id)
        };
    }

    pub fn catch_up(&mut self, id: MemberId, caught_up: bool) {
        let held = self.held.get(&id) == Some(&(self.log.len() - 1));
        if caught_up && held {
            self.caught_up.insert(id)
        } else {
            self.caught_up.remove(&id)
        };
    }

    // ------------------------------------------------------------ Raft

    /// Elects the member if a majority of voters can store its vote and its log is at least as long as
    /// theirs.
    pub fn elect(&mut self, id: MemberId) -> bool {
        let Some(&at) = self.held.get(&id) else { return false };
        let config = &self.log[at];
        let grants = |v: MemberId| self.is_well(v) && self.held.get(&v).is_none_or(|h| *h <= at);
        let votes = config.old.contains(&id) || config.new.contains(&id);
        let elected = is_majority(&config.old, grants) && is_majority(&config.new, grants);
        if !(votes && self.is_well(id) && elected) {
            return false;
        }
        assert!(at >= self.committed, "{id} leads and lacks a committed entry");
        self.log.truncate(at + 1);
        self.held.values_mut().for_each(|h| *h = at.min(*h));
        self.leader = Some(id);
        self.caught_up = [id].into();
        self.stalled.clear();
        true
    }

    /// Live members store the whole log, unless their disks hang; entries on a majority are committed.
    pub fn replicate(&mut self) {
        let Some(leader) = self.leader() else { return };
        let at = self.log.len() - 1;
        for id in self.log[at].members.keys().copied().chain([leader]).collect::<Vec<_>>() {
            if self.is_well(id) {
                self.held.insert(id, at);
            }
        }
        let has = |id: MemberId| self.is_well(id) && self.held.get(&id) == Some(&at);
        if is_majority(&self.last().old, has) && is_majority(&self.last().new, has) {
            let before = self.log[self.committed].members.keys();
            self.removed.extend(before.filter(|id| !self.log[at].members.contains_key(id)));
            self.committed = at;
        }
        let (config, done) = (self.last(), self.committed == at);
        if done && !config.old.contains(&leader) && !config.new.contains(&leader) {
            self.leader = None;
        }
    }

    fn append(&mut self, leader: MemberId, config: Config) {
        assert!(config.members.keys().all(|id| !self.removed.contains(id)), "an id is reused");
        self.log.push(config);
        self.held.insert(leader, self.log.len() - 1);
    }

    pub fn is_committed(&self) -> bool {
        self.committed == self.log.len() - 1
    }

    // ------------------------------------------------------------ membership

    /// A wanted pod whose volume belongs to no member joins as a learner with a new id.
    pub fn join(&mut self) -> bool {
        let Some(leader) = self.leader().filter(|_| self.is_committed()) else { return false };
        let (recorded, last) = (&self.recorded, &self.log[self.committed]);
        let new = self.pods.iter_mut().find(|(ordinal, pod)| {
            let member = pod.volume_of.is_some_and(|id| last.members.contains_key(&id));
            pod.up && !member && recorded.as_ref().is_none_or(|d| d.includes(**ordinal))
        });
        let Some((ordinal, pod)) = new else { return false };
        let mut config = last.clone();
        self.newest += 1;
        let id = MemberId(self.newest);
        pod.volume_of = Some(id);
        config.members.insert(id, *ordinal);
        self.append(leader, config);
        self.replicate();
        true
    }

    /// An unwanted pod stops once it has no vote, in uncommitted configurations too, and the leader
    /// has recorded that it is unwanted: earlier, the leader might still give it a vote.
    pub fn release(&mut self) {
        if self.recorded != self.desired {
            return;
        }
        let configs = &self.log[self.committed..];
        for (ordinal, pod) in &mut self.pods {
            let wanted = self.desired.as_ref().is_none_or(|d| d.includes(*ordinal));
            let votes = |id| configs.iter().any(|c| c.old.contains(&id) || c.new.contains(&id));
            if pod.up && !wanted && !pod.volume_of.is_some_and(votes) {
                pod.up = false;
            }
        }
    }

    pub fn observed(&self, me: MemberId) -> Observed {
        let config = self.last();
        let members = config.members.iter().map(|(id, ordinal)| Member {
            removal_requested: false,
            member_ref: MemberRef { member: *id, ordinal: *ordinal },
            old_voter: config.old.contains(id),
            new_voter: config.new.contains(id),
            in_contact: *id == me || self.seen.contains(id),
            caught_up: *id == me || self.caught_up.contains(id),
            acks: (*id == me || self.seen.contains(id) && self.caught_up.contains(id))
                && !self.stalled.contains(id),
            stalled: self.stalled.contains(id),
        });
        Observed {
            me,
            members: members.collect(),
            committed: self.is_committed(),
            desired: self.recorded.clone(),
            max_voters: self.max_voters,
        }
    }

    /// The leader plans and executes one step.
    pub fn turn(&mut self) -> Option<Plan> {
        let me = self.leader()?;
        let now = self.observed(me);
        let planned = plan(&now);
        if self.recorded.as_ref().is_some_and(|d| d.replicas == 0) {
            assert_eq!(planned, Plan::Settled, "a hibernating cluster changes nothing");
        }
        let Plan::Do(step) = &planned else { return Some(planned) };
        assert_safe(&now, step);
        let mut config = self.last().clone();
        match step {
            Step::FinishJoint => config.old = config.new.clone(),
            Step::ChangeVoters { add, remove } => config.new = &(&config.new | add) - remove,
            Step::Remove(removed) => config.members.retain(|id, _| !removed.contains(id)),
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

    /// Whether every member that the leader considers reachable is live, and stores entries unless the
    /// leader considers it stalled.
    pub fn view_is_accurate(&self) -> bool {
        let stores = |id: &MemberId| self.is_well(*id) || self.stalled.contains(id);
        self.seen.iter().chain(&self.leader).all(|id| self.is_live(*id) && stores(id))
    }

    /// Without further events and with every live member caught up, follows the plan until it settles
    /// or waits. Panics if the same set of voters comes twice. `None`: no member can be elected.
    pub fn quiesce(&mut self) -> Option<Plan> {
        // The leader polls as often as a restored set takes.
        for _ in 0..3 {
            self.record_desired();
        }
        assert_eq!(self.recorded, self.desired);
        let mut voters = vec![self.last().new.clone()];
        for _ in 0..80 {
            if self.leader().is_none() {
                let mut ids: Vec<_> = self.held.iter().map(|(id, at)| (*at, *id)).collect();
                ids.sort();
                ids.iter().rev().any(|(_, id)| self.elect(*id)).then_some(())?;
            }
            self.look();
            self.replicate();
            self.caught_up = &self.seen - &self.stalled;
            self.release();
            if self.leader().is_none() || self.join() {
                continue;
            }
            let planned = self.turn()?;
            let Plan::Do(step) = &planned else { return Some(planned) };
            self.replicate();
            assert!(self.is_committed(), "{step:?} cannot be committed");
            if self.last().new != voters[voters.len() - 1] {
                assert!(!voters.contains(&self.last().new), "a set of voters repeats: {voters:?}");
                voters.push(self.last().new.clone());
            }
        }
        panic!("the plan does not settle: {voters:?}");
    }
}

fn is_majority(set: &BTreeSet<MemberId>, good: impl Fn(MemberId) -> bool) -> bool {
    2 * set.iter().filter(|id| good(**id)).count() > set.len()
}
