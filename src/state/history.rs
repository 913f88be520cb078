//! The history of one key: its versions, without their values.
//!
//! Almost every key has one version, so the latest version is stored inline. Older ones are behind a
//! pointer that costs nothing while there are none.
//!
//! Invariants: versions ascend by record id, the latest last. Pruning at a revision changes no read
//! at that revision or later. It also keeps the changes of that revision itself, tombstones
//! included: a watch may start there.

use super::storage::RecordMeta;
use crate::types::{LeaseId, RecordId, Revision};

/// A record without its key and value. 40 bytes, because there are millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub modified: Revision,
    pub created: Revision,
    pub version: i64,
    pub lease: LeaseId,
    sub: u32,
    pub tombstone: bool,
}

impl Version {
    pub fn put(id: RecordId, created: Revision, version: i64, lease: LeaseId) -> Version {
        Version { modified: id.main, created, version, lease, sub: id.sub, tombstone: false }
    }

    pub fn tombstone(id: RecordId) -> Version {
        Version {
            modified: id.main,
            created: Revision::ZERO,
            version: 0,
            lease: LeaseId::default(),
            sub: id.sub,
            tombstone: true,
        }
    }

    pub fn of(record: &RecordMeta) -> Version {
        let RecordMeta { id, create_revision, version, lease, tombstone, .. } = *record;
        Version {
            modified: id.main,
            created: create_revision,
            version,
            lease,
            sub: id.sub,
            tombstone,
        }
    }

    pub fn id(&self) -> RecordId {
        RecordId { main: self.modified, sub: self.sub }
    }

    /// Whether this version, the newest up to `revision`, must survive pruning at `revision`. A
    /// tombstone then only means absence, unless it is an event for watches that start at `revision`.
    fn outlasts(&self, revision: Revision) -> bool {
        !self.tombstone || self.modified == revision
    }
}

/// The versions of one key.
#[derive(Debug)]
pub struct History {
    latest: Version,
    /// Ascending; `None` if there is only the latest.
    older: Option<Box<Older>>,
}

/// A separate type, so that the pointer to the `Vec` takes one word, not three.
#[derive(Debug)]
struct Older(Vec<Version>);

impl History {
    pub fn new(version: Version) -> History {
        History { latest: version, older: None }
    }

    /// The newest version, unless it is a tombstone.
    pub fn alive(&self) -> Option<&Version> {
        Some(&self.latest).filter(|latest| !latest.tombstone)
    }

    pub fn push(&mut self, version: Version) {
        assert!(version.id() > self.latest.id(), "versions of a key ascend: {}", version.id());
        let outdated = std::mem::replace(&mut self.latest, version);
        self.older.get_or_insert_with(|| Box::new(Older(Vec::with_capacity(1)))).0.push(outdated);
    }

    /// The version visible at `revision`; `None` if the key did not exist then.
    pub fn at(&self, revision: Revision) -> Option<&Version> {
        let visible = if self.latest.modified <= revision {
            &self.latest
        } else {
            let older = self.older();
            &older[older.partition_point(|version| version.modified <= revision).checked_sub(1)?]
        };
        Some(visible).filter(|visible| !visible.tombstone)
    }

    /// Every version that affects a read at some revision from `from` up to and including `to`, oldest
    /// first. A tombstone at or before `from` affects none, so the result does not depend on whether
    /// the history was pruned at `from` or earlier.
    pub fn visible_between(&self, from: Revision, to: Revision) -> impl Iterator<Item = &Version> {
        let all = self.older().iter().chain([&self.latest]);
        let next = all.clone().skip(1).map(Some).chain([None]);
        all.zip(next).filter_map(move |(version, next)| {
            let outlives = next.is_none_or(|next| next.modified > version.modified.max(from));
            let gone = version.tombstone && version.modified <= from;
            (version.modified <= to && outlives && !gone).then_some(version)
        })
    }

    /// Drops and reports the versions that neither a read at `revision` or later nor a watch from
    /// `revision` on can see. False: nothing is left.
    pub fn prune(&mut self, revision: Revision, discarded: &mut Vec<RecordId>) -> bool {
        if self.latest.modified <= revision {
            discarded.extend(self.older().iter().map(Version::id));
            self.older = None;
            let kept = self.latest.outlasts(revision);
            if !kept {
                discarded.push(self.latest.id());
            }
            return kept;
        }
        let Some(Older(older)) = self.older.as_deref_mut() else { return true };
        let outdated = older.partition_point(|version| version.modified <= revision);
        let kept = outdated.checked_sub(1).is_some_and(|newest| older[newest].outlasts(revision));
        let dropped = outdated - usize::from(kept);
        discarded.extend(older.drain(..dropped).map(|version| version.id()));
        if older.is_empty() {
            self.older = None;
        } else if older.capacity() > 2 * older.len() {
            older.shrink_to_fit();
        }
        true
    }

    fn older(&self) -> &[Version] {
        self.older.as_deref().map_or(&[], |older| &older.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(main: i64, sub: u32) -> RecordId {
        RecordId { main: Revision(main), sub }
    }

    fn put(main: i64, sub: u32) -> Version {
        Version::put(id(main, sub), Revision(main), 1, LeaseId(0))
    }

    /// Put at 2 and 4 (twice), deleted at 6, put at 8.
    fn history() -> History {
        let mut history = History::new(put(2, 0));
        for version in [put(4, 0), put(4, 1), Version::tombstone(id(6, 0)), put(8, 0)] {
            history.push(version);
        }
        history
    }

    fn seen(history: &History, at: i64) -> Option<RecordId> {
        history.at(Revision(at)).map(Version::id)
    }

    #[test]
    fn a_read_sees_the_last_change_of_the_newest_revision_not_after_it() {
        let history = history();
        assert_eq!(seen(&history, 1), None);
        assert_eq!(seen(&history, 3), Some(id(2, 0)));
        assert_eq!(seen(&history, 4), Some(id(4, 1)));
        assert_eq!(seen(&history, 7), None);
        assert_eq!(seen(&history, 9), Some(id(8, 0)));
    }

    #[test]
    fn pruning_hides_nothing_from_reads_at_or_after_its_revision() {
        for pruned_at in 1..10 {
            let (whole, mut pruned) = (history(), history());
            let mut discarded = Vec::new();
            assert!(pruned.prune(Revision(pruned_at), &mut discarded));
            for at in pruned_at..10 {
                assert_eq!(
                    seen(&whole, at),
                    seen(&pruned, at),
                    "pruned at {pruned_at}, read at {at}"
                );
            }
            let between = |history: &History| -> Vec<_> {
                history.visible_between(Revision(pruned_at), Revision(9)).map(Version::id).collect()
            };
            assert_eq!(between(&whole), between(&pruned), "pruned at {pruned_at}");
            assert!(between(&pruned).iter().all(|kept| !discarded.contains(kept)));
        }
    }

    #[test]
    fn a_deleted_key_leaves_nothing_behind_once_its_deletion_is_compacted() {
        let mut history = History::new(put(2, 0));
        history.push(Version::tombstone(id(3, 0)));
        let mut discarded = Vec::new();
        assert!(!history.prune(Revision(4), &mut discarded));
        assert_eq!(discarded, [id(2, 0), id(3, 0)]);
    }

    #[test]
    fn a_deletion_at_the_compacted_revision_itself_stays_until_the_next_compaction() {
        let mut history = History::new(put(2, 0));
        history.push(Version::tombstone(id(3, 0)));
        history.push(put(5, 0));
        history.push(Version::tombstone(id(6, 0)));
        let mut discarded = Vec::new();
        assert!(history.prune(Revision(3), &mut discarded));
        assert_eq!(discarded, [id(2, 0)]);
        assert!(history.prune(Revision(6), &mut discarded));
        assert_eq!(discarded, [id(2, 0), id(3, 0), id(5, 0)]);
        assert!(!history.prune(Revision(7), &mut discarded));
        assert_eq!(discarded, [id(2, 0), id(3, 0), id(5, 0), id(6, 0)], "each of them once");
    }
}
