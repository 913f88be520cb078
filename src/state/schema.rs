//! Every key of the state in the tables, and the encoding of its value. Only this file makes them.
//!
//! A key is a kind (one byte) and, if there are several entries of the kind, a number (big-endian, for
//! the order). Kinds below 0x10 belong to the storage.
//!
//! | kind | number | value |
//! |---|---|---|
//! | 0x10 meta | | format version, current revision, compacted revision, last assigned member, last epoch of a lease |
//! | 0x11 membership | | encoded by the Raft layer |
//! | 0x12 member | id | ordinal, name, peer URLs, client URLs |
//! | 0x13 assignment | nonce | the assigned member id |
//! | 0x14 boot | member id | starts of its volume |
//! | 0x15 roster | | last admitted member; the desired replicas if recorded: set, generation, start, replicas |
//! | 0x20 leases | epoch / 64 | for each lease of these epochs: epoch, id, TTL, remaining |
//! | 0x21–0x2f | | reserved for leases |
//! | 0x30–0x3f | | reserved for auth |
//! | 0x40–0x4f | | reserved for alarms |
//!
//! Numbers are big-endian and of fixed size. A text or list is preceded by its length in 4 bytes.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::storage::TableChange;
use crate::types::{
    DesiredReplicas, Lease, LeaseId, MemberAttributes, MemberId, Ordinal, Revision,
};

/// The key of the membership, for readers of a snapshot.
pub const MEMBERSHIP_KEY: &[u8] = &[MEMBERSHIP];

const META: u8 = 0x10;
const MEMBERSHIP: u8 = 0x11;
const MEMBER: u8 = 0x12;
const ASSIGNMENT: u8 = 0x13;
const BOOT: u8 = 0x14;
const ROSTER: u8 = 0x15;
const LEASES: u8 = 0x20;

/// To be raised with every change of an encoding. Older versions must stay readable.
const FORMAT_VERSION: u8 = 2;
/// Epochs that share a table entry. A small entry costs the tables as much as a large one, and leases
/// that are granted or end one after the other share an entry.
const LEASE_PAGE_EPOCHS: u64 = 64;

/// The version before leases: its meta has no epoch.
const FORMAT_WITHOUT_LEASES: u8 = 1;

/// The counters of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub revision: Revision,
    /// [`NEVER_COMPACTED`] until the first compaction.
    pub compacted: Revision,
    /// Zero: none assigned yet.
    pub last_assigned: MemberId,
    /// Zero: no lease granted yet.
    pub last_epoch: u64,
}

/// etcd's compact revision of a store that was never compacted. Negative, so that such a store can be
/// compacted at zero, as in etcd.
pub const NEVER_COMPACTED: Revision = Revision(-1);

impl Default for Meta {
    fn default() -> Self {
        Meta {
            revision: Revision::EMPTY_STORE,
            compacted: NEVER_COMPACTED,
            last_assigned: MemberId::default(),
            last_epoch: 0,
        }
    }
}

/// One entry of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableEntry {
    Meta(Meta),
    Membership(Bytes),
    /// Without the boot counter.
    Member(MemberAttributes),
    Assignment {
        nonce: u64,
        member: MemberId,
    },
    Boot {
        member: MemberId,
        boot: u64,
    },
    Roster {
        last_admitted: MemberId,
        desired: Option<DesiredReplicas>,
    },
    /// In ascending order of epoch.
    Leases {
        page: u64,
        leases: Vec<Lease>,
    },
}

/// A table entry that is damaged or has an unknown format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table entry {key}: {problem}")]
pub struct SchemaError {
    /// Hexadecimal.
    pub key: String,
    pub problem: &'static str,
}

impl TableEntry {
    /// The change that writes this entry. A page without leases is deleted.
    pub fn put(&self) -> TableChange {
        let (key, value) = self.encode();
        match self {
            TableEntry::Leases { leases, .. } if leases.is_empty() => TableChange::Delete { key },
            _ => TableChange::Put { key, value },
        }
    }

    pub fn encode(&self) -> (Bytes, Bytes) {
        match self {
            TableEntry::Meta(meta) => {
                let mut value = BytesMut::with_capacity(33);
                value.put_u8(FORMAT_VERSION);
                value.put_i64(meta.revision.0);
                value.put_i64(meta.compacted.0);
                value.put_u64(meta.last_assigned.0);
                value.put_u64(meta.last_epoch);
                (Bytes::from_static(&[META]), value.freeze())
            }
            TableEntry::Membership(bytes) => (Bytes::from_static(MEMBERSHIP_KEY), bytes.clone()),
            TableEntry::Member(attributes) => {
                let mut value = BytesMut::new();
                value.put_u32(attributes.ordinal.0);
                put_text(&mut value, &attributes.name);
                put_list(&mut value, &attributes.peer_urls);
                put_list(&mut value, &attributes.client_urls);
                (numbered(MEMBER, attributes.member.0), value.freeze())
            }
            TableEntry::Assignment { nonce, member } => {
                (numbered(ASSIGNMENT, *nonce), Bytes::copy_from_slice(&member.0.to_be_bytes()))
            }
            TableEntry::Boot { member, boot } => {
                (numbered(BOOT, member.0), Bytes::copy_from_slice(&boot.to_be_bytes()))
            }
            TableEntry::Roster { last_admitted, desired } => {
                let mut value = BytesMut::new();
                value.put_u64(last_admitted.0);
                if let Some(desired) = desired {
                    put_text(&mut value, &desired.set);
                    value.put_u64(desired.generation);
                    value.put_u32(desired.start);
                    value.put_u32(desired.replicas);
                }
                (Bytes::from_static(&[ROSTER]), value.freeze())
            }
            TableEntry::Leases { page, leases } => {
                let mut value = BytesMut::with_capacity(leases.len() * 32);
                for Lease { id, ttl, remaining, epoch } in leases {
                    value.put_u64(*epoch);
                    value.put_i64(id.0);
                    value.put_i64(*ttl);
                    value.put_i64(*remaining);
                }
                (numbered(LEASES, *page), value.freeze())
            }
        }
    }

    pub fn decode(key: &Bytes, value: &Bytes) -> Result<TableEntry, SchemaError> {
        let damaged = |problem| SchemaError { key: hexadecimal(key), problem };
        let (mut number, mut rest) = (key.clone(), value.clone());
        let kind = number.try_get_u8().map_err(|_| damaged("the key is empty"))?;
        let entry = match kind {
            META => decode_meta(&mut rest),
            MEMBERSHIP => Ok(TableEntry::Membership(rest.split_off(0))),
            MEMBER => decode_member(&mut number, &mut rest),
            ASSIGNMENT => decode_assignment(&mut number, &mut rest),
            BOOT => decode_boot(&mut number, &mut rest),
            ROSTER => decode_roster(&mut rest),
            LEASES => decode_leases(&mut number, &mut rest),
            _ => Err("unknown kind; a newer version may have written it"),
        }
        .map_err(damaged)?;
        if !number.is_empty() || !rest.is_empty() {
            return Err(damaged("trailing bytes"));
        }
        Ok(entry)
    }
}

const TRUNCATED: &str = "truncated";

fn decode_meta(value: &mut Bytes) -> Result<TableEntry, &'static str> {
    let version = get_u8(value)?;
    if ![FORMAT_VERSION, FORMAT_WITHOUT_LEASES].contains(&version) {
        return Err("unknown format version");
    }
    let revision = Revision(get_i64(value)?);
    let compacted = Revision(get_i64(value)?);
    let last_assigned = MemberId(get_u64(value)?);
    let last_epoch = if version == FORMAT_WITHOUT_LEASES { 0 } else { get_u64(value)? };
    if revision < Revision::EMPTY_STORE || compacted < NEVER_COMPACTED || compacted > revision {
        return Err("inconsistent revisions");
    }
    Ok(TableEntry::Meta(Meta { revision, compacted, last_assigned, last_epoch }))
}

fn decode_member(key: &mut Bytes, value: &mut Bytes) -> Result<TableEntry, &'static str> {
    Ok(TableEntry::Member(MemberAttributes {
        member: MemberId(get_u64(key)?),
        ordinal: Ordinal(get_u32(value)?),
        name: get_text(value)?,
        peer_urls: get_list(value)?,
        client_urls: get_list(value)?,
        boot: 0,
    }))
}

fn decode_assignment(key: &mut Bytes, value: &mut Bytes) -> Result<TableEntry, &'static str> {
    Ok(TableEntry::Assignment { nonce: get_u64(key)?, member: MemberId(get_u64(value)?) })
}

fn decode_boot(key: &mut Bytes, value: &mut Bytes) -> Result<TableEntry, &'static str> {
    Ok(TableEntry::Boot { member: MemberId(get_u64(key)?), boot: get_u64(value)? })
}

fn decode_roster(value: &mut Bytes) -> Result<TableEntry, &'static str> {
    let last_admitted = MemberId(get_u64(value)?);
    let desired = match value.is_empty() {
        true => None,
        false => Some(DesiredReplicas {
            set: get_text(value)?,
            generation: get_u64(value)?,
            start: get_u32(value)?,
            replicas: get_u32(value)?,
        }),
    };
    Ok(TableEntry::Roster { last_admitted, desired })
}

fn decode_leases(key: &mut Bytes, value: &mut Bytes) -> Result<TableEntry, &'static str> {
    let (page, mut leases) = (get_u64(key)?, Vec::new());
    while !value.is_empty() {
        let epoch = get_u64(value)?;
        if lease_page(epoch) != page {
            return Err("a lease of another page");
        }
        leases.push(Lease {
            epoch,
            id: LeaseId(get_i64(value)?),
            ttl: get_i64(value)?,
            remaining: get_i64(value)?,
        });
    }
    Ok(TableEntry::Leases { page, leases })
}

/// The page of leases of this epoch.
pub fn lease_page(epoch: u64) -> u64 {
    epoch / LEASE_PAGE_EPOCHS
}

/// The epochs of this page.
pub fn lease_page_epochs(page: u64) -> Range<u64> {
    page * LEASE_PAGE_EPOCHS..(page + 1) * LEASE_PAGE_EPOCHS
}

fn numbered(kind: u8, number: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(kind);
    key.put_u64(number);
    key.freeze()
}

/// Texts and lists are far below 4 GiB: a request is bounded to a few MiB.
fn put_len(buf: &mut BytesMut, len: usize) {
    buf.put_u32(u32::try_from(len).expect("bounded by the size of a request"));
}

fn put_text(buf: &mut BytesMut, text: &str) {
    put_len(buf, text.len());
    buf.put_slice(text.as_bytes());
}

fn put_list(buf: &mut BytesMut, list: &[String]) {
    put_len(buf, list.len());
    list.iter().for_each(|text| put_text(buf, text));
}

fn get_u8(buf: &mut Bytes) -> Result<u8, &'static str> {
    buf.try_get_u8().map_err(|_| TRUNCATED)
}

fn get_u32(buf: &mut Bytes) -> Result<u32, &'static str> {
    buf.try_get_u32().map_err(|_| TRUNCATED)
}

fn get_u64(buf: &mut Bytes) -> Result<u64, &'static str> {
    buf.try_get_u64().map_err(|_| TRUNCATED)
}

fn get_i64(buf: &mut Bytes) -> Result<i64, &'static str> {
    buf.try_get_i64().map_err(|_| TRUNCATED)
}

fn get_text(buf: &mut Bytes) -> Result<String, &'static str> {
    let len = get_u32(buf)? as usize;
    if len > buf.len() {
        return Err(TRUNCATED);
    }
    let text = buf.split_to(len);
    str::from_utf8(&text).map(str::to_owned).map_err(|_| "text is not UTF-8")
}

fn get_list(buf: &mut Bytes) -> Result<Vec<String>, &'static str> {
    let len = get_u32(buf)?;
    (0..len).map(|_| get_text(buf)).collect()
}

fn hexadecimal(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = TableEntry> {
        let texts = || prop::collection::vec(".{0,20}", 0..4);
        prop_oneof![
            (1..i64::MAX, -1..i64::MAX, any::<u64>(), any::<u64>()).prop_map(
                |(a, b, last, last_epoch)| {
                    TableEntry::Meta(Meta {
                        revision: Revision(a.max(b)),
                        compacted: Revision(b),
                        last_assigned: MemberId(last),
                        last_epoch,
                    })
                }
            ),
            any::<Vec<u8>>().prop_map(|bytes| TableEntry::Membership(bytes.into())),
            (any::<u64>(), any::<u32>(), ".{0,20}", texts(), texts()).prop_map(
                |(member, ordinal, name, peer_urls, client_urls)| {
                    TableEntry::Member(MemberAttributes {
                        member: MemberId(member),
                        ordinal: Ordinal(ordinal),
                        name,
                        peer_urls,
                        client_urls,
                        boot: 0,
                    })
                }
            ),
            (any::<u64>(), any::<u64>())
                .prop_map(|(id, boot)| TableEntry::Boot { member: MemberId(id), boot }),
            (any::<u64>(), prop::option::of((".{0,20}", any::<u64>(), any::<u32>(), any::<u32>())))
                .prop_map(|(last, desired)| TableEntry::Roster {
                    last_admitted: MemberId(last),
                    desired: desired.map(|(set, generation, start, replicas)| DesiredReplicas {
                        set,
                        generation,
                        start,
                        replicas,
                    }),
                }),
            (any::<u64>(), any::<u64>()).prop_map(|(nonce, member)| TableEntry::Assignment {
                nonce,
                member: MemberId(member)
            }),
            (0u64..1 << 40, prop::collection::vec(any::<[i64; 3]>(), 0..9)).prop_map(
                |(page, leases)| {
                    let leases = lease_page_epochs(page).zip(leases);
                    let lease = |(epoch, [id, ttl, remaining]): (u64, [i64; 3])| Lease {
                        id: LeaseId(id),
                        ttl,
                        remaining,
                        epoch,
                    };
                    TableEntry::Leases { page, leases: leases.map(lease).collect() }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(entry in entries()) {
            let (key, value) = entry.encode();
            prop_assert_eq!(TableEntry::decode(&key, &value), Ok(entry));
        }

        #[test]
        fn a_cut_or_grown_entry_is_refused_and_never_a_panic(entry in entries(), cut in 0usize..40) {
            let (key, value) = entry.encode();
            // A page of leases that is truncated between two leases is valid.
            let whole = match &entry {
                TableEntry::Membership(_) => true,
                TableEntry::Leases { .. } => cut % 32 == 0,
                // A roster without desired replicas is valid, too.
                TableEntry::Roster { .. } => cut == 8,
                _ => false,
            };
            prop_assume!(!whole && cut < value.len());
            prop_assert!(TableEntry::decode(&key, &value.slice(..cut)).is_err());
            let grown = Bytes::from([&value[..], &[0]].concat());
            prop_assert!(TableEntry::decode(&key, &grown).is_err());
        }

        #[test]
        fn garbage_is_never_a_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = TableEntry::decode(&key.into(), &value.into());
        }
    }

    #[test]
    fn format_version_1_is_still_read() {
        let value = [&[1][..], &7i64.to_be_bytes(), &3i64.to_be_bytes(), &1025u64.to_be_bytes()];
        let meta = Meta {
            revision: Revision(7),
            compacted: Revision(3),
            last_assigned: MemberId(1025),
            last_epoch: 0,
        };
        let decoded = TableEntry::decode(&Bytes::from_static(&[META]), &value.concat().into());
        assert_eq!(decoded, Ok(TableEntry::Meta(meta)));
    }

    #[test]
    fn an_error_names_the_key() {
        let error = TableEntry::decode(&Bytes::from_static(&[0x99, 1]), &Bytes::new()).unwrap_err();
        assert!(error.to_string().starts_with("table entry 9901: "), "{error}");
    }
}
