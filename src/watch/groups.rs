//! Groups of watches that need the same events, and how records are matched to groups.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    events::{EncodedEvents, Encoder, EventOptions},
    watch_index::{Keys, WatchIndex, by_keys},
};
use crate::{state::Record, types::Revision};

/// Watches with the same keys, options and next revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchGroup {
    pub keys: Keys,
    pub options: EventOptions,
    /// The first revision that these watches have not delivered.
    pub next: Revision,
}

/// Finds the groups that a record concerns.
pub struct GroupMatcher {
    index: WatchIndex,
    /// The positions of groups, by the ID of their keys in the index.
    groups: Vec<Vec<usize>>,
}

impl GroupMatcher {
    pub fn of(groups: &[WatchGroup]) -> GroupMatcher {
        let mut matcher = GroupMatcher { index: WatchIndex::default(), groups: Vec::new() };
        for (at, group) in groups.iter().enumerate() {
            match matcher.index.get(&group.keys) {
                Some(keys_id) => matcher.groups[keys_id as usize].push(at),
                None => {
                    matcher.index.insert(group.keys.clone(), matcher.groups.len() as u32);
                    matcher.groups.push(vec![at]);
                }
            }
        }
        matcher
    }

    /// The positions of groups with the same keys, each with the positions of the records on these keys.
    pub fn matches(&self, records: &[Arc<Record>]) -> Vec<(&[usize], Vec<u32>)> {
        // Bounded: a job has few groups on ranges.
        let (matching, _) = self.index.matching(records, usize::MAX);
        let groups = |(keys_id, at)| (&*self.groups[keys_id as usize], at);
        by_keys(&matching).map(groups).collect()
    }
}

/// Encodes, for each group, its events among `records`. Groups without events are left out.
pub fn encode_for_groups<E>(
    records: &[Arc<Record>],
    groups: &[WatchGroup],
    mut encoder: Encoder<'_, E>,
) -> Result<Vec<(usize, EncodedEvents)>, E> {
    let mut encoded = BTreeMap::new();
    for (group_positions, record_positions) in GroupMatcher::of(groups).matches(records) {
        for at in group_positions {
            let WatchGroup { next, options, .. } = groups[*at];
            if let Some(events) = encoder.encode(&record_positions, next, options)? {
                encoded.insert(*at, events);
            }
        }
    }
    Ok(encoded.into_iter().collect())
}
