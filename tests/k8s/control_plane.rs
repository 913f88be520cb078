//! The control plane comes back from a backup: objects have the state of an earlier time.

use serde_json::json;

use crate::k8s::{
    kubectl::eventually,
    scenarios::ScenarioContext,
    store::{client_of, endpoint},
};

/// Changes of the StatefulSet that the backup does not know.
const LATER_CHANGES: i64 = 6;

/// The StatefulSet returns with the same uid and a lower generation. The members know the higher one,
/// and must follow the next `kubectl scale` nevertheless.
pub async fn restored_control_plane(s: &ScenarioContext) {
    let backup = s.store.kubectl.get(&["statefulset", &s.store.name]).await;
    let generation = backup["metadata"]["generation"].as_i64().expect("it has a generation");
    for change in 1..=LATER_CHANGES {
        // A field without a meaning for the members.
        let patch = json!({"spec": {"minReadySeconds": change % 2}}).to_string();
        s.store.kubectl.run(&["patch", "statefulset", &s.store.name, "--patch", &patch]).await;
    }
    known_generation(s, generation + LATER_CHANGES).await;

    let mut restored = backup;
    let metadata = restored["metadata"].as_object_mut().expect("it has metadata");
    // The database keeps it outside of the object.
    metadata.remove("resourceVersion");
    let (namespace, name) = (&s.store.kubectl.namespace, &s.store.name);
    s.host().overwrite(&format!("/registry/statefulsets/{namespace}/{name}"), &restored).await;
    eventually(async || {
        let now =
            s.store.kubectl.get(&["statefulset", name]).await["metadata"]["generation"].clone();
        if now == generation { Ok(()) } else { Err(format!("generation {now}")) }
    })
    .await;
    s.load.progress(100).await;
    for replicas in [5, 3] {
        s.store.scale(replicas).await;
        s.store.ready(replicas).await;
        s.store.membership(replicas as usize, 0).await;
        s.load.progress(100).await;
    }
}

/// Waits until the members have replicated this generation.
async fn known_generation(s: &ScenarioContext, generation: i64) {
    let leader = s.store.leader().await;
    let client = client_of(&[endpoint(&leader.ip)]);
    eventually(async || {
        let answer = client.cluster().await.map_err(|error| error.to_string())?;
        let known = answer.desired.map(|desired| desired.generation);
        if known.is_some_and(|known| i64::try_from(known) == Ok(generation)) {
            Ok(())
        } else {
            Err(format!("the members know generation {known:?}, not {generation}"))
        }
    })
    .await;
}
