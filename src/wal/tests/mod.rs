//! Tests of the log as a whole, on the simulated disk.

mod crashes;
mod damage;
mod model;
mod space;
mod stale;
mod syncs;
mod threads;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Log, WalError, WalOptions, format::PAGE_BYTES, recovery::RecoveredLog, state::ReadPlan,
};
use crate::{
    disk::{Disk, sim::SimDisk},
    fault::Fault,
    lane::Lanes,
    types::{EntryKind, HardState, LogEntry, LogPosition, MemberId, Term, Vote},
};

const DIR: &str = "wal";
const MEMBER: MemberId = MemberId(7);

fn options(segment_pages: u64) -> WalOptions {
    WalOptions {
        member: MEMBER,
        salt_seed: 42,
        segment_bytes: segment_pages * PAGE_BYTES,
        tail_bytes: 2000,
        lanes: Lanes::Tasks,
    }
}

fn open(disk: &SimDisk, options: &WalOptions) -> Result<(Log, Fault), WalError> {
    let fault = Fault::default();
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIR), options, fault.clone()).map(|log| (log, fault))
}

fn segment_path(sequence: u64) -> std::path::PathBuf {
    Path::new(DIR).join(super::segment::file_name(sequence))
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { term: Term(term), index }
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let fill = (term * 31 + index) as u8;
    let kind = [EntryKind::Blank, EntryKind::Commands, EntryKind::Membership][index as usize % 3];
    LogEntry { position: position(term, index), kind, data: Bytes::from(vec![fill; bytes]) }
}

fn vote(term: u64) -> Vote {
    Vote {
        term: Term(term),
        voted_for: Some(MemberId(term % 3)),
        committed: term.is_multiple_of(2),
    }
}

/// A request to a log.
#[derive(Debug, Clone, PartialEq)]
enum Op {
    Append(Vec<LogEntry>),
    Vote(Vote),
    Committed(LogPosition),
    TruncateAfter(Option<LogPosition>),
    Purge(LogPosition),
}

/// Makes the request. `done` is called when it is durable; for a commit mark never.
fn ask(log: &Log, op: Op, done: impl FnOnce(Result<(), WalError>) + Send + 'static) {
    match op {
        Op::Append(entries) => log.append(entries, done),
        Op::Vote(vote) => log.save_vote(vote, done),
        Op::Committed(position) => log.save_committed(position),
        Op::TruncateAfter(position) => log.truncate_after(position, done),
        Op::Purge(upto) => log.purge(upto, done),
    }
}

/// Makes the request and waits until it is durable.
async fn write(log: &Log, op: Op) -> Result<(), WalError> {
    let (done, answer) = oneshot::channel();
    ask(log, op, move |result| done.send(result).unwrap());
    answer.await.unwrap()
}

/// The content of a log, in the simplest form.
#[derive(Debug, Clone, PartialEq, Default)]
struct Model {
    hard: HardState,
    last: Option<LogPosition>,
    entries: BTreeMap<u64, LogEntry>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn term(&self) -> u64 {
        self.last.map_or(1, |last| last.term.0)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => {
                for entry in entries {
                    self.last = Some(entry.position);
                    self.entries.insert(entry.position.index, entry.clone());
                }
            }
            Op::Vote(vote) => self.hard.vote = Some(*vote),
            Op::Committed(position) => self.hard.committed = Some(*position),
            Op::TruncateAfter(position) => {
                self.last = *position;
                self.entries.split_off(&self.next());
            }
            Op::Purge(upto) => {
                self.hard.purged = Some(*upto);
                self.entries = self.entries.split_off(&(upto.index + 1));
                if self.last.is_none_or(|last| last.index < upto.index) {
                    self.last = Some(*upto);
                }
            }
        }
    }

    fn after(ops: &[Op]) -> Model {
        let mut model = Model::default();
        ops.iter().for_each(|op| model.apply(op));
        model
    }

    /// The content of an open log. Reads entries from memory or disk.
    async fn of(log: &Log) -> Result<Model, WalError> {
        let mut entries = BTreeMap::new();
        let mut index = log.first_index();
        loop {
            let read = log.read(index..u64::MAX, 3000).await?;
            let Some(last) = read.last() else { break };
            index = last.position.index + 1;
            entries.extend(read.into_iter().map(|entry| (entry.position.index, entry)));
        }
        Ok(Model { hard: log.hard_state(), last: log.last(), entries })
    }

    /// The content of a recovered log, if all of it is in memory.
    fn of_recovered(recovered: &RecoveredLog) -> Model {
        let state = &recovered.state;
        let first = state.positions().first();
        let ReadPlan::Ready(read) = state.plan_read(first..u64::MAX, usize::MAX).unwrap() else {
            panic!("the tail is too small for this test")
        };
        let entries = read.into_iter().map(|entry| (entry.position.index, entry)).collect();
        Model { hard: state.hard(), last: state.positions().last(), entries }
    }
}

/// A seeded generator.
#[derive(Debug, Clone)]
struct TestRng(u64);

impl TestRng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// A possible request to a log with this content.
    fn op(&mut self, model: &Model) -> Op {
        let floor = model.hard.purged.map_or(0, |purged| purged.index + 1);
        let (next, term) = (model.next(), model.term());
        match self.below(12) {
            0..6 => {
                let term = term + u64::from(self.below(6) == 0);
                let count = 1 + self.below(4);
                let size = |rng: &mut TestRng| match rng.below(8) {
                    0 => 5000,
                    1 => 0,
                    _ => rng.below(300) as usize,
                };
                Op::Append((next..next + count).map(|i| entry(term, i, size(self))).collect())
            }
            6 => Op::Vote(vote(model.hard.vote.map_or(1, |vote| vote.term.0 + 1))),
            7 | 8 if model.last.is_some() => Op::Committed(model.last.unwrap()),
            9 if next > floor => {
                let next = floor + self.below(next - floor + 1);
                let known = next.checked_sub(1).map(|index| match model.entries.get(&index) {
                    Some(entry) => entry.position,
                    None => model.hard.purged.unwrap(),
                });
                Op::TruncateAfter(known)
            }
            10 if next > floor => {
                let index = floor + self.below(next - floor);
                Op::Purge(model.entries[&index].position)
            }
            11 if self.below(4) == 0 => Op::Purge(position(term + 1, next + self.below(5))),
            _ => Op::Append(vec![entry(term, next, self.below(100) as usize)]),
        }
    }
}

/// The number of acknowledged ops. Ops are numbered from one.
#[derive(Debug, Clone, Default)]
struct Acked(Arc<AtomicUsize>);

impl Acked {
    /// A callback for the op with this number; checks that callbacks come in order.
    fn callback(&self, number: usize) -> impl FnOnce(Result<(), WalError>) + Send + 'static {
        let acked = self.0.clone();
        move |result| {
            if result.is_ok() {
                let before = acked.swap(number, Ordering::Relaxed);
                assert!(before < number, "op {number} was done after op {before}");
            }
        }
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A log after a crash must be in one of the states from the last acknowledged one to the last
/// requested one. The commit mark may be older, but not older than acknowledged states.
fn check_survivor(states: &[Model], acked: usize, found: &Model) -> Result<(), String> {
    let allowed = &states[acked..];
    let same = |state: &&Model| {
        let mut state = (*state).clone();
        state.hard.committed = found.hard.committed;
        state == *found
    };
    let Some(at) = allowed.iter().rposition(|state| same(&state)) else {
        return Err(format!("of {} states, {acked} acked, none is {found:?}", states.len()));
    };
    if allowed[..=at].iter().any(|state| state.hard.committed == found.hard.committed) {
        return Ok(());
    }
    Err(format!("the commit mark {:?} is not one of {allowed:?}", found.hard.committed))
}
