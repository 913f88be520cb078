//! Random histories: the state machine and the model give the same replies, for any division into
//! chunks, with pruning, restarts and reads in between.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};

use super::model::Model;
use crate::{
    state::{MemoryStorage, Pruning, RangeRead, ReadError, ReadProgress, StateMachine},
    types::*,
};

/// The term of every entry.
const TERM: Term = Term(3);

/// A step of a history.
#[derive(Debug, Clone)]
enum Event {
    Apply(Vec<Command>),
    Publish,
    Step {
        keys_max: usize,
    },
    /// Loses unpublished changes, and replays the log from there.
    Crash,
    Read(Range),
    /// Begins a read that is finished at the next `Finish`.
    Begin(Range),
    Finish,
}

fn keys() -> impl Strategy<Value = KeyRange> {
    let key = || select(vec!["", "a", "b", "ba", "c", "d", "e"]).prop_map(bytes::Bytes::from);
    prop_oneof![
        4 => key().prop_map(KeyRange::One),
        3 => (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => key().prop_map(KeyRange::From),
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    (-2i64..30).prop_map(Revision)
}

fn range() -> impl Strategy<Value = Range> {
    let bound = || prop_oneof![5 => Just(Revision(0)), 1 => revision()];
    let order = select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let target = select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let revision = prop_oneof![Just(Revision(0)), revision()];
    let bounds = (bound(), bound(), bound(), bound());
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (keys(), 0i64..5, revision, order, target, flags, bounds).prop_map(
        |(keys, limit, revision, sort_order, sort_target, (keys_only, count_only), bounds)| Range {
            limit,
            revision,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
            ..Range::of(keys)
        },
    )
}

fn lease() -> impl Strategy<Value = LeaseId> {
    select(vec![LeaseId(7), LeaseId(-8), LeaseId(9)])
}

/// An epoch of a short history, rarely the right one.
fn lease_at() -> impl Strategy<Value = LeaseRef> {
    (lease(), 1u64..8).prop_map(|(id, epoch)| LeaseRef { id, epoch })
}

/// Lease commands of the entry's term and of another one.
fn lease_command() -> impl Strategy<Value = Command> {
    let term = || prop_oneof![6 => Just(TERM), 1 => Just(Term(TERM.0 - 1))];
    let id = prop_oneof![12 => lease(), 1 => Just(LeaseId(0))];
    let ttl = select(vec![60, 1, Lease::TTL_MAX, Lease::TTL_MAX + 1, -5]);
    let checkpoint =
        (lease_at(), 0i64..50).prop_map(|(lease, remaining)| LeaseCheckpoint { lease, remaining });
    prop_oneof![
        6 => (id, ttl).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        2 => lease().prop_map(Command::LeaseRevoke),
        4 => (term(), vec(lease_at(), 0..4))
            .prop_map(|(term, leases)| Command::LeaseExpire { term, leases }),
        3 => (term(), vec(checkpoint, 0..3))
            .prop_map(|(term, checkpoints)| Command::LeaseCheckpoint { term, checkpoints }),
        2 => (term(), vec(lease(), 0..3))
            .prop_map(|(term, leases)| Command::LeaseRenew { term, leases }),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    let rarely = || prop::bool::weighted(0.15);
    let lease = prop_oneof![8 => Just(LeaseId(0)), 4 => lease(), 1 => Just(LeaseId(77))];
    (
        select(vec!["a", "b", "ba", "c", "d", "e"]),
        "[xyz]{0,2}",
        lease,
        any::<bool>(),
        rarely(),
        rarely(),
    )
        .prop_map(|(key, value, lease, prev_kv, ignore_value, ignore_lease)| Put {
            key: key.into(),
            value: value.into(),
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (keys(), any::<bool>()).prop_map(|(keys, prev_kv)| DeleteRange { keys, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let op =
        select(vec![CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less]);
    let target = prop_oneof![
        (0i64..4).prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::Create),
        revision().prop_map(CompareTarget::Mod),
        "[xyz]{0,2}".prop_map(|value| CompareTarget::Value(value.into())),
        (6i64..8).prop_map(|lease| CompareTarget::Lease(LeaseId(lease))),
    ];
    (keys(), op, target).prop_map(|(keys, op, target)| Compare { keys, op, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let flat = prop_oneof![
        4 => put().prop_map(TxnOp::Put),
        2 => delete().prop_map(TxnOp::DeleteRange),
        3 => range().prop_map(TxnOp::Range),
    ];
    let txn_of = |op: BoxedStrategy<TxnOp>| {
        (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
    };
    let flat = flat.boxed();
    let nested = txn_of(flat.clone()).prop_map(|txn| TxnOp::Txn(Box::new(txn)));
    txn_of(prop_oneof![4 => flat, 1 => nested].boxed())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => put().prop_map(Command::Put),
        2 => delete().prop_map(Command::DeleteRange),
        4 => txn().prop_map(Command::Txn),
        1 => revision().prop_map(Command::Compact),
        4 => lease_command(),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => vec(command(), 1..4).prop_map(Event::Apply),
        6 => Just(Event::Publish),
        2 => (1usize..8).prop_map(|keys_max| Event::Step { keys_max }),
        1 => Just(Event::Crash),
        4 => range().prop_map(Event::Read),
        1 => range().prop_map(Event::Begin),
        1 => Just(Event::Finish),
    ]
}

/// A state machine and its model.
struct Rig {
    storage: Arc<MemoryStorage>,
    machine: StateMachine,
    /// After the applied and after the published entries.
    model: Model,
    published: Model,
    log: Vec<Vec<Command>>,
    read: Option<(RangeRead, Result<RangeReply, CommandError>)>,
}

impl Rig {
    fn new() -> Rig {
        let storage = Arc::new(MemoryStorage::default());
        let machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
        Rig {
            storage,
            machine,
            model: Model::default(),
            published: Model::default(),
            log: Vec::new(),
            read: None,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Apply(commands) => self.apply(commands),
            Event::Publish => self.publish(),
            Event::Step { keys_max } => drop(self.machine.compact_step(*keys_max)),
            Event::Crash => self.crash(),
            Event::Read(range) => assert_eq!(self.read(range), self.published.range(range)),
            Event::Begin(range) => {
                let begun = self.machine.view().range(range.clone());
                self.read = begun.ok().map(|read| (read, self.published.range(range)));
            }
            Event::Finish => {
                if let Some((read, expected)) = self.read.take() {
                    assert_eq!(Ok(read.finish().unwrap().1), expected);
                }
            }
        }
    }

    fn apply(&mut self, commands: &[Command]) {
        let expected: Vec<_> =
            commands.iter().map(|command| self.model.apply(TERM, command)).collect();
        let position = LogPosition { term: TERM, index: self.log.len() as u64 };
        let replies = self.machine.apply(position, commands.iter().cloned()).unwrap();
        assert_eq!(replies, expected);
        self.log.push(commands.to_vec());
    }

    fn publish(&mut self) {
        self.machine.publish();
        self.published = self.model.clone();
        let view = self.machine.view();
        assert_eq!(view.revision(), self.model.revision);
        assert_eq!(view.compacted(), self.model.compacted);
        self.check_leases();
    }

    /// Compares the leases and their attached keys with the model.
    fn check_leases(&self) {
        let view = self.machine.view();
        assert_eq!(view.leases(), self.model.leases.values().copied().collect::<Vec<_>>());
        for lease in self.model.leases.values() {
            let attached = self.model.attached(lease.id);
            assert_eq!(view.lease_key_count(lease.id), attached.len());
            assert_eq!(view.lease_with_keys(lease.id), Some((*lease, attached)));
        }
    }

    fn crash(&mut self) {
        let from = self.storage.contents();
        let storage = self.storage.clone();
        self.read = None;
        self.machine =
            StateMachine::recover(storage, from.position, from.tables, from.records).unwrap();
        let next = from.position.map_or(0, |last| last.index + 1);
        for index in next..self.log.len() as u64 {
            let commands = self.log[index as usize].clone();
            self.machine.apply(LogPosition { term: TERM, index }, commands).unwrap();
        }
        self.check_leases();
    }

    fn read(&self, range: &Range) -> Result<RangeReply, CommandError> {
        match self.machine.view().range(range.clone())?.in_memory().unwrap() {
            ReadProgress::Done(revision, reply) => {
                assert_eq!(revision, self.published.revision);
                Ok(reply)
            }
            ReadProgress::Unfinished(_) => panic!("all values are in memory"),
        }
    }

    fn check_changes(&self, from: Revision, bytes_max: usize) {
        let view = self.machine.view();
        if from < self.model.compacted {
            let refused = view.scan_changes(from, view.revision(), bytes_max).unwrap_err();
            return assert!(matches!(refused, ReadError::Refused(CommandError::Compacted)));
        }
        // A key that changed twice in the compacted revision has one or two records, depending on pruning.
        // The API refuses such transactions.
        let first = self.model.since(from).iter().filter(|(at, ..)| *at == self.model.compacted);
        let keys: Vec<_> = first.map(|(_, key, _)| key).collect();
        let twice = keys.iter().any(|key| keys.iter().filter(|other| *other == key).count() > 1);
        let from = if twice { from.next() } else { from };
        let (mut next, mut expected) = (from, self.model.since(from).iter());
        while next <= self.model.revision {
            let scan = view.scan_changes(next, view.revision(), bytes_max).unwrap();
            assert!(scan.next > next, "an empty scan");
            let one = view.scan_changes(next, next, bytes_max).unwrap();
            assert_eq!(one.next, next.next(), "the scan exceeds its end");
            assert!(one.records.iter().all(|record| record.meta.id.main == next));
            let previous = scan.previous(&scan.records).unwrap();
            for (record, from_scan) in scan.records.iter().zip(previous) {
                let (at, key, kv) = expected.next().unwrap();
                assert_eq!((&record.meta.id.main, &record.meta.key), (at, key));
                assert_eq!(&Some(record.key_value()).filter(|_| !record.meta.tombstone), kv);
                let before = Revision(at.0 - 1);
                let readable = before >= self.model.compacted;
                let before = self.model.at(before).remove(key).filter(|_| readable);
                for found in [from_scan, view.previous_in_memory(key, *at).unwrap()] {
                    assert_eq!(found.map(|record| record.key_value()), before);
                }
            }
            next = scan.next;
            let rest = self.model.since(next).len();
            assert_eq!(
                expected.len(),
                rest,
                "a scan ends within a revision, or beyond its records"
            );
        }
    }

    fn prune_all(&mut self) {
        self.read = None;
        while self.machine.compact_step(1) == Pruning::More {}
        self.machine.publish();
    }

    fn hash(&self) -> u32 {
        let view = self.machine.view();
        let hash = view.hash_kv(Revision::ZERO).unwrap();
        assert_eq!((hash.compacted, hash.revision), (view.compacted(), view.revision()));
        hash.hash
    }
}

fn commands_of(events: &[Event]) -> impl Iterator<Item = &Vec<Command>> {
    events.iter().filter_map(|event| match event {
        Event::Apply(commands) => Some(commands),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replies_are_the_models_for_any_chunks_pruning_and_restarts(
        events in vec(event(), 1..60),
    ) {
        let mut rig = Rig::new();
        for event in &events {
            rig.happen(event);
        }
        rig.publish();
        for revision in -1..=rig.model.revision.0 + 1 {
            let range = Range { revision: Revision(revision), ..Range::of(KeyRange::From("".into())) };
            prop_assert_eq!(rig.read(&range), rig.model.range(&range));
        }
    }

    #[test]
    fn changes_are_complete_in_scans_of_any_size_from_the_compacted_revision_on(
        events in vec(event(), 1..60),
        bytes_max in select(vec![0, 3, 20, usize::MAX]),
    ) {
        let mut rig = Rig::new();
        for event in &events {
            rig.happen(event);
        }
        rig.publish();
        for from in -1..=rig.model.revision.0 + 1 {
            rig.check_changes(Revision(from), bytes_max);
        }
    }

    #[test]
    fn members_with_the_same_log_have_the_same_hash(
        events in vec(event(), 1..60),
    ) {
        let (mut busy, mut plain) = (Rig::new(), Rig::new());
        for event in &events {
            busy.happen(event);
        }
        for commands in commands_of(&events) {
            plain.apply(commands);
        }
        busy.publish();
        plain.publish();
        let hash = plain.hash();
        prop_assert_eq!(busy.hash(), hash);
        busy.prune_all();
        prop_assert_eq!(busy.hash(), hash);
        busy.crash();
        prop_assert_eq!(busy.hash(), hash);
    }

    #[test]
    fn a_fully_pruned_storage_holds_the_same_records_on_every_member(
        events in vec(event(), 1..60),
    ) {
        let (mut busy, mut plain) = (Rig::new(), Rig::new());
        for event in &events {
            busy.happen(event);
        }
        for commands in commands_of(&events) {
            plain.apply(commands);
        }
        for rig in [&mut busy, &mut plain] {
            rig.publish();
            rig.prune_all();
        }
        prop_assert_eq!(busy.storage.contents().records, plain.storage.contents().records);
    }

    #[test]
    fn a_read_only_transaction_answers_the_same_as_through_the_log(
        commands in vec(command(), 1..30),
        txn in txn(),
    ) {
        let mut rig = Rig::new();
        rig.apply(&commands);
        rig.publish();
        let mut txn = txn;
        only_reads(&mut txn);
        let expected = match rig.model.apply(TERM, &Command::Txn(txn.clone())) {
            Ok(Reply::Txn { reply, .. }) => Ok(reply),
            Ok(_) => unreachable!(),
            Err(refusal) => Err(refusal),
        };
        let refusal = |error| match error {
            ReadError::Refused(refusal) => refusal,
            ReadError::Storage(error) => panic!("{error}"),
        };
        let view = rig.machine.view();
        let from_disk = view.read_txn(&txn).map(|(_, reply)| reply).map_err(refusal);
        prop_assert_eq!(&from_disk, &expected);
        if let Some(answer) = view.read_txn_in_memory(&txn).map_err(refusal).transpose() {
            prop_assert_eq!(answer.map(|(_, reply)| reply), expected);
        }
    }
}

fn only_reads(txn: &mut Txn) {
    for ops in [&mut txn.success, &mut txn.failure] {
        ops.retain(|op| matches!(op, TxnOp::Range(_) | TxnOp::Txn(_)));
        for op in ops {
            if let TxnOp::Txn(nested) = op {
                only_reads(nested);
            }
        }
    }
}

/// A different value on one member must change its hash.
#[test]
fn a_value_that_differs_changes_the_hash() {
    let hash_with = |value: &'static str| {
        let mut rig = Rig::new();
        let put = |key: &'static str, value: &'static str| {
            Command::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
        };
        rig.apply(&[put("a", "1"), put("b", value), put("c", "3")]);
        rig.publish();
        rig.hash()
    };
    assert_eq!(hash_with("2"), hash_with("2"));
    assert_ne!(hash_with("2"), hash_with("x"));
}

/// Later reads see all of the new state; open reads finish on the old one.
#[test]
fn an_installed_snapshot_replaces_all_that_later_reads_see_and_nothing_of_earlier_ones() {
    let put = |value: &'static str| {
        Command::Put(Put { key: "a".into(), value: value.into(), ..Put::default() })
    };
    let (mut behind, mut ahead) = (Rig::new(), Rig::new());
    let leases = |id| Command::LeaseGrant { id: LeaseId(id), ttl: 60 };
    behind.apply(&[put("old"), leases(1)]);
    ahead.apply(&[put("old"), leases(1)]);
    ahead.apply(&[put("new"), Command::Compact(Revision(3))]);
    ahead.apply(&[Command::LeaseRevoke(LeaseId(1)), leases(2)]);
    behind.publish();
    ahead.publish();
    let view = behind.machine.view();
    let one = Range::of(KeyRange::One("a".into()));
    let begun = view.range(one.clone()).unwrap();

    let storage = Arc::new(ahead.storage.copied());
    let from = storage.contents();
    let recovered =
        StateMachine::recover(storage, from.position, from.tables, from.records).unwrap();
    behind.machine.replace(recovered);

    assert_eq!((view.revision(), view.compacted()), (Revision(3), Revision(3)));
    assert_eq!(view.applied(), Some(LogPosition { term: TERM, index: 2 }));
    assert_eq!((view.lease(LeaseId(1)), view.lease_count()), (None, 1));
    let (_, reply) = view.range(one).unwrap().finish().unwrap();
    assert_eq!(reply.kvs[0].value, "new");
    assert_eq!(begun.revision(), Revision(2));
    assert_eq!(begun.finish().unwrap().1.kvs[0].value, "old");
}
