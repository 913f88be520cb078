//! The obstacle to the next membership change, with a sentence for operators.

use std::{collections::BTreeSet, fmt};

use super::observed::Member;
use crate::types::{MemberRef, Ordinal};

/// A change that is not possible yet. `Display` prints one sentence for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub by: BlockedBy,
    /// By ordinal. Empty if the change does not wait for members, or they are not known.
    pub waiting_for: Vec<MemberRef>,
}

/// The condition that must hold first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockedBy {
    /// The previous membership change is not committed: it waits for the voters out of contact.
    UncommittedChange,
    /// Too few of the current voters are in contact and caught up.
    CurrentVoters,
    /// Too few of the next voters are in contact and caught up.
    NextVoters,
    /// Wanted members that would vote if they were in contact and caught up.
    Learners,
    /// Voters are leaving, and the staying members are out of contact or behind.
    StayingMembers,
    /// The leader is leaving, and its possible successors are behind.
    Successor,
    /// Leaving members have not reported that they are drained.
    DrainingMembers,
    /// Pods in the StatefulSet that have not joined, as many as should vote.
    MissingPods(BTreeSet<Ordinal>),
}

impl Blocked {
    pub fn new<'a>(by: BlockedBy, members: impl IntoIterator<Item = &'a Member>) -> Blocked {
        let mut waiting_for: Vec<MemberRef> = members.into_iter().map(|m| m.member_ref).collect();
        waiting_for.sort_by_key(|m| (m.ordinal, m.member));
        Blocked { by, waiting_for }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.by)?;
        for (n, MemberRef { member, ordinal }) in self.waiting_for.iter().enumerate() {
            let before = if n == 0 { ": waiting for" } else { "," };
            write!(f, "{before} ordinal {ordinal} (member {member})")?;
        }
        Ok(())
    }
}

impl fmt::Display for BlockedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            BlockedBy::UncommittedChange => "the previous membership change is not committed",
            BlockedBy::CurrentVoters => {
                "no majority of the voters is in contact and caught up, so no change is possible"
            }
            BlockedBy::NextVoters => "no majority of the next voters is in contact and caught up",
            BlockedBy::Learners => {
                "more members should vote, but are not in contact or not caught up"
            }
            BlockedBy::StayingMembers => "voters are leaving, but no staying member can take over",
            BlockedBy::Successor => "the leader is leaving, but no staying voter has caught up",
            BlockedBy::DrainingMembers => "leaving members have not finished their requests",
            BlockedBy::MissingPods(ordinals) => {
                write!(
                    f,
                    "more members should vote, but their pods have not joined: waiting for ordinal"
                )?;
                for (n, ordinal) in ordinals.iter().enumerate() {
                    let before = if n == 0 { " " } else { ", " };
                    write!(f, "{before}{ordinal}")?;
                }
                return Ok(());
            }
        };
        f.write_str(text)
    }
}
