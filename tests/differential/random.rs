//! Random sequences of requests, sent to an etcd and a `kvd` with the same history.
//!
//! A sequence is a script with few keys, so that its requests interact. It begins by deleting all
//! keys; revisions continue, so any difference shows. A sequence with different answers is shrunk,
//! each attempt on fresh servers, and printed: it then belongs under `scripts`.
//!
//! `KVD_DIFFERENTIAL_SEQUENCES` sets the number of sequences of each kind and draws a new seed;
//! `KVD_DIFFERENTIAL_SEED` sets the seed.

use std::{
    cell::{Cell, RefCell},
    env,
};

use proptest::{
    collection::vec,
    prelude::*,
    strategy::Union,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use crate::{
    differential::{
        etcd::Etcd,
        requests::{Step, keys, leases, script, watches},
        servers::{Server, announce, difference},
    },
    support::retry::with_retry_blocking,
};

/// Requests in a sequence, without its first and last lines, which are fixed.
const STEPS_MAX: usize = 40;
/// Each shrinking attempt starts two servers.
const ATTEMPTS_MAX: u32 = 300;

#[test]
fn random_keys_and_transactions_are_answered_as_etcd_answers_them() {
    with_retry_blocking(|| {
        compare("keys and transactions", 60, keys());
    });
}

#[test]
fn random_leases_are_answered_as_etcd_answers_them() {
    with_retry_blocking(|| {
        compare("leases", 40, [keys(), leases()].concat());
    });
}

#[test]
fn random_watches_are_answered_as_etcd_answers_them() {
    with_retry_blocking(|| {
        compare("watches", 10, [keys(), leases(), watches()].concat());
    });
}

/// Two servers with the same history.
struct Pair {
    etcd: Server,
    kvd: Server,
}

impl Pair {
    fn start(etcd: &Etcd) -> Pair {
        Pair { etcd: Server::etcd(etcd), kvd: Server::kvd() }
    }

    /// The first difference between the answers to a script.
    fn difference(&mut self, script: &str) -> Option<String> {
        let [etcd, kvd] = [&mut self.etcd, &mut self.kvd].map(|server| {
            server.session.reset();
            let answered = goldenscript::generate(&mut server.session, script);
            answered.unwrap_or_else(|error| panic!("{error} in\n{script}"))
        });
        difference(("etcd", &etcd), ("kvd", &kvd))
    }
}

/// Sends both servers random sequences of steps.
fn compare(kind: &str, usual: u32, steps: Vec<(u32, BoxedStrategy<Step>)>) {
    let etcd = match Etcd::find_recorded() {
        Ok(etcd) => etcd,
        Err(why) => return announce(&format!("SKIPPED: random {kind}: {why}")),
    };
    let wanted = number("KVD_DIFFERENTIAL_SEQUENCES");
    let sequences = wanted.map_or(usual, |n| n as u32);
    let seed = number("KVD_DIFFERENTIAL_SEED")
        .unwrap_or_else(|| if wanted.is_some() { getrandom::u64().unwrap() } else { 0 });
    let mut runner = runner(sequences, seed);

    let pair = RefCell::new(Some(Pair::start(&etcd)));
    let (compared, differed) = (Cell::new(0), Cell::new(false));
    let sequence = vec(Union::new_weighted(steps), 1..STEPS_MAX);
    let result = runner.run(&sequence, |steps| {
        let script = script(&steps);
        let mut asked = pair.take().unwrap_or_else(|| Pair::start(&etcd));
        let before = asked.kvd.session.answered;
        let difference = asked.difference(&script);
        compared.set(compared.get() + asked.kvd.session.answered - before);
        if let Some(text) = difference {
            differed.set(true);
            return Err(TestCaseError::fail(format!("\n{text}in the script\n\n{script}")));
        }
        // After a difference, every attempt starts fresh servers.
        if !differed.get() {
            pair.replace(Some(asked));
        }
        Ok(())
    });
    announce(&format!(
        "etcd {}, random {kind}, seed {seed}: {sequences} sequences, {} comparisons, {} differences",
        etcd.version,
        compared.get(),
        u32::from(differed.get()),
    ));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("seed {seed}: {}", why.message()),
        Err(TestError::Abort(why)) => panic!("seed {seed}: {}", why.message()),
    }
}

fn runner(sequences: u32, seed: u64) -> TestRunner {
    let config = Config {
        cases: sequences,
        max_shrink_iters: ATTEMPTS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}
