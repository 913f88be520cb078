//! Leases: granted, renewed, revoked.

mod keeper;
mod renewal;
mod requests;
#[cfg(test)]
mod tests;

pub use keeper::{LeaseEnd, LeaseKeeper};
pub use renewal::RenewalStream;
