//! The addresses at which members say that they are, for when DNS does not know yet.
//!
//! A pod that restarts has another address, and caches of DNS may keep the old one for half a minute. So
//! each member sends its address along with its hello, and its peers dial it there too
//! ([dialer](super::dialer)). A hint comes from a member of this cluster only, after its hello was
//! accepted, and decides nothing but the order in which addresses are tried: each connection opens with a
//! hello, so a process that has the address by now refuses it.
//!
//! Invariants: one hint for each ordinal, of the newest start of its newest incarnation; at most
//! [`ORDINALS_MAX`] of them.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::sync::watch;

use crate::types::{MemberId, Ordinal};

/// Ordinals with a hint, at most. Beyond, the hint of the oldest member is dropped: that member is dialed
/// by DNS alone.
const ORDINALS_MAX: usize = 64;

/// The address of one start of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialHint {
    pub member: MemberId,
    pub boot: u64,
    pub address: IpAddr,
}

impl DialHint {
    /// `None` if the text is no address that could be another member's.
    pub fn new(member: MemberId, boot: u64, address: &str) -> Option<DialHint> {
        let address: IpAddr = address.parse().ok()?;
        let address = address.to_canonical();
        let usable = !address.is_unspecified() && !address.is_multicast();
        usable.then_some(DialHint { member, boot, address })
    }

    fn is_older_than(self, other: DialHint) -> bool {
        (self.member, self.boot) < (other.member, other.boot)
    }
}

/// What is known about the addresses of one ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KnownAddresses {
    pub hint: Option<DialHint>,
    /// The last address where a hello was accepted, since the hint came.
    accepted: Option<IpAddr>,
    /// The last address where another process answered, or none: to be tried last.
    pub suspect: Option<IpAddr>,
    /// The last hint that led to another process.
    refused: Option<DialHint>,
}

impl KnownAddresses {
    /// Whether the hint is newer than the last accepted connection to another address, and so is the best
    /// address.
    pub fn hint_is_best(&self) -> bool {
        self.hint.is_some_and(|hint| {
            self.suspect != Some(hint.address)
                && self.accepted.is_none_or(|accepted| accepted == hint.address)
        })
    }
}

/// The hints of all ordinals. Server and client of a member share them.
#[derive(Debug, Default)]
pub struct DialHints {
    by_ordinal: watch::Sender<BTreeMap<Ordinal, KnownAddresses>>,
}

impl DialHints {
    pub fn of(&self, ordinal: Ordinal) -> KnownAddresses {
        self.by_ordinal.borrow().get(&ordinal).copied().unwrap_or_default()
    }

    /// Stores the hint, unless a newer one is known, or this one was refused.
    pub fn note(&self, ordinal: Ordinal, new: DialHint) {
        self.by_ordinal.send_if_modified(|all| {
            let known = all.get(&ordinal).copied().unwrap_or_default();
            let outdated = known.hint.is_some_and(|known| known == new || new.is_older_than(known));
            if outdated || known.refused == Some(new) {
                return false;
            }
            if all.len() >= ORDINALS_MAX && !all.contains_key(&ordinal) {
                let oldest = all.iter().min_by_key(|(_, known)| known.hint.map(|hint| hint.member));
                if let Some(oldest) = oldest.map(|(ordinal, _)| *ordinal) {
                    all.remove(&oldest);
                }
            }
            tracing::debug!(%ordinal, member = %new.member, address = %new.address, "new dial hint");
            let (hint, refused) = (Some(new), known.refused);
            all.insert(ordinal, KnownAddresses { hint, refused, ..KnownAddresses::default() });
            true
        });
    }

    /// The member at this ordinal has accepted a hello at this address.
    pub fn note_accepted(&self, ordinal: Ordinal, address: IpAddr) {
        self.update(ordinal, |known| {
            known.accepted = Some(address);
            known.suspect.take_if(|suspect| *suspect == address);
        });
    }

    /// The connection to this address ended before a hello was accepted on it: another process may be
    /// there.
    pub fn note_suspect(&self, ordinal: Ordinal, address: IpAddr) {
        self.update(ordinal, |known| known.suspect = Some(address));
    }

    /// The process at this address has refused the hello to this member. Drops the hint if it led there, and
    /// returns whether it did. The hint of a newer incarnation stays: its process refuses the older one.
    pub fn note_refused(&self, ordinal: Ordinal, to: MemberId, address: IpAddr) -> bool {
        let mut dropped = false;
        self.update(ordinal, |known| {
            if known.hint.is_some_and(|hint| hint.member > to) {
                return;
            }
            known.suspect = Some(address);
            if let Some(refused) = known.hint.take_if(|hint| hint.address == address) {
                (known.refused, dropped) = (Some(refused), true);
            }
        });
        dropped
    }

    /// Without a hint, DNS gives the only addresses, and there is nothing to choose.
    fn update(&self, ordinal: Ordinal, change: impl FnOnce(&mut KnownAddresses)) {
        self.by_ordinal.send_if_modified(|all| {
            if let Some(known) = all.get_mut(&ordinal) {
                change(known);
            }
            // No dial waits for this.
            false
        });
    }

    /// Resolves when the ordinal has another hint than `seen`.
    pub async fn newer_than(&self, ordinal: Ordinal, seen: Option<DialHint>) {
        let is_new = |all: &BTreeMap<Ordinal, KnownAddresses>| {
            let hint = all.get(&ordinal).and_then(|known| known.hint);
            hint.is_some() && hint != seen
        };
        // The sender is `self`, so the wait ends with a new hint only.
        let _ = self.by_ordinal.subscribe().wait_for(is_new).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Ordinal = Ordinal(2);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn hint(member: u64, boot: u64, last: u8) -> DialHint {
        DialHint::new(MemberId(member), boot, &ip(last).to_string()).unwrap()
    }

    #[test]
    fn the_newest_start_of_the_newest_incarnation_counts() {
        let hints = DialHints::default();
        hints.note(AT, hint(3, 5, 1));
        hints.note(AT, hint(3, 4, 2));
        hints.note(AT, hint(2, 9, 3));
        assert_eq!(hints.of(AT).hint, Some(hint(3, 5, 1)));
        hints.note(AT, hint(3, 6, 4));
        assert_eq!(hints.of(AT).hint, Some(hint(3, 6, 4)));
        hints.note(AT, hint(7, 1, 5));
        assert_eq!(hints.of(AT).hint, Some(hint(7, 1, 5)));
    }

    #[test]
    fn a_hint_is_best_until_another_address_was_accepted_or_it_failed() {
        let hints = DialHints::default();
        assert!(!hints.of(AT).hint_is_best());
        hints.note(AT, hint(3, 1, 1));
        assert!(hints.of(AT).hint_is_best());
        hints.note_accepted(AT, ip(1));
        assert!(hints.of(AT).hint_is_best());
        hints.note_suspect(AT, ip(1));
        assert!(!hints.of(AT).hint_is_best());
        hints.note_accepted(AT, ip(9));
        assert!(!hints.of(AT).hint_is_best());
        // The member has started again.
        hints.note(AT, hint(3, 2, 4));
        assert!(hints.of(AT).hint_is_best());
    }

    #[test]
    fn a_refused_hint_is_dropped_and_not_taken_again() {
        let hints = DialHints::default();
        hints.note(AT, hint(3, 2, 4));
        assert!(!hints.note_refused(AT, MemberId(3), ip(5)), "DNS led there");
        assert!(hints.of(AT).hint.is_some());
        assert!(hints.note_refused(AT, MemberId(3), ip(4)));
        assert!(!hints.note_refused(AT, MemberId(3), ip(4)));
        hints.note(AT, hint(3, 2, 4));
        assert_eq!(hints.of(AT).hint, None);
        hints.note(AT, hint(3, 3, 4));
        assert!(hints.of(AT).hint_is_best(), "the next start of the member may be there");
    }

    #[test]
    fn the_hint_of_a_new_incarnation_survives_calls_to_the_old_one() {
        let hints = DialHints::default();
        hints.note(AT, hint(7, 1, 4));
        assert!(!hints.note_refused(AT, MemberId(3), ip(4)));
        assert!(hints.of(AT).hint_is_best());
        // A hint of the old one leads nowhere any more.
        assert!(hints.note_refused(AT, MemberId(8), ip(4)));
        assert_eq!(hints.of(AT).hint, None);
    }

    #[test]
    fn only_addresses_that_can_be_dialed_are_hints() {
        for text in
            ["", "kv-0", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1%eth0", "1.2.3.4:5"]
        {
            assert_eq!(DialHint::new(MemberId(1), 1, text), None, "{text}");
        }
        let mapped = DialHint::new(MemberId(1), 1, "::ffff:10.0.0.7").unwrap();
        assert_eq!(mapped.address, ip(7));
    }

    #[test]
    fn hints_are_bounded() {
        let hints = DialHints::default();
        for ordinal in 0..1000 {
            hints.note(Ordinal(ordinal), hint(u64::from(ordinal) + 1, 1, 1));
        }
        assert_eq!(hints.by_ordinal.borrow().len(), ORDINALS_MAX);
        assert!(hints.of(Ordinal(999)).hint.is_some());
        assert!(hints.of(Ordinal(0)).hint.is_none());
    }
}
