//! Compares `/metrics` of a running cluster with the metrics that etcd's alert rules and dashboards
//! use.
//!
//! `etcd_mixin_names.txt` lists their names, types and labels. Each is exported as etcd exports it,
//! or `docs/metrics.md` has the reason why not. `promtool` is not needed: `exposition` is at least
//! as strict about the format.
//!
//! Spans of single requests, in the log and as OpenTelemetry traces, are tested here, too.

mod cluster;
mod exposition;
#[cfg(feature = "otlp")]
mod otlp;
mod spans;

use std::collections::{BTreeMap, BTreeSet};

use cluster::Cluster;
use exposition::Family;

use crate::support::retry::with_retry;

/// One line of the list.
struct Listed {
    family: &'static str,
    kind: &'static str,
    labels: BTreeSet<&'static str>,
    users: &'static str,
}

fn listed() -> Vec<Listed> {
    let lines = include_str!("etcd_mixin_names.txt").lines();
    let listed = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [family, kind, labels, users] = words[..] else {
            panic!("{line:?} has not four words")
        };
        let labels = labels.split(',').filter(|label| *label != "-").collect();
        Listed { family, kind, labels, users }
    });
    listed.collect()
}

/// The first column of the table below a heading of `docs/metrics.md`.
fn documented(heading: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("docs/metrics.md").unwrap();
    let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.trim_end_matches(" |").split_once("` | "));
    rows.map(|(name, rest)| (name.to_string(), rest.to_string())).collect()
}

/// The deviations of the families from the list, and of the list of absent families.
fn deviations(shown: &BTreeMap<String, Family>, absent: &BTreeMap<String, String>) -> Vec<String> {
    let mut deviations = Vec::new();
    for Listed { family, kind, labels, users } in listed() {
        match (shown.get(family), absent.get(family)) {
            (None, None) => {
                deviations.push(format!("{family} is not shown and has no reason ({users})"));
            }
            (Some(_), Some(_)) => {
                deviations.push(format!("{family} is shown, and listed as absent"));
            }
            (None, Some(why)) if why.is_empty() => deviations.push(format!("{family}: no reason")),
            (None, Some(_)) => {}
            (Some(shown), None) => {
                if shown.kind != kind {
                    deviations.push(format!("{family} is a {}, in etcd a {kind}", shown.kind));
                }
                if !shown.samples.is_empty() && shown.labels() != labels {
                    deviations
                        .push(format!("{family} has labels {:?}, not {labels:?}", shown.labels()));
                }
            }
        }
    }
    deviations
}

#[test]
fn etcds_alert_rules_and_dashboards_find_what_they_ask_for() {
    with_retry(async || {
        let cluster = Cluster::start(3).await;
        cluster.exercise().await;
        let absent = documented("What is absent");
        let mut sampled = BTreeSet::new();
        for member in 0..3 {
            let shown = exposition::parse(&cluster.metrics(member));
            let deviations = deviations(&shown, &absent);
            assert!(deviations.is_empty(), "member {member}:\n{}", deviations.join("\n"));
            sampled
                .extend(shown.into_iter().filter(|(_, f)| !f.samples.is_empty()).map(|(n, _)| n));
        }
        // The cluster is healthy, so it has raised no alarm. (Followers time no heartbeats.)
        let names = listed().into_iter().map(|listed| listed.family);
        let empty: Vec<&str> =
            names.filter(|name| !absent.contains_key(*name) && !sampled.contains(*name)).collect();
        assert_eq!(empty, ["etcd_debugging_server_alarms"], "families without a value");
        cluster.stop().await;
    });
}

#[test]
fn metrics_count_what_requests_did() {
    with_retry(async || {
        let cluster = Cluster::start(1).await;
        cluster.exercise().await;
        let shown = exposition::parse(&cluster.metrics(0));
        let value = |name: &str, labels: &[(&str, &str)]| {
            let has = |sample: &&exposition::Sample| {
                labels
                    .iter()
                    .all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
            };
            shown[name].samples.iter().find(has).unwrap().value
        };
        assert_eq!(value("etcd_mvcc_put_total", &[]), 3.0);
        assert_eq!(value("etcd_mvcc_delete_total", &[]), 1.0);
        assert_eq!(value("etcd_debugging_mvcc_keys_total", &[]), 2.0);
        assert_eq!(value("etcd_server_has_leader", &[]), 1.0);
        let put = ("grpc_method", "Put");
        assert_eq!(value("grpc_server_started_total", &[put]), 4.0);
        assert_eq!(value("grpc_server_msg_received_total", &[put]), 4.0);
        assert_eq!(value("grpc_server_msg_sent_total", &[put]), 3.0);
        assert_eq!(value("grpc_server_handled_total", &[put, ("grpc_code", "OK")]), 3.0);
        let refused = ("grpc_code", "InvalidArgument");
        assert_eq!(value("grpc_server_handled_total", &[put, refused]), 1.0);
        assert_eq!(value("grpc_server_handling_seconds", &[put, ("le", "+Inf")]), 4.0);
        assert_eq!(value("etcd_debugging_lease_granted_total", &[]), 1.0);
        assert_eq!(value("etcd_debugging_lease_ttl_total", &[("le", "64")]), 0.0);
        assert_eq!(value("etcd_debugging_lease_ttl_total", &[("le", "128")]), 1.0);
        assert!(value("etcd_debugging_mvcc_events_total", &[]) >= 1.0);
        assert_eq!(value("grpc_server_started_total", &[("grpc_method", "Watch")]), 1.0);
        assert!(value("etcd_disk_wal_fsync_duration_seconds", &[("le", "8.192")]) >= 5.0);
        cluster.stop().await;
    });
}

#[test]
fn every_ordinal_metric_is_documented() {
    with_retry(async || {
        let cluster = Cluster::start(1).await;
        let shown = exposition::parse(&cluster.metrics(0));
        let ours = shown.iter().filter(|(name, _)| name.starts_with("ordinal_"));
        let ours: BTreeMap<&str, &str> = ours.map(|(n, f)| (n.as_str(), f.kind.as_str())).collect();
        let documented = documented("Our own");
        let documented: BTreeMap<&str, &str> = documented
            .iter()
            .map(|(name, rest)| (name.as_str(), rest.split_once(" | ").unwrap().0))
            .collect();
        assert_eq!(ours, documented);
        cluster.stop().await;
    });
}

#[test]
fn a_family_that_is_missing_or_of_another_type_is_noticed() {
    let names = listed().into_iter().map(|listed| (listed.family.to_string(), listed.kind));
    let family = |kind: &str| Family { kind: kind.into(), samples: Vec::new() };
    let mut shown: BTreeMap<_, _> = names.map(|(name, kind)| (name, family(kind))).collect();
    assert!(deviations(&shown, &BTreeMap::new()).is_empty());
    shown.remove("etcd_server_has_leader");
    shown.insert("etcd_server_proposals_pending".into(), family("counter"));
    let found = deviations(&shown, &BTreeMap::new());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("has_leader") && found[1].contains("in etcd a gauge"), "{found:?}");
}
