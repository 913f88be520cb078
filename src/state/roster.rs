//! What the cluster knows of its members beside Raft's own membership: how they describe themselves,
//! how many there are to be, which ids were used.

use std::{collections::BTreeMap, sync::Arc};

use super::{machine::Machine, schema::TableEntry};
use crate::types::{CommandError, Desired, MemberAttributes, MemberId, Reply};

/// Ids that founders choose are not above this; those that are assigned later are.
pub(super) const FOUNDERS_LAST: MemberId = MemberId(1024);

/// As of one entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// Also those that have left since.
    pub members: BTreeMap<MemberId, MemberAttributes>,
    /// `None`: nobody said so far.
    pub desired: Option<Desired>,
    /// The highest id that was let into the membership after the founders' ones.
    pub last_admitted: MemberId,
}

impl Roster {
    /// Whether an id was used, so that it is dead if it is not in the membership.
    pub fn was_used(&self, member: MemberId) -> bool {
        member <= FOUNDERS_LAST.max(self.last_admitted)
    }

    fn summary(&self) -> TableEntry {
        TableEntry::Roster { last_admitted: self.last_admitted, desired: self.desired.clone() }
    }
}

impl Machine {
    pub(super) fn describe(&mut self, attributes: MemberAttributes) -> Reply {
        let MemberAttributes { member, boot, .. } = attributes;
        self.changes.tables.push(TableEntry::Member(attributes.clone()).put());
        self.changes.tables.push(TableEntry::Boot { member, boot }.put());
        Arc::make_mut(&mut self.roster).members.insert(member, attributes);
        Reply::Described
    }

    /// A wish that is older than the one known, of the same set of pods, is passed over.
    pub(super) fn desire(&mut self, desired: Desired) -> Reply {
        let known = self.roster.desired.as_ref();
        let older =
            known.is_some_and(|k| k.set == desired.set && k.generation > desired.generation);
        if !older && known != Some(&desired) {
            let roster = Arc::make_mut(&mut self.roster);
            roster.desired = Some(desired);
            self.changes.tables.push(roster.summary().put());
        }
        Reply::Described
    }

    /// Uses an id up. Ids ascend: one that is not above the last one can never be let in any more.
    pub(super) fn admit(&mut self, member: MemberId) -> Result<Reply, CommandError> {
        if self.roster.was_used(member) || member > self.meta.last_assigned {
            return Err(CommandError::DeadMember);
        }
        let roster = Arc::make_mut(&mut self.roster);
        roster.last_admitted = member;
        self.changes.tables.push(roster.summary().put());
        Ok(Reply::Assigned(member))
    }
}
