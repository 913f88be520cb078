//! The entries that each member owes, and for how long: pure, with `now` passed in.
//!
//! A member that answers heartbeats may still be unable to complete a majority: it needs a snapshot, or
//! its disk hangs. Only its matched index proves that it stores entries.
//!
//! - An observation notes the last index of the log. A member *owes* that entry until its matched index
//!   reaches it. So a member of an idle cluster owes nothing, however long nothing is written.
//! - A member that owes entries and stores none is *stalled*. A matched index that advances, or a snapshot
//!   that arrives, is progress: a member that catches up is late, but not stalled.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::types::{MemberId, Term};

/// A member that owes entries and has made no progress for this time is stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The same during a snapshot transfer. Its receiver reports no progress while it syncs and installs the
/// files, which takes minutes for a large store.
const SNAPSHOT_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A member's progress at one observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The last entry that the member is known to store.
    pub matched: Option<u64>,
    pub receives_snapshot: bool,
    /// Bytes of snapshots that the member has acknowledged, in total.
    pub snapshot_bytes: u64,
    pub in_contact: bool,
}

#[derive(Debug, Clone, Copy)]
struct Debt {
    /// The last index of the log at `since`.
    owed: u64,
    since: Instant,
    matched: Option<u64>,
    snapshot_bytes: u64,
    /// The last advance of `matched` or `snapshot_bytes`.
    advanced: Instant,
    /// The last observation without contact.
    silent: Option<Instant>,
}

/// The debts of all members, to the leader of one term.
#[derive(Debug, Default)]
pub struct Stalls {
    term: Term,
    debts: BTreeMap<MemberId, Debt>,
}

impl Stalls {
    /// Forgets the debts to the leader of another term: its log may have been longer.
    pub fn enter(&mut self, term: Term) {
        if self.term != term {
            *self = Stalls { term, debts: BTreeMap::new() };
        }
    }

    pub fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.debts.retain(|id, _| is_member(*id));
    }

    /// Records an observation of a member, of a log that ends at `last`.
    pub fn record(&mut self, member: MemberId, progress: Progress, last: u64, now: Instant) {
        let Progress { matched, snapshot_bytes, .. } = progress;
        let debt = self.debts.entry(member).or_insert(Debt {
            owed: last,
            since: now,
            matched,
            snapshot_bytes,
            advanced: now,
            silent: None,
        });
        if matched > debt.matched || snapshot_bytes > debt.snapshot_bytes {
            debt.advanced = now;
        }
        (debt.matched, debt.snapshot_bytes) = (matched, snapshot_bytes);
        if !progress.in_contact {
            debt.silent = Some(now);
        }
        if matched >= Some(debt.owed) {
            (debt.owed, debt.since) = (last, now);
        }
    }

    /// The age of the oldest noted entry that the member owes. Zero if it owes none.
    pub fn late_for(&self, member: MemberId, progress: Progress, now: Instant) -> Duration {
        self.owes(member, progress)
            .map_or(Duration::ZERO, |debt| now.saturating_duration_since(debt.since))
    }

    /// Whether the member owes entries, and has stored none for a while. After its return into contact
    /// that time starts over: a member that was away needs a moment to receive the log.
    pub fn is_stalled(&self, member: MemberId, progress: Progress, now: Instant) -> bool {
        let Some(debt) = self.owes(member, progress) else { return false };
        let mut stopped = debt.since.max(debt.advanced);
        if progress.in_contact {
            stopped = stopped.max(debt.silent.unwrap_or(stopped));
        }
        let timeout =
            if progress.receives_snapshot { SNAPSHOT_STALL_TIMEOUT } else { STALL_TIMEOUT };
        now.saturating_duration_since(stopped) > timeout
    }

    fn owes(&self, member: MemberId, progress: Progress) -> Option<&Debt> {
        self.debts.get(&member).filter(|debt| progress.matched < Some(debt.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: MemberId = MemberId(7);

    struct Observations {
        stalls: Stalls,
        begun: Instant,
        seconds: u64,
    }

    impl Observations {
        fn new() -> Observations {
            Observations { stalls: Stalls::default(), begun: Instant::now(), seconds: 0 }
        }

        fn now(&self) -> Instant {
            self.begun + Duration::from_secs(self.seconds)
        }

        /// One observation a second. Returns how late the member is at the end, and whether it is stalled.
        fn observe(&mut self, seconds: u64, last: u64, progress: Progress) -> (u64, bool) {
            for _ in 0..seconds {
                self.seconds += 1;
                self.stalls.record(MEMBER, progress, last, self.now());
            }
            let late = self.stalls.late_for(MEMBER, progress, self.now());
            (late.as_secs(), self.stalls.is_stalled(MEMBER, progress, self.now()))
        }
    }

    fn at(matched: u64) -> Progress {
        Progress { matched: Some(matched), in_contact: true, ..Progress::default() }
    }

    #[test]
    fn an_idle_member_owes_nothing() {
        let mut member = Observations::new();
        assert_eq!(member.observe(3600, 9, at(9)), (0, false));
        // Only from here on it owes an entry.
        assert_eq!(member.observe(1, 10, at(9)), (0, false));
        assert_eq!(member.observe(3, 10, at(9)), (3, false));
        assert_eq!(member.observe(1, 10, at(10)), (0, false));
    }

    #[test]
    fn a_member_that_stores_nothing_is_late_and_then_stalled() {
        let mut member = Observations::new();
        member.observe(5, 9, at(9));
        assert_eq!(member.observe(11, 20, at(9)), (10, false));
        assert_eq!(member.observe(1, 30, at(9)), (11, true));
        // Progress ends the stall, before the member has caught up.
        assert_eq!(member.observe(1, 40, at(12)), (12, false));
        assert_eq!(member.observe(1, 40, at(40)), (0, false));
    }

    #[test]
    fn a_member_that_catches_up_is_late_and_not_stalled() {
        let mut member = Observations::new();
        member.observe(1, 1000, at(1));
        for matched in (0..60).map(|n| 10 * n) {
            let (_, stalled) = member.observe(5, 1000, at(matched));
            assert!(!stalled, "at {matched}");
        }
        assert_eq!(member.observe(1, 1000, at(590)), (301, false));
    }

    #[test]
    fn a_snapshot_that_arrives_is_progress_and_its_installation_takes_a_while() {
        let mut member = Observations::new();
        let receiving = |snapshot_bytes| Progress {
            receives_snapshot: true,
            snapshot_bytes,
            in_contact: true,
            ..Progress::default()
        };
        for bytes in 0..100 {
            assert!(!member.observe(9, 1000, receiving(bytes)).1, "{bytes} bytes");
        }
        assert!(!member.observe(100, 1000, receiving(99)).1, "it installs the snapshot");
        assert!(member.observe(20, 1000, receiving(99)).1, "its disk hangs");
    }

    #[test]
    fn silence_counts_until_the_member_returns() {
        let mut member = Observations::new();
        member.observe(1, 9, at(9));
        let silent = Progress { in_contact: false, ..at(9) };
        assert!(member.observe(60, 99, silent).1);
        assert!(!member.observe(9, 99, at(9)).1, "it has just returned");
        assert!(member.observe(3, 99, at(9)).1);
    }

    #[test]
    fn a_new_term_forgets_the_debts_of_the_last_one() {
        let mut member = Observations::new();
        member.stalls.enter(Term(3));
        member.observe(60, 99, at(9));
        member.stalls.enter(Term(3));
        assert!(member.observe(1, 99, at(9)).1);
        member.stalls.enter(Term(4));
        assert_eq!(member.observe(1, 12, at(9)), (0, false));
    }
}
