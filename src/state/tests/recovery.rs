//! Recovery from inconsistent data is refused, and the error names the place.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    state::{MemoryContents, MemoryStorage, StateError, StateMachine},
    types::*,
};

fn contents() -> MemoryContents {
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
    let puts = ["a", "b"].map(|key| Command::Put(Put { key: key.into(), ..Put::default() }));
    machine.apply(LogPosition::default(), puts).unwrap();
    machine.publish();
    storage.contents()
}

fn recover(from: MemoryContents) -> Result<StateMachine, StateError> {
    let storage = Arc::new(MemoryStorage::default());
    StateMachine::recover(storage, from.position, from.tables, from.records)
}

#[test]
fn records_that_do_not_ascend_are_refused() {
    let mut from = contents();
    from.records.reverse();
    assert!(recover(from).unwrap_err().to_string().starts_with("record 2.0: "));
}

#[test]
fn records_newer_than_the_tables_are_refused() {
    let mut from = contents();
    from.tables.clear();
    assert!(recover(from).unwrap_err().to_string().starts_with("record 2.0: "));
}

#[test]
fn a_damaged_table_is_refused_by_its_key() {
    let mut from = contents();
    from.tables.push((Bytes::from_static(&[0x12, 0xab]), Bytes::new()));
    assert!(recover(from).unwrap_err().to_string().starts_with("table entry 12ab: "));
}

#[test]
#[should_panic(expected = "is applied after")]
fn an_entry_is_never_applied_twice() {
    let mut machine = recover(contents()).unwrap();
    machine.advance_applied(LogPosition::default());
}

#[test]
fn stored_keys_and_values_do_not_hold_the_buffer_of_their_request() {
    let request = Bytes::from(b"key and value".to_vec());
    let lease = LeaseId(7);
    let put = Put { key: request.slice(..3), value: request.slice(8..), lease, ..Put::default() };
    let mut machine = recover(MemoryContents::default()).unwrap();
    let grant = Command::LeaseGrant { id: lease, ttl: 60 };
    machine.apply(LogPosition::default(), [grant, Command::Put(put)]).unwrap();
    machine.publish();
    assert!(request.is_unique(), "the store kept a reference to it");
}
