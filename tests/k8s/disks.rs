//! The disk below a volume hangs, while the member's process and its network go on.

use std::path::PathBuf;

use tokio::time::{Duration, sleep};

use crate::k8s::{
    kubectl::eventually,
    scenarios::ScenarioContext,
    store::{Deletion, Pod, client_of, endpoint},
};

/// Until the leader has noticed that a follower stores nothing any more.
const HANGS: Duration = Duration::from_secs(3);
/// A pod that may stop does so within a second.
const WATCHED: Duration = Duration::from_secs(8);

/// A follower that stores nothing is in contact, but makes no majority: the other follower may not
/// stop before the disk continues.
pub async fn restart_beside_a_hung_disk(s: &ScenarioContext) {
    let hung = s.store.follower().await;
    let volume = give_disk(s, &hung).await;
    let leader = s.store.leader().await;
    let pods = s.store.ready(3).await;
    let mut others = pods.iter().filter(|pod| ![&leader.name, &hung.name].contains(&&pod.name));
    let restarting = others.next().expect("one of three neither leads nor hangs");

    s.host().freeze(&volume).await;
    sleep(HANGS).await;
    s.store.delete(&[&restarting.name], Deletion::Graceful).await;
    sleep(WATCHED).await;
    let client = client_of(&[endpoint(&restarting.ip)]);
    client.status().await.unwrap_or_else(|error| {
        panic!("{} has stopped, and the disk of {} hangs: {error}", restarting.name, hung.name)
    });
    s.load.progress_of_some(100).await;
    s.host().thaw().await;
    s.store.replaced(restarting).await;
    s.store.ready(3).await;
}

/// Three of four vote: the vote of a member that stores nothing goes to the fourth.
pub async fn hung_voter(s: &ScenarioContext) {
    s.store.membership(3, 1).await;
    let (hung, volume) = voter_with_a_disk(s).await;
    s.host().freeze(&volume).await;
    eventually(async || match self::voters(s).await {
        now if now.len() == 3 && !now.contains(&hung.name) => Ok(()),
        now => Err(format!("{now:?} vote, and the disk of {} hangs", hung.name)),
    })
    .await;
    s.load.progress_of_some(100).await;
    s.host().thaw().await;
    s.store.ready(4).await;
    s.store.membership(3, 1).await;
}

/// A voter that does not lead, and its volume, on a disk of its own. A voter may lose its vote while
/// it restarts on that disk.
async fn voter_with_a_disk(s: &ScenarioContext) -> (Pod, PathBuf) {
    for pod in s.store.ready(4).await {
        let leads = s.store.leader().await.name == pod.name;
        if leads || !voters(s).await.contains(&pod.name) {
            continue;
        }
        let volume = give_disk(s, &pod).await;
        s.store.membership(3, 1).await;
        if voters(s).await.contains(&pod.name) {
            return (pod, volume);
        }
    }
    panic!("no voter keeps its vote while it restarts");
}

/// Another member leads, and writes go on.
pub async fn hung_leader(s: &ScenarioContext) {
    let hung = s.store.follower().await;
    let volume = give_disk(s, &hung).await;
    while s.store.leader().await.name != hung.name {
        let (leader, ids) = (s.store.leader().await, s.store.ids().await);
        let _ = client_of(&[endpoint(&leader.ip)]).move_leader(ids[&hung.name]).await;
    }
    s.load.progress(100).await;
    s.host().freeze(&volume).await;
    eventually(async || match s.store.leader().await {
        leader if leader.name != hung.name => Ok(()),
        leader => Err(format!("{} leads, and its disk hangs", leader.name)),
    })
    .await;
    s.load.progress_of_some(100).await;
    s.host().thaw().await;
    s.store.ready(3).await;
}

/// Gives the volume of this pod a disk of its own, and restarts the pod on it.
async fn give_disk(s: &ScenarioContext, pod: &Pod) -> PathBuf {
    let replicas = s.store.installation().replicas;
    let volume = s.host().volume(&s.store.kubectl, &pod.name).await;
    s.store.hold(pod).await;
    s.host().give_disk(&volume).await;
    s.store.release(&pod.name).await;
    s.store.replaced(pod).await;
    s.store.ready(replicas).await;
    s.load.progress(100).await;
    volume
}

/// The names of the pods that vote, if any member answers.
async fn voters(s: &ScenarioContext) -> Vec<String> {
    let members = s.store.client().await.member_list().await;
    let members = members.map(|answer| answer.members).unwrap_or_default();
    members.into_iter().filter(|member| !member.is_learner).map(|member| member.name).collect()
}
