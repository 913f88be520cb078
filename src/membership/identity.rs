//! The `identity` file: the member that a volume belongs to.

use std::path::Path;

use prost::Message;

use crate::{
    disk::{self, Disk},
    proto::peer,
    types::{ClusterId, MemberId, MemberRef, Ordinal},
};

/// The first bytes of the file. The last of them is the format version of the data directory.
const MAGIC: [u8; 8] = *b"ORDINAL\x01";

/// The volume's stage on its way to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Promised to a cluster that may not be formed yet. It has no log.
    Promised,
    /// Has an assigned id that may not be admitted yet.
    Assigned,
    /// Has a log.
    Member,
    /// Removed or replaced: the next start archives the volume's data.
    Dead,
    /// The next start continues alone, as a new cluster: see `bootstrap/recover.rs`.
    Recovering,
}

/// One incarnation: a volume's membership in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub ordinal: Ordinal,
    /// namespace/StatefulSet, or empty outside Kubernetes.
    pub home: String,
    /// The number of starts so far.
    pub boot: u64,
    pub stage: Stage,
    /// All founders, until the volume is a member.
    pub founders: Vec<MemberRef>,
    /// The cluster that this volume's recovery continues: the only formed one that the recovery may replace
    /// in the bootstrap record. `None`: it was not recovered, or an older build stored the order.
    pub recovered_from: Option<ClusterId>,
}

/// An identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{file}: {source}")]
    Io { file: String, source: std::io::Error },
    #[error("{0}: not an identity file of Ordinal, or damaged at offset 0")]
    NotOurs(String),
    #[error("{file}: format version {found}, this program reads version {}", MAGIC[7])]
    Version { file: String, found: u8 },
    #[error("{file}: damaged: checksum does not match at offset {offset}")]
    Damaged { file: String, offset: u64 },
}

impl Identity {
    /// `None` if the file does not exist.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, IdentityError> {
        let file = path.display().to_string();
        let bytes = match disk::read(disk, path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { file, source }),
        };
        decode(&bytes, file).map(Some)
    }

    /// Replaces the file, durably.
    pub fn store(&self, disk: &dyn Disk, path: &Path) -> Result<(), IdentityError> {
        disk::write_atomic(disk, path, &self.encode())
            .map_err(|source| IdentityError::Io { file: path.display().to_string(), source })
    }

    fn encode(&self) -> Vec<u8> {
        let stage = match self.stage {
            Stage::Promised => peer::identity::Stage::Promised,
            Stage::Assigned => peer::identity::Stage::Assigned,
            Stage::Member => peer::identity::Stage::Member,
            Stage::Dead => peer::identity::Stage::Dead,
            Stage::Recovering => peer::identity::Stage::Recovering,
        };
        let wire = peer::Identity {
            cluster_id: self.cluster.0,
            member_id: self.member.0,
            ordinal: self.ordinal.0,
            home: self.home.clone(),
            boot: self.boot,
            stage: stage.into(),
            founders: self.founders.iter().copied().map(member_ref_to_wire).collect(),
            recovered_from: self.recovered_from.map_or(0, |cluster| cluster.0),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(wire.encode_to_vec());
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}

pub(crate) fn member_ref_to_wire(member_ref: MemberRef) -> peer::MemberPlace {
    peer::MemberPlace { member_id: member_ref.member.0, ordinal: member_ref.ordinal.0 }
}

pub(crate) fn member_ref_from_wire(wire: peer::MemberPlace) -> MemberRef {
    MemberRef { member: MemberId(wire.member_id), ordinal: Ordinal(wire.ordinal) }
}

fn decode(bytes: &[u8], file: String) -> Result<Identity, IdentityError> {
    let (magic, version) = (&MAGIC[..7], MAGIC[7]);
    if bytes.len() < MAGIC.len() + 4 || &bytes[..7] != magic {
        return Err(IdentityError::NotOurs(file));
    }
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    if crc != crc32fast::hash(body).to_le_bytes() {
        return Err(IdentityError::Damaged { file, offset: body.len() as u64 });
    }
    if bytes[7] != version {
        return Err(IdentityError::Version { file, found: bytes[7] });
    }
    let damaged = |file| IdentityError::Damaged { file, offset: MAGIC.len() as u64 };
    let Ok(wire) = peer::Identity::decode(&body[MAGIC.len()..]) else { return Err(damaged(file)) };
    let stage = match peer::identity::Stage::try_from(wire.stage) {
        Ok(peer::identity::Stage::Promised) => Stage::Promised,
        Ok(peer::identity::Stage::Assigned) => Stage::Assigned,
        Ok(peer::identity::Stage::Member) => Stage::Member,
        Ok(peer::identity::Stage::Dead) => Stage::Dead,
        Ok(peer::identity::Stage::Recovering) => Stage::Recovering,
        Err(_) => return Err(damaged(file)),
    };
    Ok(Identity {
        cluster: ClusterId(wire.cluster_id),
        member: MemberId(wire.member_id),
        ordinal: Ordinal(wire.ordinal),
        home: wire.home,
        boot: wire.boot,
        stage,
        founders: wire.founders.into_iter().map(member_ref_from_wire).collect(),
        recovered_from: Some(wire.recovered_from).filter(|id| *id != 0).map(ClusterId),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId(0xfeed),
            member: MemberId(2),
            ordinal: Ordinal(1),
            home: "default/kv".into(),
            boot: 7,
            stage: Stage::Promised,
            founders: vec![MemberRef { member: MemberId(1), ordinal: Ordinal(0) }],
            recovered_from: Some(ClusterId(0xdead)),
        }
    }

    #[test]
    fn an_identity_survives_a_round_trip() {
        for recovered_from in [None, Some(ClusterId(0xdead))] {
            let identity = Identity { recovered_from, ..identity() };
            assert_eq!(decode(&identity.encode(), "identity".into()).unwrap(), identity);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_prefix_is_detected() {
        let good = identity().encode();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode(&bad, "identity".into()).is_err(), "bit {at}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len], "identity".into()).is_err(), "prefix {len}");
        }
    }

    #[test]
    fn another_format_version_is_named() {
        let mut other = identity().encode();
        other[7] = 9;
        let body = other.len() - 4;
        let crc = crc32fast::hash(&other[..body]);
        other[body..].copy_from_slice(&crc.to_le_bytes());
        let error = decode(&other, "data/identity".into()).unwrap_err().to_string();
        assert_eq!(error, "data/identity: format version 9, this program reads version 1");
    }
}
