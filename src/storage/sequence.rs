//! Numbers for block files, each used once for ever: a name stands for one content, on this member
//! and on all that received a snapshot of it, even if the tables forgot that they ever named it.
//!
//! Reserved in bulk: `blocks/next` says from where a start may count on.

use super::{block::BlockName, error::StoreError, layout::Layout};
use crate::types::MemberId;

const RESERVED: u32 = 1024;

/// Hands out names for the blocks of one member.
#[derive(Debug)]
pub(super) struct Sequence {
    member: MemberId,
    next: u32,
    reserved: u32,
}

impl Sequence {
    /// `known` are names in use: numbers go on above them, even if the reservation is lost.
    pub(super) fn open(
        layout: &Layout,
        member: MemberId,
        known: impl Iterator<Item = BlockName>,
    ) -> Result<Sequence, StoreError> {
        let path = layout.blocks().join("next");
        let mut next = 0;
        if layout.exists(&path)? {
            let text = layout.read(&path)?;
            let number = str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
            next = number.ok_or_else(|| StoreError::damaged(&path, 0, "it is no number"))?;
        }
        let own = known.filter(|name| name.member == member);
        let next = own.map(|name| name.sequence + 1).fold(next, u32::max);
        Ok(Sequence { member, next, reserved: next })
    }

    pub(super) fn next(&mut self, layout: &Layout) -> Result<BlockName, StoreError> {
        if self.next == self.reserved {
            let reserved = self.next + RESERVED;
            let path = layout.blocks().join("next");
            layout.write_atomic(&path, format!("{reserved}\n").as_bytes())?;
            self.reserved = reserved;
        }
        let name = BlockName { member: self.member, sequence: self.next };
        self.next += 1;
        Ok(name)
    }
}
