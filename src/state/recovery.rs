//! Decodes the tables and rebuilds the index at recovery.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    error::StateError,
    history::Version,
    index::Index,
    roster::Roster,
    schema::{Meta, SchemaError, TableEntry},
    storage::RecordMeta,
};
use crate::types::{Lease, MemberAttributes, MemberId, Revision};

/// Records sorted by key before they are indexed together. Consecutive keys find their leaf in the CPU
/// cache, which saves far more than the sorting costs.
const LOAD_CHUNK_RECORDS: usize = 1 << 18;

/// The decoded entries of the tables.
#[derive(Default)]
pub struct DecodedTables {
    pub meta: Option<Meta>,
    pub membership: Option<Bytes>,
    pub roster: Roster,
    /// Boot counters of members whose attributes are not decoded yet.
    boots: BTreeMap<MemberId, u64>,
    pub assignments: BTreeMap<u64, MemberId>,
    pub leases: Vec<Lease>,
}

impl DecodedTables {
    pub fn decode(
        entries: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<DecodedTables, SchemaError> {
        let mut tables = DecodedTables::default();
        for (key, value) in entries {
            match TableEntry::decode(&key, &value)? {
                TableEntry::Meta(meta) => tables.meta = Some(meta),
                TableEntry::Membership(bytes) => tables.membership = Some(bytes),
                TableEntry::Member(attributes) => {
                    let boot = tables.boots.remove(&attributes.member).unwrap_or_default();
                    let attributes = MemberAttributes { boot, ..attributes };
                    tables.roster.members.insert(attributes.member, attributes);
                }
                TableEntry::Boot { member, boot } => match tables.roster.members.get_mut(&member) {
                    Some(attributes) => attributes.boot = boot,
                    None => drop(tables.boots.insert(member, boot)),
                },
                TableEntry::Roster { last_admitted, desired } => {
                    tables.roster.last_admitted = last_admitted;
                    tables.roster.desired = desired;
                }
                TableEntry::Assignment { nonce, member } => {
                    tables.assignments.insert(nonce, member);
                }
                TableEntry::Leases { leases, .. } => tables.leases.extend(leases),
            }
        }
        Ok(tables)
    }
}

/// Builds the index from all records, which must ascend and not be newer than `revision`.
pub fn build_index(
    records: impl IntoIterator<Item = RecordMeta>,
    revision: Revision,
) -> Result<Index, StateError> {
    let index = Index::default();
    let mut chunk = Vec::new();
    let mut last = None;
    for record in records {
        let id = record.id;
        if last.is_some_and(|last| last >= id) {
            return Err(StateError::Record { id, problem: "records do not ascend" });
        }
        if id.main > revision {
            let problem = "newer than the revision that the tables name";
            return Err(StateError::Record { id, problem });
        }
        last = Some(id);
        let version = Version::of(&record);
        chunk.push((record.key, version));
        if chunk.len() == LOAD_CHUNK_RECORDS {
            add(&index, &mut chunk);
        }
    }
    add(&index, &mut chunk);
    Ok(index)
}

fn add(index: &Index, chunk: &mut Vec<(Bytes, Version)>) {
    chunk.sort_unstable_by(|(a, older), (b, newer)| a.cmp(b).then(older.id().cmp(&newer.id())));
    chunk.drain(..).for_each(|(key, version)| index.append(&key, version));
}
