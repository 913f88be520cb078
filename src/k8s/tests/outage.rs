//! How long an outage makes us wait.

use std::time::Duration;

use super::super::outage::{Outage, Pauses};
use crate::membership::OrchestratorError;

/// An API server that starts forbids everything for a moment: a fixed long pause after the first "no"
/// let the leader's name trail by that much.
#[test]
fn pauses_grow_from_the_first_one_for_each_kind_of_error() {
    let ms = Duration::from_millis;
    let pauses = Pauses { first: ms(1), longest: ms(3), longest_refused: ms(5) };
    let mut outage = Outage::new("a test".into(), pauses);
    let away = OrchestratorError::Unreachable(String::new());
    let forbids = OrchestratorError::Refused(String::new());
    let mut waits = |error, times: usize| -> Vec<u128> {
        (0..times).map(|_| outage.failed(error).as_millis()).collect()
    };
    assert_eq!(waits(&away, 4), [1, 2, 3, 3]);
    assert_eq!(waits(&forbids, 5), [1, 2, 4, 5, 5]);
    assert_eq!(waits(&away, 2), [1, 2]);
    outage.over();
    assert_eq!(outage.failed(&away), ms(1));
}
