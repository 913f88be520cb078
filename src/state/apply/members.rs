//! Commands about members.

use std::sync::Arc;

use crate::{
    state::{
        machine::StateMachine, roster::FOUNDERS_LAST, schema::TableEntry, storage::TableChange,
    },
    types::{CommandError, DesiredReplicas, LogPosition, MemberAttributes, MemberId, Reply},
};

impl StateMachine {
    pub(super) fn set_member_attributes(&mut self, attributes: MemberAttributes) -> Reply {
        let MemberAttributes { member, boot, .. } = attributes;
        self.changes.tables.push(TableEntry::Member(attributes.clone()).put());
        self.changes.tables.push(TableEntry::Boot { member, boot }.put());
        Arc::make_mut(&mut self.roster).members.insert(member, attributes);
        Reply::MembersUpdated
    }

    /// The id is the entry's index above [`FOUNDERS_LAST`], or the one after the last assigned id if
    /// that is higher: so several ids of one entry differ, and ids always ascend.
    pub(super) fn assign_member(&mut self, position: LogPosition, nonce: u64) -> Reply {
        if let Some(member) = self.assignments.get(&nonce) {
            return Reply::Assigned(*member);
        }
        let next = self.meta.last_assigned.0 + 1;
        let member = MemberId(next.max(FOUNDERS_LAST.0 + position.index));
        self.meta.last_assigned = member;
        self.assignments.insert(nonce, member);
        self.changes.tables.push(TableEntry::Assignment { nonce, member }.put());
        Reply::Assigned(member)
    }

    /// Uses up an id. Ids ascend: an id that is not above the last admitted one can never be admitted.
    pub(super) fn admit_member(&mut self, member: MemberId) -> Result<Reply, CommandError> {
        if self.roster.was_used(member) || member > self.meta.last_assigned {
            return Err(CommandError::MemberIdUsed);
        }
        let roster = Arc::make_mut(&mut self.roster);
        roster.last_admitted = member;
        self.changes.tables.push(roster.table_entry().put());
        // Lower assigned ids can no longer be admitted.
        let dead = self.assignments.extract_if(.., |_, id| *id <= member);
        for (nonce, member) in dead {
            let (key, _) = TableEntry::Assignment { nonce, member }.encode();
            self.changes.tables.push(TableChange::Delete { key });
        }
        Ok(Reply::Assigned(member))
    }

    /// Ignores a reading that is older than the recorded one of the same StatefulSet.
    pub(super) fn set_desired_replicas(&mut self, desired: DesiredReplicas) -> Reply {
        let known = self.roster.desired.as_ref();
        let older =
            known.is_some_and(|k| k.set == desired.set && k.generation > desired.generation);
        if !older && known != Some(&desired) {
            let roster = Arc::make_mut(&mut self.roster);
            roster.desired = Some(desired);
            self.changes.tables.push(roster.table_entry().put());
        }
        Reply::MembersUpdated
    }
}
