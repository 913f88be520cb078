//! Randomness as a port, so that a simulation is one seed.

use std::fmt::Debug;

/// Gives random numbers.
pub trait Rng: Debug + Send + Sync + 'static {
    fn next_u64(&self) -> u64;

    /// Never zero: zero means "none" in every id that is minted from this.
    fn next_id(&self) -> u64 {
        loop {
            let id = self.next_u64();
            if id != 0 {
                return id;
            }
        }
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        // Fails only where the system has no randomness at all; ids that repeat would be worse
        // than not starting.
        getrandom::u64().expect("the operating system gives random numbers")
    }
}
