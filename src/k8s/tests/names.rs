//! The term rule in isolation: for any interleaving of leaders, an object never names an earlier term.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::leader_annotations::{self, Decision, Leader},
    api::merge,
};
use crate::types::{ClusterId, Ordinal, Term};

/// Each term has its own leader; some pods lead several terms.
const TERMS: usize = 4;
const PODS: usize = 3;

fn leader(term: usize) -> Leader {
    let (cluster, pod) = (ClusterId(0xc1), format!("kv-{}", term % PODS));
    Leader { cluster, term: Term(term as u64), pod }
}

#[test]
fn only_a_pod_of_this_set_is_an_annotated_leader() {
    let leader = |pod: &str| {
        let annotations = [("ordinal.dev/leader".to_string(), pod.to_string())].into();
        leader_annotations::annotated_leader(&annotations, "kv")
    };
    assert_eq!(leader("kv-22"), Some(Ordinal(22)));
    for pod in ["", "kv", "kv-", "kv-x", "kv-1-2", "kv2-1", "other-1", "kv--1", "kv-99999999999"] {
        assert_eq!(leader(pod), None, "{pod:?}");
    }
    assert_eq!(leader_annotations::annotated_leader(&Default::default(), "kv"), None);
}

#[derive(Debug, Clone)]
enum Act {
    /// The leader of a term reads.
    Read(usize),
    /// It writes its decision on the object it has read.
    Lead(usize),
    Resign(usize),
    /// An operator edits other fields than the annotations.
    Edit,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..TERMS).prop_map(Act::Read),
        4 => (0..TERMS).prop_map(Act::Lead),
        2 => (0..TERMS).prop_map(Act::Resign),
        1 => Just(Act::Edit),
    ];
    prop::collection::vec(act, 0..60)
}

/// An object, and the version that each leader has read.
struct World {
    object: Value,
    version: u32,
    seen: Vec<(Value, u32)>,
}

impl World {
    fn new(object: Value) -> World {
        World { seen: vec![(object.clone(), 0); TERMS], object, version: 0 }
    }

    /// Compare-and-swap.
    fn swap(&mut self, term: usize, patch: &Value) {
        if self.seen[term].1 == self.version {
            merge(&mut self.object, patch);
            self.version += 1;
        }
    }

    fn named(&self) -> Option<(u64, String)> {
        let annotations = &self.object["metadata"]["annotations"];
        let term = annotations["ordinal.dev/term"].as_str()?.parse().unwrap();
        Some((term, annotations["ordinal.dev/leader"].as_str().unwrap().into()))
    }
}

/// Plays `acts` on an object, with its kind's functions to lead and resign, and its edit.
fn play(
    acts: &[Act],
    object: Value,
    lead: impl Fn(Value, &Leader) -> Decision,
    resign: impl Fn(Value, &Leader) -> Option<Value>,
    edit: &Value,
) -> World {
    let mut world = World::new(object);
    let mut last = world.named();
    for act in acts {
        match *act {
            Act::Read(term) => world.seen[term] = (world.object.clone(), world.version),
            Act::Lead(term) => {
                if let Decision::Write(patch) = lead(world.seen[term].0.clone(), &leader(term)) {
                    world.swap(term, &patch);
                }
            }
            Act::Resign(term) => {
                if let Some(patch) = resign(world.seen[term].0.clone(), &leader(term)) {
                    world.swap(term, &patch);
                }
            }
            Act::Edit => {
                merge(&mut world.object, edit);
                world.version += 1;
            }
        }
        let now = world.named();
        let term = |named: &Option<(u64, String)>| named.as_ref().map(|(term, _)| *term);
        assert!(term(&now) >= term(&last), "named an earlier term: {last:?}, then {now:?}");
        if let Some((term, pod)) = &now {
            assert_eq!(*pod, leader(*term as usize).pod, "a leader of another term is named");
        }
        last = now;
    }
    world
}

proptest! {
    #[test]
    fn a_lease_never_names_an_earlier_term_nor_two_leaders_of_one(acts in acts()) {
        let parse = |object: Value| serde_json::from_value(object).unwrap();
        let now = serde_json::from_value(json!("2026-01-01T00:00:00.000000Z")).unwrap();
        let mut world = play(
            &acts,
            json!({ "metadata": {} }),
            |lease, me| leader_annotations::acquire_lease(&parse(lease), me, &now),
            |lease, me| leader_annotations::release_lease(&parse(lease), me),
            &json!({ "spec": { "holderIdentity": "another" } }),
        );
        // The latest leader repairs any state.
        let latest = leader(TERMS - 1);
        let Decision::Write(patch) = leader_annotations::acquire_lease(&parse(world.object.clone()), &latest, &now) else {
            panic!("the latest leader yields")
        };
        merge(&mut world.object, &patch);
        prop_assert_eq!(&world.object["spec"]["holderIdentity"], &json!(latest.pod));
    }

    #[test]
    fn a_service_never_names_an_earlier_term_nor_two_leaders_of_one(acts in acts()) {
        let parse = |object: Value| serde_json::from_value(object).unwrap();
        let mut world = play(
            &acts,
            json!({ "metadata": {}, "spec": { "selector": { "app": "kv" } } }),
            |service, me| leader_annotations::select_leader(&parse(service), me),
            |_, _| None,
            &json!({ "spec": { "selector": { "app": "kv", "more": "too much" } } }),
        );
        let latest = leader(TERMS - 1);
        if let Decision::Write(patch) = leader_annotations::select_leader(&parse(world.object.clone()), &latest) {
            merge(&mut world.object, &patch);
        }
        let selector = json!({ "statefulset.kubernetes.io/pod-name": latest.pod });
        prop_assert_eq!(&world.object["spec"]["selector"], &selector);
        prop_assert_eq!(leader_annotations::select_leader(&parse(world.object), &latest), Decision::Unchanged);
    }
}

#[test]
fn a_leader_does_not_overwrite_another_leader_of_its_term() {
    let now = serde_json::from_value(json!("2026-01-01T00:00:00.000000Z")).unwrap();
    let (me, other) = (leader(2), Leader { pod: "kv-9".into(), ..leader(2) });
    let mut object = json!({ "metadata": {}, "spec": {} });
    let lease = serde_json::from_value(object.clone()).unwrap();
    let Decision::Write(patch) = leader_annotations::acquire_lease(&lease, &other, &now) else {
        panic!()
    };
    merge(&mut object, &patch);
    // Not even after the other has released the Lease.
    for holder in [json!("kv-9"), Value::Null] {
        merge(&mut object, &json!({ "spec": { "holderIdentity": holder } }));
        let lease = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(
            leader_annotations::acquire_lease(&lease, &me, &now),
            Decision::Yield(other.clone())
        );
        let service = serde_json::from_value(json!({ "metadata": object["metadata"] })).unwrap();
        assert_eq!(
            leader_annotations::select_leader(&service, &me),
            Decision::Yield(other.clone())
        );
    }
}

#[test]
fn another_cluster_or_malformed_annotations_are_overwritten() {
    let me = leader(1);
    for annotations in [
        json!({ "ordinal.dev/cluster": "c2", "ordinal.dev/term": "9", "ordinal.dev/leader": "x" }),
        json!({ "ordinal.dev/cluster": "c1", "ordinal.dev/term": "x", "ordinal.dev/leader": "x" }),
        json!({ "ordinal.dev/cluster": "c1", "ordinal.dev/term": "9" }),
        json!({}),
    ] {
        let service = json!({ "metadata": { "annotations": annotations } });
        let service = serde_json::from_value(service).unwrap();
        assert!(
            matches!(leader_annotations::select_leader(&service, &me), Decision::Write(_)),
            "{annotations}"
        );
    }
}
