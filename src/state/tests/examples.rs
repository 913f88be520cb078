//! The examples in the heads of `state` and `state::change_scan`.

use std::{error::Error, sync::Arc};

use crate::{
    state::{MemoryStorage, StateMachine},
    types::*,
};

#[test]
fn readers_see_a_command_once_it_is_published() -> Result<(), Box<dyn Error>> {
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage, None, [], [])?;
    let view = machine.view();

    let put = Put { key: "greeting".into(), value: "hello".into(), ..Put::default() };
    let replies = machine.apply(LogPosition::default(), [Command::Put(put)])?;
    assert!(replies[0].is_ok());
    assert_eq!(view.revision(), Revision::EMPTY_STORE);

    machine.publish();
    let (revision, reply) = view.range(Range::of(KeyRange::One("greeting".into())))?.finish()?;
    assert_eq!(revision, Revision(2));
    assert_eq!(reply.kvs[0].value, "hello");
    Ok(())
}

#[test]
fn a_scan_returns_changes_and_the_records_before_them() -> Result<(), Box<dyn Error>> {
    let mut machine = StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], [])?;
    let put = |value: &'static str| {
        Command::Put(Put { key: "a".into(), value: value.into(), ..Put::default() })
    };
    machine.apply(LogPosition::default(), [put("old"), put("new")])?;
    machine.publish();

    let scan = machine.view().scan_changes(Revision(3), Revision(3), 1 << 20)?;
    assert_eq!(scan.records[0].value, "new");
    assert_eq!(scan.next, Revision(4));
    let previous = scan.previous(&scan.records)?;
    assert_eq!(previous[0].as_ref().unwrap().value, "old");
    Ok(())
}
