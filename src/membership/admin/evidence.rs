//! Whether the voters that this member recovers without are lost, as far as their ordinals can prove it.
//!
//! The silence of a voter proves nothing: it may serve beyond a partition. Its ordinal proves the loss by
//! answering with another volume: an empty one, another incarnation, or a member of another cluster.
//!
//! | a voter's ordinal answers | the voter |
//! |---|---|
//! | as that member | is alive |
//! | with any other volume | is lost |
//! | as a member that starts or recovers in another cluster | is silent: it may be alive |
//! | not at all, or as an older build | is silent: it may be alive |
//!
//! An answer counts only if it names the ordinal that was asked, and its home: an address may have passed to
//! another pod.
//!
//! Recovery is refused
//! - while alive and silent voters can be a majority,
//! - if another member of this cluster has a later log, or one that is not known yet,
//! - if an ordinal is a running member of another cluster, which may have been recovered before.
//!
//! An operator may insist.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    membership::{bootstrap::Bootstrap, identity::Stage},
    proto::peer,
    raft::{Raft, RaftMembership},
    types::{ClusterId, LogPosition, MemberId, MemberRef, Ordinal},
};

/// The volume at an ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// Belongs to no cluster.
    Empty,
    Of {
        cluster: ClusterId,
        member: MemberId,
        log: VolumeLog,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeLog {
    /// The member is starting.
    Unknown,
    /// Its last entry, if it has any.
    UpTo(Option<LogPosition>),
}

/// Describes this volume to a member that asks without naming a cluster.
pub fn describe_volume(bootstrap: &Bootstrap, running: Option<&Raft>) -> peer::Volume {
    let (ordinal, home) = (Some(bootstrap.ordinal().0), bootstrap.home().to_string());
    let Some(identity) = bootstrap.identity() else {
        return peer::Volume { ordinal, home, ..peer::Volume::default() };
    };
    // A recovering volume keeps the whole log of its former member.
    let has_log = matches!(identity.stage, Stage::Member | Stage::Recovering);
    peer::Volume {
        cluster_id: identity.cluster.0,
        member_id: identity.member.0,
        last: running.and_then(|raft| raft.log().last()).map(Into::into),
        starting: running.is_none() && has_log,
        ordinal,
        home,
    }
}

impl Volume {
    /// `None`: the answer comes from another place than the asked ordinal of this home, or from an older
    /// build, which does not name its own.
    pub fn from_wire(wire: peer::Volume, asked: Ordinal, home: &str) -> Option<Volume> {
        if wire.ordinal != Some(asked.0) || wire.home != home {
            return None;
        }
        if wire.cluster_id == 0 {
            return Some(Volume::Empty);
        }
        let log = match wire.starting {
            true => VolumeLog::Unknown,
            false => VolumeLog::UpTo(wire.last.map(Into::into)),
        };
        let (cluster, member) = (ClusterId(wire.cluster_id), MemberId(wire.member_id));
        Some(Volume::Of { cluster, member, log })
    }
}

/// The facts that decide whether a member may recover alone.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub cluster: ClusterId,
    pub me: MemberId,
    /// The last entry of this member's log.
    pub last: Option<LogPosition>,
    /// The last committed membership, and the last one.
    pub memberships: [&'a RaftMembership; 2],
    /// The volumes of the ordinals that have answered.
    pub volumes: &'a BTreeMap<Ordinal, Volume>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voter {
    Alive,
    Silent,
    Lost,
}

impl Evidence<'_> {
    /// The reasons against a recovery. `None`: the losses are proven.
    pub fn objection(&self) -> Option<String> {
        let objections = [self.living_majority(), self.later_log(), self.other_cluster()];
        let objections: Vec<String> = objections.into_iter().flatten().collect();
        (!objections.is_empty()).then(|| {
            format!(
                "{}. To continue without the other members all the same, repeat the command with \
                 --cluster-id and the id of this cluster typed out, as kvctl cluster shows it: members \
                 that are alive are then refused until their volumes are deleted",
                objections.join(". ")
            )
        })
    }

    fn living_majority(&self) -> Option<String> {
        let known = self.memberships.iter().filter(|m| m.voters.iter().any(|set| !set.is_empty()));
        let known: Vec<&&RaftMembership> = known.collect();
        if known.is_empty() {
            return Some("this member's log names no voters".into());
        }
        let may_live = |set: &BTreeSet<MemberId>, membership: &RaftMembership| {
            let lives = |id: &&MemberId| self.voter(**id, membership) != Voter::Lost;
            2 * set.iter().filter(lives).count() > set.len()
        };
        let lives = |membership: &RaftMembership| {
            membership.voters.iter().all(|set| may_live(set, membership))
        };
        if !known.iter().any(|membership| lives(membership)) {
            return None;
        }
        let mut ordinals: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for membership in known {
            for voter in membership.members.iter().filter(|m| m.voter).map(|m| m.member_ref) {
                let state = match self.voter(voter.member, membership) {
                    Voter::Alive => "alive",
                    Voter::Silent => "silent",
                    Voter::Lost => "lost",
                };
                ordinals.entry(state).or_default().insert(voter.ordinal.to_string());
            }
        }
        let of = |state| match ordinals.get(state) {
            Some(ordinals) => ordinals.iter().cloned().collect::<Vec<_>>().join(", "),
            None => "none".into(),
        };
        Some(format!(
            "a majority of the voters may be alive, by ordinal: alive {}; silent {}; lost {}. An ordinal \
             proves that its voter is lost when its pod or process answers with an empty or another volume",
            of("alive"),
            of("silent"),
            of("lost")
        ))
    }

    fn voter(&self, id: MemberId, membership: &RaftMembership) -> Voter {
        if id == self.me {
            return Voter::Alive;
        }
        let mut members = membership.members.iter().map(|m| m.member_ref);
        let Some(MemberRef { ordinal, .. }) = members.find(|m| m.member == id) else {
            return Voter::Silent;
        };
        match self.volumes.get(&ordinal) {
            None => Voter::Silent,
            Some(Volume::Of { cluster, member, .. })
                if *cluster == self.cluster && *member == id =>
            {
                Voter::Alive
            }
            // It may have been this voter until its recovery.
            Some(Volume::Of { cluster, log: VolumeLog::Unknown, .. })
                if *cluster != self.cluster =>
            {
                Voter::Silent
            }
            Some(Volume::Empty | Volume::Of { .. }) => Voter::Lost,
        }
    }

    /// Entries that this member lacks would be lost without need.
    fn later_log(&self) -> Option<String> {
        let ours = self.volumes.iter().filter_map(|(ordinal, volume)| match volume {
            Volume::Of { cluster, member, log }
                if *cluster == self.cluster && *member != self.me =>
            {
                Some((*ordinal, *log))
            }
            _ => None,
        });
        let ours: Vec<(Ordinal, VolumeLog)> = ours.collect();
        let last = |log: VolumeLog| match log {
            VolumeLog::UpTo(last) => last,
            VolumeLog::Unknown => None,
        };
        let latest = ours.iter().map(|(ordinal, log)| (last(*log), *ordinal)).max();
        if let Some((Some(theirs), ordinal)) = latest
            && Some(theirs) > self.last
        {
            let LogPosition { term, index } = theirs;
            let own = self.last.map_or(0, |last| last.index);
            return Some(format!(
                "ordinal {ordinal} has a later log, up to index {index} of term {term}, and this member up \
                 to index {own}: recover from ordinal {ordinal} instead"
            ));
        }
        let unknown = ours.iter().find(|(_, log)| *log == VolumeLog::Unknown);
        unknown.map(|(ordinal, _)| {
            format!(
                "ordinal {ordinal} is starting, and its log may be later: try again once it runs"
            )
        })
    }

    /// A second recovery would divide the data once more.
    fn other_cluster(&self) -> Option<String> {
        self.volumes.iter().find_map(|(ordinal, volume)| match volume {
            Volume::Of { cluster, log, .. }
                if *cluster != self.cluster && *log != VolumeLog::UpTo(None) =>
            {
                Some(format!(
                    "ordinal {ordinal} is a member of cluster {cluster}: if that one was recovered from \
                     this cluster, delete this member's volume instead, and it joins"
                ))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        disk::sim::SimDisk,
        membership::{BootstrapConfig, DataDir, Identity},
        raft::RaftMember,
        types::Term,
    };

    const CLUSTER: ClusterId = ClusterId(0xc1);

    /// Member `n + 1` at ordinal `n`; the sets are of ordinals.
    fn membership(sets: &[&[u32]]) -> RaftMembership {
        let id = |ordinal: &u32| MemberId(u64::from(*ordinal) + 1);
        let voters: Vec<BTreeSet<MemberId>> =
            sets.iter().map(|set| set.iter().map(id).collect()).collect();
        let all: BTreeSet<u32> = sets.iter().flat_map(|set| set.iter().copied()).collect();
        let members = all.iter().map(|ordinal| RaftMember {
            member_ref: MemberRef { member: id(ordinal), ordinal: Ordinal(*ordinal) },
            voter: true,
        });
        RaftMembership { members: members.collect(), voters, at: None }
    }

    fn position(term: u64, index: u64) -> Option<LogPosition> {
        Some(LogPosition { term: Term(term), index })
    }

    fn member(cluster: ClusterId, member: u64, last: Option<LogPosition>) -> Volume {
        Volume::Of { cluster, member: MemberId(member), log: VolumeLog::UpTo(last) }
    }

    /// As member 1 at ordinal 0, with a log up to index 9 of term 2.
    fn objection(memberships: [&RaftMembership; 2], volumes: &[(u32, Volume)]) -> Option<String> {
        let volumes =
            volumes.iter().map(|(ordinal, volume)| (Ordinal(*ordinal), *volume)).collect();
        let me = MemberId(1);
        let last = position(2, 9);
        Evidence { cluster: CLUSTER, me, last, memberships, volumes: &volumes }.objection()
    }

    #[test]
    fn only_the_asked_ordinal_of_this_home_answers() {
        let (asked, home) = (Ordinal(1), "default/kv");
        let empty = |ordinal, home: &str| peer::Volume {
            ordinal,
            home: home.into(),
            ..peer::Volume::default()
        };
        let answer = |wire| Volume::from_wire(wire, asked, home);
        assert_eq!(answer(empty(Some(1), home)), Some(Volume::Empty));
        assert_eq!(answer(empty(Some(2), home)), None, "the address of another pod");
        assert_eq!(answer(empty(Some(1), "default/b-kv")), None, "of another instance");
        assert_eq!(answer(peer::Volume::default()), None, "an older build");
        let stranger = peer::Volume { cluster_id: 0xc2, member_id: 9, ..empty(Some(0), home) };
        assert_eq!(answer(stranger), None);
    }

    /// Neither its log nor its cluster is known before it runs.
    #[test]
    fn a_volume_in_recovery_answers_as_a_starting_one() {
        let disk = Arc::new(SimDisk::new(1));
        let dir = Arc::new(DataDir::open(disk, Path::new("/data")).unwrap());
        for (stage, starting) in
            [(Stage::Promised, false), (Stage::Assigned, false), (Stage::Recovering, true)]
        {
            let identity = Identity {
                cluster: ClusterId(0xc2),
                member: MemberId(2),
                ordinal: Ordinal(1),
                home: "default/kv".into(),
                boot: 1,
                stage,
                founders: Vec::new(),
                recovered_from: None,
            };
            dir.store_identity(&identity).unwrap();
            let config = BootstrapConfig {
                ordinal: Ordinal(1),
                home: "default/kv".into(),
                founders: 1,
                known: BTreeSet::new(),
                orchestrator: None,
                takeover_timeout: Duration::ZERO,
            };
            let rng = Arc::new(crate::rng::SystemRng);
            let bootstrap = Bootstrap::open(config, dir.clone(), rng).unwrap();
            let volume = describe_volume(&bootstrap, None);
            assert_eq!((volume.starting, volume.ordinal), (starting, Some(1)), "{stage:?}");
            assert_eq!(volume.home, "default/kv");
        }
    }

    /// Every state of four other voters.
    #[test]
    fn a_recovery_is_refused_exactly_while_a_majority_may_be_alive() {
        let five = membership(&[&[0, 1, 2, 3, 4]]);
        let lost = [Volume::Empty, member(CLUSTER, 77, None), member(ClusterId(0xc2), 3, None)];
        for code in 0..5_u32.pow(4) {
            let states = (0..4).map(|i| code / 5_u32.pow(i) % 5);
            let mut volumes = Vec::new();
            let mut living = 1;
            for (ordinal, state) in (1..).zip(states) {
                match state {
                    0 => living += 1,
                    1 => {
                        living += 1;
                        let alive = member(CLUSTER, u64::from(ordinal) + 1, position(2, 9));
                        volumes.push((ordinal, alive));
                    }
                    kind => volumes.push((ordinal, lost[kind as usize - 2])),
                }
            }
            let refused = objection([&five, &five], &volumes);
            assert_eq!(refused.is_some(), living >= 3, "{volumes:?}: {refused:?}");
        }
    }

    #[test]
    fn the_refusal_lists_the_ordinals_and_how_to_insist() {
        let three = membership(&[&[0, 1, 2]]);
        let text = objection([&three, &three], &[(2, Volume::Empty)]).unwrap();
        assert!(text.contains("alive 0; silent 1; lost 2"), "{text}");
        assert!(text.contains("--cluster-id"), "{text}");
        let both = objection([&three, &three], &[]).unwrap();
        assert!(both.contains("alive 0; silent 1, 2; lost none"), "{both}");
    }

    /// During a joint change a quorum needs a majority of both sets; and the others may not know of an
    /// uncommitted membership.
    #[test]
    fn every_membership_in_force_counts() {
        let one = membership(&[&[0]]);
        let three = membership(&[&[0, 1, 2]]);
        let joint = membership(&[&[0, 1, 2], &[3, 4, 5]]);
        let empty = |ordinals: &[u32]| -> Vec<(u32, Volume)> {
            ordinals.iter().map(|ordinal| (*ordinal, Volume::Empty)).collect()
        };
        assert_eq!(objection([&three, &joint], &empty(&[1, 2])), None);
        assert_eq!(objection([&joint, &joint], &empty(&[3, 4])), None);
        assert!(objection([&joint, &joint], &empty(&[1, 3])).is_some());
        assert!(objection([&one, &three], &empty(&[1, 2])).is_some(), "one voter is a majority");
        let none = membership(&[]);
        assert!(objection([&none, &none], &[]).is_some());
        assert_eq!(objection([&none, &three], &empty(&[1, 2])), None);
    }

    #[test]
    fn a_member_with_a_later_log_is_named() {
        let three = membership(&[&[0, 1, 2]]);
        let with = |volume: Volume| {
            objection([&three, &three], &[(1, Volume::Empty), (2, Volume::Empty), (7, volume)])
        };
        assert_eq!(with(member(CLUSTER, 9, position(2, 9))), None, "an equal log");
        assert_eq!(with(member(CLUSTER, 9, position(1, 20))), None, "of an earlier term");
        assert_eq!(with(member(ClusterId(1), 9, None)), None, "a promise to another cluster");
        assert_eq!(with(member(CLUSTER, 9, None)), None);
        for later in [position(2, 10), position(3, 1)] {
            let text = with(member(CLUSTER, 9, later)).unwrap();
            assert!(text.contains("recover from ordinal 7 instead"), "{text}");
        }
        let log = VolumeLog::Unknown;
        let text = with(Volume::Of { cluster: CLUSTER, member: MemberId(9), log }).unwrap();
        assert!(text.contains("ordinal 7 is starting"), "{text}");
        // In recovery, at a voter's ordinal: its log, and its clients' writes, exist.
        let recovers = Volume::Of { cluster: ClusterId(0xc2), member: MemberId(2), log };
        let text = objection([&three, &three], &[(1, recovers), (2, Volume::Empty)]).unwrap();
        assert!(text.contains("alive 0; silent 1; lost 2"), "{text}");
        assert!(text.contains("ordinal 1 is a member of cluster c2"), "{text}");
        // Recovered before.
        let text = with(member(ClusterId(0xc2), 9, position(3, 1))).unwrap();
        assert!(text.contains("ordinal 7 is a member of cluster c2"), "{text}");
    }
}
