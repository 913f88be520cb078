//! No acknowledged change is lost, at any point of a power failure and for any loss of unsynced data.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{
    Acked, DIR, Log, Model, Op, TestRng, ask, check_survivor, entry, open, options, position, vote,
};
use crate::disk::{
    Disk,
    sim::{Crash, SimDisk},
};

/// The expectation after a crash: all requested states, and the number of acknowledged ones.
struct Survivors {
    states: Vec<Model>,
    acked: usize,
}

impl Survivors {
    fn none_yet() -> Survivors {
        Survivors { states: vec![Model::default()], acked: 0 }
    }

    /// Opens the log, checks its state, and expects that state from now on. `None`: the power failed
    /// meanwhile.
    async fn reopen(&mut self, disk: &SimDisk) -> Result<Option<Log>, String> {
        let log = match open(disk, &options(4)) {
            Ok((log, _)) => log,
            Err(error) if error.to_string().ends_with("the power is off") => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let found = match Model::of(&log).await {
            Ok(found) => found,
            Err(error) if error.to_string().ends_with("the power is off") => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        check_survivor(&self.states, self.acked, &found)?;
        self.states = vec![found];
        self.acked = 0;
        Ok(Some(log))
    }

    /// Makes `count` random requests, or fewer if the power fails.
    async fn work(&mut self, log: &Log, rng: &mut TestRng, count: u64) {
        let acked = Acked::default();
        for _ in 0..count {
            let model = self.states.last().unwrap();
            let op = rng.op(model);
            let mut next = model.clone();
            next.apply(&op);
            ask(log, op, acked.callback(self.states.len()));
            self.states.push(next);
            for _ in 0..rng.below(4) {
                tokio::task::yield_now().await;
            }
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.acked = acked.count();
    }
}

#[tokio::test]
async fn many_lives_with_a_crash_anywhere_lose_nothing_acknowledged() {
    for seed in 0..300 {
        let mut rng = TestRng(seed);
        let mut disk = SimDisk::new(seed);
        let mut survivors = Survivors::none_yet();
        for life in 0..8 {
            disk.power_off_after(rng.below(60));
            let outcome = survivors.reopen(&disk).await;
            let log = outcome.unwrap_or_else(|what| panic!("seed {seed}, life {life}: {what}"));
            if let Some(log) = log {
                survivors.work(&log, &mut rng, 20).await;
            }
            disk = match rng.below(6) {
                0 => disk.kill(),
                1 => disk.crash(Crash::LoseAll),
                2 => disk.crash(Crash::KeepAll),
                _ => disk.crash(Crash::Arbitrary),
            };
        }
        let opened = survivors.reopen(&disk).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(opened.is_some());
    }
}

/// A workload with every kind of event: segments fill, entries are truncated and rewritten, purges
/// leave segments behind.
fn eventful() -> Vec<Op> {
    let mut ops = vec![Op::Vote(vote(1)), Op::Append(vec![entry(1, 0, 10)])];
    for round in 0..4 {
        let (term, first) = (round + 1, 1 + round * 4);
        ops.extend([
            Op::Append((first..first + 6).map(|index| entry(term, index, 900)).collect()),
            Op::Committed(position(term, first + 2)),
            Op::Vote(vote(round + 2)),
            Op::TruncateAfter(Some(position(term, first + 3))),
        ]);
    }
    ops.extend([
        Op::Purge(position(3, 12)),
        Op::Append(vec![entry(5, 17, 5000)]),
        Op::Purge(position(6, 40)),
        Op::Append(vec![entry(6, 41, 100)]),
    ]);
    ops
}

/// Runs [`eventful`] with a power failure after each possible number of changes, and with each kind of
/// crash. `prepare` may tamper with the disk; its flag is set while the log is being opened. Returns
/// the number of crashes, or the first violation.
pub(super) async fn crash_everywhere(
    prepare: impl Fn(&SimDisk, Arc<AtomicBool>),
) -> Result<usize, String> {
    let mut crashes = 0;
    for changes in 0.. {
        let disk = SimDisk::new(changes);
        let opening = Arc::new(AtomicBool::new(true));
        prepare(&disk, opening.clone());
        disk.power_off_after(changes);
        let (states, acked, all_done) = run_eventful(&disk, &opening).await?;
        for way in 0..8 {
            let disk = disk.fork();
            disk.reseed(way);
            let context = |what| format!("power off after {changes} changes, way {way}: {what}");
            let mut survivors = Survivors { states: states.clone(), acked };
            let ending = end_and_check(&mut survivors, &disk, way, &opening).await;
            ending.map_err(context)?;
            crashes += 1;
        }
        if all_done {
            return Ok(crashes);
        }
    }
    unreachable!("the workload ends")
}

/// Returns all requested states, the number of acknowledged ones, and whether the power lasted.
async fn run_eventful(
    disk: &SimDisk,
    opening: &AtomicBool,
) -> Result<(Vec<Model>, usize, bool), String> {
    let mut states = vec![Model::default()];
    opening.store(true, Relaxed);
    let opened = open(disk, &options(4));
    opening.store(false, Relaxed);
    let (log, fault) = match opened {
        Ok(opened) => opened,
        Err(error) if error.to_string().ends_with("the power is off") => {
            return Ok((states, 0, false));
        }
        Err(error) => return Err(error.to_string()),
    };
    let acked = Acked::default();
    for op in eventful() {
        let mut next = states.last().unwrap().clone();
        next.apply(&op);
        ask(&log, op, acked.callback(states.len()));
        states.push(next);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    Ok((states, acked.count(), !fault.is_stopped() && disk.exists(Path::new(DIR)).is_ok()))
}

/// Crashes in this way, opens and checks. Then writes more, loses the power again, and checks that the
/// state of the first opening was durable.
async fn end_and_check(
    survivors: &mut Survivors,
    disk: &SimDisk,
    way: u64,
    opening: &AtomicBool,
) -> Result<(), String> {
    let disk = match way {
        0 => disk.crash(Crash::LoseAll),
        1 => disk.crash(Crash::KeepAll),
        2 | 3 => disk.kill(),
        _ => disk.crash(Crash::Arbitrary),
    };
    opening.store(true, Relaxed);
    let log = survivors.reopen(&disk).await;
    opening.store(false, Relaxed);
    let log = log?.ok_or("there is power")?;
    if way != 2 {
        survivors.work(&log, &mut TestRng(way), 2).await;
    }
    let disk = disk.crash(Crash::LoseAll);
    opening.store(true, Relaxed);
    let log = survivors.reopen(&disk).await;
    opening.store(false, Relaxed);
    log?.ok_or("there is power").map(|_| ()).map_err(String::from)
}

#[tokio::test]
async fn a_crash_between_any_two_disk_operations_loses_nothing_acknowledged() {
    let crashes = crash_everywhere(|_, _| {}).await.unwrap();
    assert!(crashes > 500, "only {crashes} crash points");
}
