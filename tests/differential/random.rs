//! Random sequences of requests, to an etcd and a `kvd` that have both seen the same so far.
//!
//! A sequence is a script, made of few keys so that requests meet. It begins by removing everything;
//! revisions go on, so they stay equal or something differs. A sequence that is answered otherwise is
//! made as short as possible, each attempt on servers of its own, and printed: it then belongs under
//! `scripts`.
//!
//! `KVD_DIFFERENTIAL_SEQUENCES` says how many of each kind there are, and then they are new ones every
//! time; `KVD_DIFFERENTIAL_SEED` says which.

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
    etcd::Etcd,
    requests::{Step, keys, leases, script, watches},
    servers::{Server, announce, difference},
};

/// Requests in a sequence, without those that every sequence begins and ends with.
const STEPS_MAX: usize = 40;
/// Each attempt to make a sequence shorter starts two servers.
const ATTEMPTS_MAX: u32 = 300;

#[test]
fn random_keys_and_transactions_are_answered_as_etcd_answers_them() {
    compare("keys and transactions", 60, keys());
}

#[test]
fn random_leases_are_answered_as_etcd_answers_them() {
    compare("leases", 40, [keys(), leases()].concat());
}

#[test]
fn random_watches_are_answered_as_etcd_answers_them() {
    compare("watches", 10, [keys(), leases(), watches()].concat());
}

/// Two servers that were asked the same.
struct Pair {
    etcd: Server,
    kvd: Server,
}

impl Pair {
    fn start(etcd: &Etcd) -> Pair {
        Pair { etcd: Server::etcd(etcd), kvd: Server::kvd() }
    }

    /// How the answers to a script differ.
    fn difference(&mut self, script: &str) -> Option<String> {
        let [etcd, kvd] = [&mut self.etcd, &mut self.kvd].map(|server| {
            server.session.forget();
            let answered = goldenscript::generate(&mut server.session, script);
            answered.unwrap_or_else(|error| panic!("{error} in\n{script}"))
        });
        difference(("etcd", &etcd), ("kvd", &kvd))
    }
}

/// Asks both servers random sequences of steps.
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
        // Once something differed, every attempt has servers of its own.
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
