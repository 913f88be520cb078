//! The Lease and the Service `kv-leader` name the leader soon after its election, and never two
//! leaders of one term.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::k8s::{
    kubectl::CHANGE_TIMEOUT,
    scenarios::ScenarioContext,
    store::{Deletion, Pod, client_of, endpoint},
};

/// Bound from the start of leadership until both objects name the leader.
const PUBLISH_LIMIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// The pod that each object has named for each term.
#[derive(Debug, Default)]
struct Published(BTreeMap<(String, u64), String>);

/// Leadership changes several times, with and without a transfer.
pub async fn leader_is_published(s: &ScenarioContext) {
    let mut published = Published::default();
    for end in [Deletion::Graceful, Deletion::Force, Deletion::Graceful, Deletion::Force] {
        let before = s.store.leader().await;
        let term = term(&before).await.expect("a leader");
        s.store.ready(3).await;
        s.store.delete(&[&before.name], end).await;
        let (leader, since) = next_leader(s, &before, term).await;
        while !published.name(s, &leader).await {
            assert!(
                since.elapsed() < PUBLISH_LIMIT,
                "{} has led for {:.1?}: {published:#?}",
                leader.0,
                since.elapsed()
            );
            sleep(POLL_INTERVAL).await;
        }
        println!("  {} is published after {:.2?}", leader.0, since.elapsed());
        s.store.replaced(&before).await;
        s.store.ready(3).await;
    }
}

/// The pod that leads in a later term, and when that was first seen. It may be the replacement of
/// the last leader's pod.
async fn next_leader(s: &ScenarioContext, last: &Pod, after: u64) -> ((String, u64), Instant) {
    let begun = Instant::now();
    while begun.elapsed() < CHANGE_TIMEOUT {
        let pods = s.store.followed_pods();
        for pod in pods.into_iter().filter(|pod| pod.uid != last.uid && !pod.ip.is_empty()) {
            if let Some(term) = term(&pod).await.filter(|term| *term > after) {
                return ((pod.name, term), Instant::now());
            }
        }
        sleep(POLL_INTERVAL).await;
    }
    panic!("no pod leads after term {after}");
}

/// The term in which this pod leads, if it does.
async fn term(pod: &Pod) -> Option<u64> {
    let status = client_of(&[endpoint(&pod.ip)]).status().await.ok()?;
    let leads = status.leader == status.header.as_ref()?.member_id;
    leads.then_some(status.raft_term)
}

impl Published {
    /// Whether both objects name this leader now, or a leader of a later term.
    async fn name(&mut self, s: &ScenarioContext, (pod, term): &(String, u64)) -> bool {
        let now = self.look(s).await;
        now.len() == 2 && now.iter().all(|(p, t)| (p == pod && t == term) || t > term)
    }

    /// The pods that the objects name now, and their terms.
    async fn look(&mut self, s: &ScenarioContext) -> Vec<(String, u64)> {
        let both = s.store.kubectl.get(&["lease/kv-leader", "service/kv-leader"]).await;
        let named = both["items"].as_array().expect("both exist").iter().filter_map(named);
        let named: Vec<_> = named.collect();
        for (kind, pod, term) in &named {
            let known = self.0.entry((kind.clone(), *term)).or_insert_with(|| pod.clone());
            assert_eq!(known, pod, "the {kind} names two leaders of term {term}");
        }
        named.into_iter().map(|(_, pod, term)| (pod, term)).collect()
    }
}

fn named(object: &Value) -> Option<(String, String, u64)> {
    let pod = match object["kind"].as_str()? {
        "Lease" => object["spec"]["holderIdentity"].as_str()?,
        _ => object["spec"]["selector"][POD_NAME_LABEL].as_str()?,
    };
    let annotations = &object["metadata"]["annotations"];
    let term = annotations["ordinal.dev/term"].as_str()?.parse().ok()?;
    (!pod.is_empty()).then(|| (object["kind"].to_string(), pod.to_owned(), term))
}
