//! Sequence numbers of block files, never reused: a name stands for one content, on this member and
//! on all receivers of its snapshots, even after the tables have lost the name.
//!
//! Numbers are reserved in bulk: after a start they continue from the one in `blocks/next`.

use super::{block::BlockName, error::StoreError, layout::Layout};
use crate::types::MemberId;

/// Numbers reserved at once.
const RESERVATION: u32 = 1024;

/// Assigns names to the blocks of one member.
#[derive(Debug)]
pub struct Sequence {
    member: MemberId,
    next: u32,
    reserved: u32,
}

impl Sequence {
    /// `known` are names in use: numbers continue above them, even if the reservation is lost.
    pub fn open(
        layout: &Layout,
        member: MemberId,
        known: impl Iterator<Item = BlockName>,
    ) -> Result<Sequence, StoreError> {
        let path = layout.blocks().join("next");
        let mut next = 0;
        if layout.exists(&path)? {
            let text = layout.read(&path)?;
            let number = str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
            next = number.ok_or_else(|| StoreError::damaged(&path, 0, "not a number"))?;
        }
        let own = known.filter(|name| name.member == member);
        let next = own.map(|name| name.sequence + 1).fold(next, u32::max);
        Ok(Sequence { member, next, reserved: next })
    }

    pub fn next(&mut self, layout: &Layout) -> Result<BlockName, StoreError> {
        if self.next == self.reserved {
            let reserved = self.next + RESERVATION;
            let path = layout.blocks().join("next");
            layout.write_atomic(&path, format!("{reserved}\n").as_bytes())?;
            self.reserved = reserved;
        }
        let name = BlockName { member: self.member, sequence: self.next };
        self.next += 1;
        Ok(name)
    }
}
