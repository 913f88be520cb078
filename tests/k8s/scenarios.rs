//! The scenarios: steps on a healthy new store while clients use it. The store must be healthy
//! again at the end; `chaos` checks the clients' observations.

use std::{future::Future, pin::Pin};

use tokio::time::Duration;

use crate::k8s::{
    connections::connect_during_updates,
    control_plane::restored_control_plane,
    deletion::*,
    disks::*,
    founding::*,
    host::Host,
    instances::*,
    leader_lease::leader_is_published,
    membership::*,
    outages::*,
    pods::*,
    recovery::*,
    store::Store,
    workload::{Seen, Workload},
};

/// Planned changes: the longest gap in writes, with three members or more.
const PLANNED: Option<Duration> = Some(Duration::from_millis(500));
/// Loss of the leader, with the shipped election timeout.
const ELECTION: Option<Duration> = Some(Duration::from_secs(3));
/// Loss of a majority, or the gap depends on the start of pods.
const UNBOUNDED: Option<Duration> = None;

#[derive(Debug)]
pub struct ScenarioContext {
    pub store: Store,
    pub load: Workload,
    host: Option<Host>,
}

impl ScenarioContext {
    pub fn new(store: Store, load: Workload) -> ScenarioContext {
        ScenarioContext { store, load, host: Host::from_env() }
    }

    /// For scenarios that [require it](Scenario::host).
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("scenarios that need it run only where it is")
    }
}

type Steps = for<'a> fn(&'a mut ScenarioContext) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// The installation.
    pub replicas: u32,
    pub policy: &'static str,
    /// Bound on gaps between acknowledged writes.
    pub gap: Option<Duration>,
    /// Requires access to the host of the cluster.
    pub host: bool,
    /// Part of the smoke run.
    pub smoke: bool,
    pub steps: Steps,
}

const fn scenario(name: &'static str, gap: Option<Duration>, steps: Steps) -> Scenario {
    let policy = "Parallel";
    Scenario { name, replicas: 3, policy, gap, host: false, smoke: false, steps }
}

impl Scenario {
    /// The gaps that exceed the bound, if any.
    pub fn too_long(&self, seen: &Seen) -> Option<String> {
        let allowed = self.gap?;
        let gaps = [("write", seen.write_gap), ("read", seen.read_gap)];
        let longer = gaps.into_iter().filter(|(_, gap)| gap.lasted > allowed);
        let texts: Vec<String> = longer.map(|(kind, gap)| format!("no {kind} for {gap}")).collect();
        (!texts.is_empty()).then(|| format!("{}; {allowed:?} are allowed", texts.join(", ")))
    }

    const fn replicas(mut self, replicas: u32) -> Scenario {
        self.replicas = replicas;
        self
    }

    const fn ordered(mut self) -> Scenario {
        self.policy = "OrderedReady";
        self
    }

    const fn host(mut self) -> Scenario {
        self.host = true;
        self
    }

    const fn smoke(mut self) -> Scenario {
        self.smoke = true;
        self
    }
}

pub const SCENARIOS: &[Scenario] = &[
    scenario("form", UNBOUNDED, |s| Box::pin(form(s))).smoke(),
    scenario("form-ordered", UNBOUNDED, |s| Box::pin(form(s))).ordered(),
    // Pods.
    scenario("delete-a-pod", PLANNED, |s| Box::pin(delete_follower(s))),
    scenario("delete-the-leader", PLANNED, |s| Box::pin(delete_leader(s))).smoke(),
    scenario("force-delete-the-leader", ELECTION, |s| Box::pin(force_delete_leader(s))),
    scenario("leader-is-published", ELECTION, |s| Box::pin(leader_is_published(s))),
    scenario("delete-all-pods", UNBOUNDED, |s| Box::pin(delete_all(s))),
    scenario("force-delete-all-pods", UNBOUNDED, |s| Box::pin(force_delete_all(s))),
    scenario("delete-two-pods", UNBOUNDED, |s| Box::pin(delete_two(s))),
    scenario("rolling-update", PLANNED, |s| Box::pin(rolling_update(s))),
    scenario("new-connections", PLANNED, |s| Box::pin(connect_during_updates(s))),
    scenario("arbitrary-user", PLANNED, |s| Box::pin(arbitrary_user(s))),
    scenario("drain", PLANNED, |s| Box::pin(drain(s))),
    scenario("bad-image-and-back", PLANNED, |s| Box::pin(bad_image(s))),
    // Volumes.
    scenario("lose-volume-0", ELECTION, |s| Box::pin(lose_volume(s, 0))).smoke(),
    scenario("lose-volume-1", ELECTION, |s| Box::pin(lose_volume(s, 1))),
    scenario("lose-volume-2", ELECTION, |s| Box::pin(lose_volume(s, 2))),
    scenario("volume-rolled-back", ELECTION, |s| Box::pin(roll_volume_back(s, 2))).host(),
    scenario("volume-rolled-back-once", ELECTION, |s| Box::pin(roll_volume_back(s, 1))).host(),
    scenario("hung-disk", PLANNED, |s| Box::pin(restart_beside_a_hung_disk(s))).host(),
    scenario("hung-voter", PLANNED, |s| Box::pin(hung_voter(s))).replicas(4).host(),
    scenario("hung-leader", UNBOUNDED, |s| Box::pin(hung_leader(s))).host(),
    // Deletion and founding.
    scenario("delete-everything", UNBOUNDED, |s| Box::pin(delete_everything(s))).smoke(),
    scenario("second-signal", PLANNED, |s| Box::pin(second_signal(s))).host(),
    scenario("short-grace", UNBOUNDED, |s| Box::pin(short_grace(s))),
    scenario("volumes-attach-late", UNBOUNDED, |s| Box::pin(volumes_attach_late(s))).host(),
    scenario("first-volume-late", UNBOUNDED, |s| Box::pin(first_volume_late(s))).replicas(1).host(),
    scenario("other-ordinals", UNBOUNDED, |s| Box::pin(applied_at_other_ordinals(s))),
    scenario("found-despite-volumes", UNBOUNDED, |s| Box::pin(found_despite_volumes(s))),
    scenario("restored-claims", UNBOUNDED, |s| Box::pin(restored_claims(s))).host(),
    scenario("data-deleted", UNBOUNDED, |s| Box::pin(delete_the_data(s))),
    scenario("record-deleted", ELECTION, |s| Box::pin(record_deleted(s))),
    // Membership.
    scenario("scale-3-5-3", PLANNED, |s| Box::pin(scale_3_5_3(s))).smoke(),
    scenario("scale-1-3-5-3-1", PLANNED, |s| Box::pin(scale_1_3_5_3_1(s))).replicas(1),
    scenario("scale-3-0-3", UNBOUNDED, |s| Box::pin(scale_3_0_3(s))),
    scenario("scale-3-0-3-ordered", UNBOUNDED, |s| Box::pin(scale_3_0_3_ordered(s))).ordered(),
    scenario("lose-first-volume-ordered", UNBOUNDED, |s| Box::pin(wake_without_first_volume(s)))
        .ordered(),
    scenario("scale-5-20-5", PLANNED, |s| Box::pin(scale_5_20_5(s))).replicas(5),
    scenario("move-ordinals", PLANNED, |s| Box::pin(move_ordinals(s))),
    scenario("old-volumes-return", PLANNED, |s| Box::pin(old_volumes_return(s))).replicas(5),
    scenario("shrink-past-the-dead", UNBOUNDED, |s| Box::pin(shrink_past_dead(s))).replicas(5),
    scenario("scale-down-reverted", PLANNED, |s| Box::pin(scale_down_reverted(s))).replicas(5),
    scenario("scale-down-reverted-late", PLANNED, |s| Box::pin(scale_down_reverted_late(s))),
    scenario("statefulset-recreated", UNBOUNDED, |s| Box::pin(recreate(s, "foreground"))),
    scenario("statefulset-orphaned", PLANNED, |s| Box::pin(recreate(s, "orphan"))),
    scenario("two-of-one-ordinal", PLANNED, |s| Box::pin(two_of_one_ordinal(s))),
    scenario("two-instances", PLANNED, |s| Box::pin(two_instances(s))),
    scenario("all-components", UNBOUNDED, |s| Box::pin(all_components(s))).replicas(1),
    // Outages around the store.
    scenario("api-server-stopped", PLANNED, |s| Box::pin(stop_api_server(s))).host(),
    scenario("dns-stopped", PLANNED, |s| Box::pin(stop_dns(s))).host(),
    scenario("api-server-restarted", PLANNED, |s| Box::pin(restart_api_server(s))).host(),
    scenario("dns-cached", PLANNED, |s| Box::pin(cached_dns(s))).host(),
    scenario("restored-control-plane", PLANNED, |s| Box::pin(restored_control_plane(s))).host(),
    scenario("recover-the-last-volume", UNBOUNDED, |s| Box::pin(recover_the_last_volume(s))),
    scenario("record-of-another-cluster", UNBOUNDED, |s| Box::pin(record_of_another_cluster(s))),
    scenario("recover-during-a-partition", UNBOUNDED, |s| Box::pin(recover_during_a_partition(s)))
        .host(),
    scenario("leader-cut-off", ELECTION, |s| Box::pin(cut_leader_off(s))).host(),
];
