//! What a volume says of itself when it asks to join.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use super::super::{Bootstrap, BootstrapConfig, DataDir, Identity, Stage};
use crate::{
    disk::sim::SimDisk,
    rng::SystemRng,
    types::{ClusterId, DesiredReplicas, MemberId, Ordinal},
};

#[test]
fn a_pristine_pod_names_the_statefulset_that_it_has_read_and_a_member_does_not() {
    let dir = DataDir::open(Arc::new(SimDisk::new(1)), Path::new("/data")).unwrap();
    let config = BootstrapConfig {
        ordinal: Ordinal(1),
        home: "default/kv".into(),
        founders: 1,
        known: BTreeSet::new(),
        orchestrator: None,
        takeover_timeout: Duration::MAX,
    };
    let volume = Bootstrap::open(config, Arc::new(dir), Arc::new(SystemRng)).unwrap();
    assert_eq!(volume.join_request(None).set, "");
    for set in ["uid-of-a-set", "uid-of-its-successor"] {
        let set = set.to_string();
        let read = DesiredReplicas { set: set.clone(), generation: 1, start: 0, replicas: 3 };
        volume.note_desired(&read);
        assert_eq!(volume.join_request(None).set, set);
    }
    let identity = Identity {
        cluster: ClusterId(7),
        member: MemberId(9),
        ordinal: Ordinal(1),
        home: "default/kv".into(),
        boot: 1,
        stage: Stage::Assigned,
        founders: Vec::new(),
        recovered_from: None,
    };
    let request = volume.join_request(Some(&identity));
    assert_eq!((request.set.as_str(), request.member_id, request.cluster_id), ("", 9, 7));
}
