//! The `identity` file: who this volume is.

use std::path::Path;

use prost::Message;

use crate::{
    disk::{self, Disk},
    proto::peer,
    types::{ClusterId, MemberId, Ordinal, PeerPlace},
};

/// First bytes of the file; the last one is the format version of the whole data directory.
const MAGIC: [u8; 8] = *b"ORDINAL\x01";

/// How far this volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Part of a formation that may not have happened yet. It has no log.
    Promised,
    /// Was given an id, and may not have been admitted yet.
    Assigned,
    /// Has a log.
    Member,
    /// Was removed, or replaced: this volume is to be set aside, whatever is on it.
    Dead,
    /// Is to go on alone, as a new cluster: see `formation/recover.rs`.
    Recovering,
}

/// One life of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub ordinal: Ordinal,
    /// namespace/StatefulSet, or empty outside Kubernetes.
    pub home: String,
    /// Starts so far.
    pub boot: u64,
    pub stage: Stage,
    /// Until it is a member: everybody in the formation.
    pub founders: Vec<PeerPlace>,
}

/// Why an identity could not be read.
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
    /// Reads it; `None` if there is none.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, IdentityError> {
        let file = path.display().to_string();
        let bytes = match disk::read(disk, path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { file, source }),
        };
        decode(&bytes, file).map(Some)
    }

    /// Writes it, durably, in place of the old one.
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
            founders: self.founders.iter().copied().map(place_to_wire).collect(),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(wire.encode_to_vec());
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}

pub(crate) fn place_to_wire(place: PeerPlace) -> peer::MemberPlace {
    peer::MemberPlace { member_id: place.member.0, ordinal: place.ordinal.0 }
}

pub(crate) fn place_from_wire(wire: peer::MemberPlace) -> PeerPlace {
    PeerPlace { member: MemberId(wire.member_id), ordinal: Ordinal(wire.ordinal) }
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
        founders: wire.founders.into_iter().map(place_from_wire).collect(),
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
            founders: vec![PeerPlace { member: MemberId(1), ordinal: Ordinal(0) }],
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        assert_eq!(decode(&identity().encode(), "identity".into()).unwrap(), identity());
    }

    #[test]
    fn every_flipped_bit_and_every_prefix_is_noticed() {
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
