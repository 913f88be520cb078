//! Who leads is told in the Lease and behind the Service `kv-leader`: soon, and never two for one term.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    kubectl::PATIENCE,
    scenarios::Stage,
    store::{End, Pod, client_of, endpoint},
};

/// From when a member leads until both objects name it.
const SOON: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
const SELECTED: &str = "statefulset.kubernetes.io/pod-name";

/// Which pod each object has named for each term.
#[derive(Debug, Default)]
struct Told(BTreeMap<(String, u64), String>);

/// Leadership changes often, with and without a farewell.
pub(crate) async fn leader_is_told(s: &Stage) {
    let mut told = Told::default();
    for end in [End::Graceful, End::Force, End::Graceful, End::Force] {
        let before = s.store.leader().await;
        let term = term(&before).await.expect("it has just said that it leads");
        s.store.ready(3).await;
        s.store.delete(&[&before.name], end).await;
        let (leader, since) = next_leader(s, &before, term).await;
        while !told.by_both(s, &leader).await {
            assert!(
                since.elapsed() < SOON,
                "{} has led for {:.1?}: {told:#?}",
                leader.0,
                since.elapsed()
            );
            sleep(PAUSE).await;
        }
        println!("  {} is told after {:.2?}", leader.0, since.elapsed());
        s.store.replaced(&before).await;
        s.store.ready(3).await;
    }
}

/// Which pod leads in a later term, and when it was seen first. It may be the one that came in the
/// place of the last leader.
async fn next_leader(s: &Stage, last: &Pod, after: u64) -> ((String, u64), Instant) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let pods = s.store.told_pods();
        for pod in pods.into_iter().filter(|pod| pod.uid != last.uid && !pod.ip.is_empty()) {
            if let Some(term) = term(&pod).await.filter(|term| *term > after) {
                return ((pod.name, term), Instant::now());
            }
        }
        sleep(PAUSE).await;
    }
    panic!("nobody leads after term {after}");
}

/// The term in which this pod leads.
async fn term(pod: &Pod) -> Option<u64> {
    let status = client_of(&[endpoint(&pod.ip)]).status().await.ok()?;
    let leads = status.leader == status.header.as_ref()?.member_id;
    leads.then_some(status.raft_term)
}

impl Told {
    /// Whether both objects name this leader now. One of a later term will do: it was told, too.
    async fn by_both(&mut self, s: &Stage, (pod, term): &(String, u64)) -> bool {
        let now = self.look(s).await;
        now.len() == 2 && now.iter().all(|(p, t)| (p == pod && t == term) || t > term)
    }

    /// Which pods the objects name now, and for which terms.
    async fn look(&mut self, s: &Stage) -> Vec<(String, u64)> {
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
        _ => object["spec"]["selector"][SELECTED].as_str()?,
    };
    let annotations = &object["metadata"]["annotations"];
    let term = annotations["ordinal.dev/term"].as_str()?.parse().ok()?;
    (!pod.is_empty()).then(|| (object["kind"].to_string(), pod.to_owned(), term))
}
