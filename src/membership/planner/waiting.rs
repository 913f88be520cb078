//! For whom the planner waits, and why, in words for people.

use std::{collections::BTreeSet, fmt};

use super::Member;
use crate::types::{Ordinal, PeerPlace};

/// A change that cannot be made yet. As text it is one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// By ordinal. Empty where it is not members that are waited for, or it is not known for whom.
    pub for_members: Vec<PeerPlace>,
    pub why: Why,
}

/// What has to come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The last change of the membership is not committed. It waits for the voters that are out of
    /// contact.
    Uncommitted,
    /// Too few of those who vote now are in contact and have caught up.
    PresentVoters,
    /// Too few of those who would vote are in contact and have caught up.
    NextVoters,
    /// Wanted members that would vote if they were in contact and had caught up.
    Learners,
    /// Voters are to leave, and those who stay are out of contact or behind.
    Successors,
    /// The leader is to leave, and those who could lead are behind.
    Heir,
    /// Members that leave still answer what they were asked.
    Leavers,
    /// Pods that are wanted and have not joined, as many as should vote.
    Pods(BTreeSet<Ordinal>),
}

impl Waiting {
    pub(super) fn new<'a>(why: Why, members: impl IntoIterator<Item = &'a Member>) -> Waiting {
        let mut for_members: Vec<PeerPlace> = members.into_iter().map(|m| m.place).collect();
        for_members.sort_by_key(|p| (p.ordinal, p.member));
        Waiting { for_members, why }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        for (n, place) in self.for_members.iter().enumerate() {
            let before = if n == 0 { ": waiting for" } else { "," };
            write!(f, "{before} ordinal {} (member {})", place.ordinal, place.member)?;
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Why::Uncommitted => "the last change of the membership is not committed",
            Why::PresentVoters => "too few voters are in contact and caught up to change anything",
            Why::NextVoters => "too few of the next voters are in contact and caught up",
            Why::Learners => "more members should vote, and are not in contact or not caught up",
            Why::Successors => "voters are to leave, and those who stay cannot take over",
            Why::Heir => "the leader is to leave, and nobody who stays has caught up",
            Why::Leavers => "members that leave still answer what they were asked",
            Why::Pods(places) => {
                write!(f, "more members should vote, and have not joined: waiting for ordinal")?;
                for (n, ordinal) in places.iter().enumerate() {
                    let before = if n == 0 { " " } else { ", " };
                    write!(f, "{before}{ordinal}")?;
                }
                return Ok(());
            }
        };
        f.write_str(text)
    }
}
