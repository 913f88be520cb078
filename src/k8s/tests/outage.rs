//! The backoff during an outage.

use std::time::Duration;

use super::super::outage::{Backoff, Outage};
use crate::membership::OrchestratorError;

/// A starting API server forbids everything for a moment. A long fixed delay after the first refusal made
/// the mirrored leader lag by that delay.
#[test]
fn delays_start_over_for_each_kind_of_error() {
    let ms = Duration::from_millis;
    let backoff = Backoff { initial: ms(1), max: ms(3), max_refused: ms(5) };
    let mut outage = Outage::new("a test".into(), backoff);
    let away = OrchestratorError::Unreachable(String::new());
    let forbids = OrchestratorError::Forbidden(String::new());
    let mut waits = |error, times: usize| -> Vec<u128> {
        (0..times).map(|_| outage.failed(error).as_millis()).collect()
    };
    assert_eq!(waits(&away, 4), [1, 2, 3, 3]);
    assert_eq!(waits(&forbids, 5), [1, 2, 4, 5, 5]);
    assert_eq!(waits(&away, 2), [1, 2]);
    outage.recovered();
    assert_eq!(outage.failed(&away), ms(1));
}
