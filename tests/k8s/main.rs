//! The store in a real Kubernetes: `k8s/` as it is shipped, and everything that can happen to
//! pods, volumes and the control plane while clients use it.
//!
//! `just k8s-up` brings a control plane and a node up on this host, `just k8s-chaos` runs this.
//! Any other cluster works as well, if `kubectl` knows it, pods can be reached from here, and it
//! has the image `ordinal:0.1.0` (with kind: `kind load docker-image`, and
//! `ip route add 10.244.0.0/16 via $(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' kind-control-plane)`);
//! scenarios that need the host of the control plane are left out there.
//!
//! Nothing happens unless `K8S_SCENARIOS` says what: `smoke`, `all`, or names with commas between
//! them. `K8S_RUNS` repeats each, `K8S_OUTAGE` is how long the API server is away, in seconds, and with
//! `K8S_GAPS=tell` a gap that is too long is told, and no failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod check;
mod follow;
mod host;
mod kubectl;
mod machine;
mod manifests;
mod membership;
mod outages;
mod pods;
mod report;
mod scenarios;
mod store;
mod told;
mod watcher;
mod workload;

#[path = "../cluster/history.rs"]
mod history;
#[path = "../cluster/oracle.rs"]
mod oracle;

use std::{any::Any, env, panic::AssertUnwindSafe, path::PathBuf};

use futures_util::FutureExt;
use tokio::time::{Duration, Instant};

use self::{
    host::Host,
    machine::Stolen,
    report::{Report, Run, gaps_count},
    scenarios::{SCENARIOS, Scenario, Stage},
    store::Store,
    workload::{Seen, Workload},
};

/// What is wanted, unless nothing is.
fn wanted(test: &str) -> Option<String> {
    let wanted = env::var("K8S_SCENARIOS").ok();
    if wanted.is_none() {
        println!("{test}: SKIPPED, because it needs a Kubernetes cluster: just k8s-up k8s-chaos");
    }
    wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_accepts_the_manifests_and_applying_them_again_takes_nothing_back() {
    if wanted("manifests").is_some() {
        manifests::check().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_pods_nothing_acknowledged_is_lost() {
    let Some(wanted) = wanted("chaos") else { return };
    let runs = env::var("K8S_RUNS").map_or(1, |n| n.parse().expect("K8S_RUNS is a number"));
    let mut report = Report::default();
    for scenario in chosen(&wanted) {
        if scenario.host && Host::of_env().is_none() {
            println!("{}: SKIPPED, because it needs tests/k8s/cluster", scenario.name);
            continue;
        }
        let (mut run, mut counted) = (0, 0);
        // A run that the machine disturbed is made once more, unless that is all it does.
        while counted < runs && run < 2 * runs {
            run += 1;
            let (started, stolen) = (Instant::now(), Stolen::from_now());
            let ran = play(&scenario, run).await;
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

/// Installs a store, does to it what the scenario says while clients use it, and checks what they
/// saw. Returns how long it took until all pods were ready.
async fn play(scenario: &Scenario, run: usize) -> Result<(Duration, Seen), String> {
    let started = Instant::now();
    // Another name each time: the namespace of an earlier run may still be on its way out.
    let namespace = format!("ordinal-{}-{}-{run}", scenario.name, std::process::id());
    let store = Store::install(&namespace, scenario.replicas, scenario.policy).await;
    let acts = async {
        store.ready(scenario.replicas).await;
        let formed = started.elapsed();
        let stage = Stage::new(store.clone(), Workload::start(&store).await);
        (scenario.steps)(&stage).await;
        stage.load.progress(100).await;
        let seen = stage.load.stop(&store).await;
        check::holds_what_it_promised(&store, &seen).await;
        let too_long = scenario.too_long(&seen);
        let evidence = if too_long.is_some() { Some(host::evidence(&store).await) } else { None };
        (formed, seen, evidence)
    };
    let ran = AssertUnwindSafe(acts).catch_unwind().await;
    let healed = match Host::of_env() {
        Some(host) => AssertUnwindSafe(host.heal()).catch_unwind().await,
        None => Ok(()),
    };
    let ran = match ran.and_then(|seen| healed.map(|()| seen)) {
        Ok((formed, seen, evidence)) => {
            if let Some(evidence) = evidence {
                println!(
                    "{namespace}: what there is to see: {}",
                    keep(&namespace, &evidence).display()
                );
            }
            Ok((formed, seen))
        }
        Err(panic) => {
            let evidence = keep(&namespace, &host::evidence(&store).await);
            Err(format!("{} ({})", said(&*panic), evidence.display()))
        }
    };
    store.remove().await;
    ran
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").chars().take(2000).collect()
}

/// Writes down what there is to see, and returns where.
#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
fn keep(namespace: &str, evidence: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{namespace}.txt"));
    std::fs::write(&path, evidence).unwrap();
    path
}
