//! Randomness as a port, so that a simulation is one seed.

use std::fmt::Debug;

/// A source of random numbers.
pub trait Rng: Debug + Send + Sync + 'static {
    fn next_u64(&self) -> u64;

    /// A new random id. Never zero, which means "none" in every kind of id.
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
        // Fails only on a system without randomness. Repeated ids would be worse than a panic.

        getrandom::u64().expect("the operating system gives random numbers")
    }
}
