//! The roster: the cluster's knowledge of its members, apart from Raft's membership. It holds their
//! attributes, the desired replicas and the used ids.

use std::collections::BTreeMap;

use super::schema::TableEntry;
use crate::types::{DesiredReplicas, MemberAttributes, MemberId};

/// Founders choose ids up to this one; ids that are assigned later are above it.
pub const FOUNDERS_LAST: MemberId = MemberId(1024);

/// The roster as of one entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// Includes members that have left since.
    pub members: BTreeMap<MemberId, MemberAttributes>,
    /// `None`: not recorded yet.
    pub desired: Option<DesiredReplicas>,
    /// The highest id that was admitted into the membership, apart from founders.
    pub last_admitted: MemberId,
}

impl Roster {
    /// Whether an id was used. A used id that is not in the membership is dead.
    pub fn was_used(&self, member: MemberId) -> bool {
        member <= FOUNDERS_LAST.max(self.last_admitted)
    }

    pub(super) fn table_entry(&self) -> TableEntry {
        TableEntry::Roster { last_admitted: self.last_admitted, desired: self.desired.clone() }
    }
}
