//! The store in a real Kubernetes: the shipped manifests of `k8s/`, under failures of pods, volumes
//! and the control plane while clients use it.
//!
//! `just k8s-up` brings a control plane and a node up on this host, `just k8s-chaos` runs these
//! tests. Any other cluster works as well, if `kubectl` knows it, this host reaches its pods, and
//! it has the image `ordinal:0.1.0` (with kind: `kind load docker-image`, and
//! `ip route add 10.244.0.0/16 via $(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' kind-control-plane)`).
//! Scenarios that need the host of the control plane are skipped there.
//!
//! Without `K8S_SCENARIOS`, the tests do nothing. It is `smoke`, `all`, or names separated by
//! commas. `K8S_RUNS` repeats each scenario, `K8S_OUTAGE` is the outage of the API server in
//! seconds, and with `K8S_GAPS=report` a gap that is too long is only reported. A cluster that was
//! brought up with `K8S_FAMILY=ipv6` has no IPv4 addresses.

mod check;
mod connections;
mod control_plane;
mod deletion;
mod disks;
mod follow;
mod founding;
mod host;
mod instances;
mod kubectl;
mod leader_lease;
mod machine;
mod manifests;
mod membership;
mod outages;
mod pods;
mod recovery;
mod report;
mod scenarios;
mod store;
mod watcher;
mod workload;

use std::{env, panic::AssertUnwindSafe, path::PathBuf};

use futures_util::FutureExt;
use tokio::time::{Duration, Instant};

use self::{
    host::Host,
    machine::StealTime,
    report::{Report, Run, gaps_count},
    scenarios::{SCENARIOS, Scenario, ScenarioContext},
    store::{Installation, Store},
    workload::{Seen, Workload},
};
use crate::support::retry::{panic_text, report_flaky, with_retry};

/// The requested scenarios, if any.
fn wanted(test: &str) -> Option<String> {
    let wanted = env::var("K8S_SCENARIOS").ok();
    if wanted.is_none() {
        println!("{test}: SKIPPED, because it needs a Kubernetes cluster: just k8s-up k8s-chaos");
    }
    wanted
}

#[test]
fn the_api_server_accepts_the_manifests_and_applying_them_again_takes_nothing_back() {
    if wanted("manifests").is_some() {
        with_retry(async || manifests::check().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_no_acknowledged_write() {
    let Some(wanted) = wanted("chaos") else { return };
    let runs = env::var("K8S_RUNS").map_or(1, |n| n.parse().expect("K8S_RUNS is a number"));
    let mut report = Report::default();
    for scenario in chosen(&wanted) {
        if scenario.host && Host::from_env().is_none() {
            println!("{}: SKIPPED, because it needs tests/k8s/cluster", scenario.name);
            continue;
        }
        let (mut run, mut counted) = (0, 0);
        // A run that the machine disturbed is repeated, up to twice the number of runs.
        while counted < runs && run < 2 * runs {
            run += 1;
            let (started, stolen) = (Instant::now(), StealTime::from_now());
            let ran = run_with_retry(&scenario, run).await;
            let (took, stolen) = (started.elapsed(), stolen.percent());
            let disturbed = stolen.disturbs();
            counted += usize::from(!disturbed || ran.is_err() || !gaps_count());
            match &ran {
                Ok((_, seen)) => {
                    let how = match scenario.too_long(seen) {
                        Some(_) if disturbed => "disturbed".into(),
                        Some(why) => format!("TOO LONG: {why}"),
                        None => "ok".to_owned(),
                    };
                    println!(
                        "{} {run}/{runs}: {how} in {took:.0?}, write gap {}, read gap {}, {stolen}",
                        scenario.name, seen.write_gap, seen.read_gap
                    );
                }
                Err(failure) => println!("{} {run}/{runs}: FAILED: {failure}", scenario.name),
            }
            report.add(&scenario, ran.map(|(formed, seen)| Run { formed, seen, disturbed }));
        }
        if counted < runs {
            report.fail(&scenario, format!("{} of {run} runs were disturbed", run - counted));
        }
    }
    println!("\n{report}");
    let failures: Vec<String> = report.failures().collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

fn chosen(wanted: &str) -> Vec<Scenario> {
    let all = || SCENARIOS.iter().copied();
    match wanted {
        "all" => all().collect(),
        "smoke" => all().filter(|scenario| scenario.smoke).collect(),
        names => names
            .split(',')
            .map(|name| {
                let named = all().find(|scenario| scenario.name == name);
                named.unwrap_or_else(|| panic!("there is no scenario {name}: {:?}", names_of_all()))
            })
            .collect(),
    }
}

fn names_of_all() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).collect()
}

/// A failed scenario runs once more, in a namespace of its own.
async fn run_with_retry(scenario: &Scenario, run: usize) -> Result<(Duration, Seen), String> {
    let failure = match run_once(scenario, &run.to_string()).await {
        Err(failure) => failure,
        ran => return ran,
    };
    println!("{} {run}: failed, and runs once more: {failure}", scenario.name);
    let again = run_once(scenario, &format!("{run}-again")).await;
    if again.is_ok() {
        report_flaky(&format!("k8s::{}", scenario.name), &failure);
    }
    again
}

/// Installs a store, runs the steps of the scenario while clients use it, and checks their
/// observations. Returns the time until all pods were ready, too.
async fn run_once(scenario: &Scenario, run: &str) -> Result<(Duration, Seen), String> {
    let started = Instant::now();
    // A new name each time: the namespace of an earlier run may still be terminating.
    let namespace = format!("ordinal-{}-{}-{run}", scenario.name, std::process::id());
    let Scenario { replicas, policy, .. } = *scenario;
    let installation = Installation { replicas, start: 0, policy };
    let store = Store::install(&namespace, installation).await;
    let acts = async {
        store.ready(scenario.replicas).await;
        let formed = started.elapsed();
        let mut stage = ScenarioContext::new(store.clone(), Workload::start(&store).await);
        (scenario.steps)(&mut stage).await;
        stage.load.progress(100).await;
        let seen = stage.load.stop(&store).await;
        check::assert_history_holds(&store, &seen).await;
        let too_long = scenario.too_long(&seen);
        let evidence = if too_long.is_some() { Some(host::evidence(&store).await) } else { None };
        (formed, seen, evidence)
    };
    let ran = AssertUnwindSafe(acts).catch_unwind().await;
    let healed = match Host::from_env() {
        Some(host) => AssertUnwindSafe(host.heal()).catch_unwind().await,
        None => Ok(()),
    };
    let ran = match ran.and_then(|seen| healed.map(|()| seen)) {
        Ok((formed, seen, evidence)) => {
            if let Some(evidence) = evidence {
                println!("{namespace}: evidence: {}", keep(&namespace, &evidence).display());
            }
            Ok((formed, seen))
        }
        Err(panic) => {
            let evidence = keep(&namespace, &host::evidence(&store).await);
            Err(format!("{} ({})", panic_text(&*panic), evidence.display()))
        }
    };
    store.remove().await;
    ran
}

/// Writes the evidence to a file, and returns its path.
fn keep(namespace: &str, evidence: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{namespace}.txt"));
    std::fs::write(&path, evidence).unwrap();
    path
}
