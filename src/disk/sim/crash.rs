//! Kinds of power failure.

use super::rng::SimRng;

/// The fate of unsynced changes in a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All of them are lost, to show the effect of a missing sync.
    LoseAll,
    /// All of them survive, as if the disk had been fast.
    KeepAll,
    /// A seeded choice for each sector, length and name.
    Arbitrary,
}

impl Crash {
    /// Whether one unsynced sector or name survives.
    pub fn survives(self, rng: &mut SimRng) -> bool {
        match self {
            Crash::KeepAll => true,
            Crash::LoseAll => false,
            Crash::Arbitrary => rng.coin(),
        }
    }
}
