//! The bootstrap with promises on simulated disks: founders start, crash and are wiped in any order, also
//! between a promise and the log that follows it.
//!
//! Invariants: a founder initializes a cluster only while no volume of another cluster exists; without
//! wiped volumes all founders end in one cluster; a promise that was answered survives a crash.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    super::{
        Bootstrap, BootstrapConfig, BootstrapRpc, Bootstrapped, DataDir, Stage,
        identity::member_ref_to_wire,
    },
    cases,
};
use crate::{
    disk::{
        Disk, Open,
        sim::{Crash, DiskOp, SimDisk},
    },
    proto::peer::{self, join_reply, promise_reply},
    rng::Rng,
    types::{ClusterId, MemberId, MemberRef, Ordinal},
};

const FOUNDERS: u32 = 3;

#[derive(Debug, Default)]
struct Counter(std::sync::atomic::AtomicU64);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }
}

/// One pod and its volume.
struct Pod {
    disk: SimDisk,
    up: Option<Arc<Bootstrap>>,
    formed: Option<Bootstrapped>,
}

struct World {
    pods: Vec<Mutex<Pod>>,
    rng: Arc<Counter>,
    /// The clusters in which Raft is initialized.
    initialized: Mutex<BTreeSet<ClusterId>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Round(usize),
    Start(usize),
    Crash(usize, Crash),
    /// The process dies after it created its log and before its identity says that it is a member.
    CrashBeforeMember(usize, Crash),
    Wipe(usize),
}

impl World {
    fn new() -> World {
        let pod =
            |i: u32| Mutex::new(Pod { disk: SimDisk::new(u64::from(i)), up: None, formed: None });
        World {
            pods: (0..FOUNDERS).map(pod).collect(),
            rng: Arc::default(),
            initialized: Mutex::default(),
        }
    }

    fn config(ordinal: u32) -> BootstrapConfig {
        BootstrapConfig {
            ordinal: Ordinal(ordinal),
            home: "default/kv".into(),
            founders: FOUNDERS,
            known: (0..FOUNDERS).map(Ordinal).collect(),
            orchestrator: None,
            takeover_timeout: crate::membership::FOUNDER_TAKEOVER_TIMEOUT,
        }
    }

    fn up(&self, i: usize) -> Option<Arc<Bootstrap>> {
        self.pods[i].lock().unwrap().up.clone()
    }

    fn start(&self, i: usize) {
        let mut pod = self.pods[i].lock().unwrap();
        if pod.up.is_some() {
            return;
        }
        let dir = DataDir::open(Arc::new(pod.disk.clone()), Path::new("/data")).unwrap();
        let config = World::config(u32::try_from(i).unwrap());
        match Bootstrap::open(config, Arc::new(dir), self.rng.clone()) {
            Ok(bootstrap) => pod.up = Some(Arc::new(bootstrap)),
            Err(e) => panic!("pod {i} refuses its own volume: {e}"),
        }
    }

    fn crash(&self, i: usize, how: Crash) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.formed) = (None, None);
        pod.disk = pod.disk.crash(how);
    }

    fn wipe(&self, i: usize) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.formed) = (None, None);
        pod.disk = SimDisk::new(self.rng.next_u64());
    }

    /// The clusters of the volumes with a log.
    fn with_logs(&self) -> BTreeSet<ClusterId> {
        let mut clusters = BTreeSet::new();
        for pod in &self.pods {
            let pod = pod.lock().unwrap();
            let has_log = pod.disk.list(Path::new("/data/wal")).is_ok_and(|l| !l.is_empty());
            let identity = super::super::Identity::load(&pod.disk, Path::new("/data/identity"));
            if let (true, Ok(Some(identity))) = (has_log, identity) {
                clusters.insert(identity.cluster);
            }
        }
        clusters
    }

    async fn round(&self, i: usize, member: bool) {
        let Some(bootstrap) = self.up(i) else { return };
        if self.pods[i].lock().unwrap().formed.is_some() {
            return;
        }
        // A refusal ends the process, which may be started again.
        let formed = match bootstrap.round(self).await {
            Ok(Some(formed)) => formed,
            Ok(None) => return,
            Err(_) => return self.crash(i, Crash::KeepAll),
        };
        self.create_log(i);
        if formed.initialize {
            let others = self.with_logs();
            let mine = BTreeSet::from([formed.identity.cluster]);
            assert_eq!(others, mine, "a second cluster is founded next to a running one");
            self.initialized.lock().unwrap().insert(formed.identity.cluster);
            self.call_all(&formed);
        }
        if member {
            bootstrap.became_member(&formed.identity).unwrap();
            self.pods[i].lock().unwrap().formed = Some(formed);
        }
    }

    fn create_log(&self, i: usize) {
        let disk = self.pods[i].lock().unwrap().disk.clone();
        let (dir, file) = (Path::new("/data/wal"), Path::new("/data/wal/1.wal"));
        disk.create_dir_all(dir).unwrap();
        if !disk.exists(file).unwrap() {
            disk.open(file, Open::CreateNew).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(dir).unwrap();
    }

    /// The founder leads, and contacts all members.
    fn call_all(&self, formed: &Bootstrapped) {
        for i in 0..self.pods.len() {
            if let Some(other) = self.up(i)
                && other.identity().is_some_and(|o| o.cluster == formed.identity.cluster)
            {
                other.note_contact();
            }
        }
    }

    fn settle_all(&self, runtime: &tokio::runtime::Runtime) {
        for i in 0..self.pods.len() {
            self.start(i);
        }
        for _ in 0..6 {
            for i in 0..self.pods.len() {
                runtime.block_on(self.round(i, true));
            }
            // A leader contacts the members again and again.
            for i in 0..self.pods.len() {
                let formed = self.pods[i].lock().unwrap().formed.clone();
                if let Some(formed) = formed
                    && self.initialized.lock().unwrap().contains(&formed.identity.cluster)
                {
                    self.call_all(&formed);
                }
            }
        }
    }
}

impl BootstrapRpc for World {
    async fn promise(
        &self,
        to: Ordinal,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, String> {
        let founder = self.up(to.0 as usize).ok_or("down")?;
        founder.handle_promise(request).map_err(|e| e.to_string())
    }

    async fn join(&self, to: Ordinal, _: peer::JoinRequest) -> Result<peer::JoinReply, String> {
        let there = self.up(to.0 as usize).ok_or("down")?;
        let identity = there.identity();
        let formed = self.pods[to.0 as usize].lock().unwrap().formed.is_some();
        let result = match identity.filter(|_| formed) {
            // Every founder's ordinal has a member in its cluster.
            Some(member) => join_reply::Result::OccupiedBy(peer::Taken {
                cluster_id: member.cluster.0,
                member_id: member.member.0,
            }),
            None => join_reply::Result::NotFormed(peer::NotFormed {
                starting: there.identity().is_some_and(|i| i.stage == Stage::Member),
                pristine: there.identity().is_none(),
                ..peer::NotFormed::default()
            }),
        };
        Ok(peer::JoinReply { result: Some(result), has_quorum: formed })
    }
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![Just(Crash::LoseAll), Just(Crash::KeepAll), Just(Crash::Arbitrary)]
}

fn step(wipes: bool) -> impl Strategy<Value = Step> {
    let pod = 0..FOUNDERS as usize;
    prop_oneof![
        8 => pod.clone().prop_map(Step::Round),
        4 => pod.clone().prop_map(Step::Start),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::Crash(i, how)),
        1 => (pod.clone(), crash()).prop_map(|(i, how)| Step::CrashBeforeMember(i, how)),
        u32::from(wipes) => pod.prop_map(Step::Wipe),
    ]
}

fn play(world: &World, steps: &[Step], runtime: &tokio::runtime::Runtime) {
    for step in steps {
        match *step {
            Step::Round(i) => runtime.block_on(world.round(i, true)),
            Step::Start(i) => world.start(i),
            Step::Crash(i, how) => world.crash(i, how),
            Step::CrashBeforeMember(i, how) => {
                runtime.block_on(world.round(i, false));
                world.crash(i, how);
            }
            Step::Wipe(i) => world.wipe(i),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(500), failure_persistence: None, ..Default::default() })]

    #[test]
    fn crashes_alone_never_keep_founders_from_one_cluster(
        steps in prop::collection::vec(step(false), 0..60),
    ) {
        let (world, runtime) = (World::new(), runtime());
        play(&world, &steps, &runtime);
        world.settle_all(&runtime);
        let clusters: Vec<_> = world
            .pods
            .iter()
            .map(|pod| pod.lock().unwrap().formed.as_ref().map(|f| f.identity.cluster))
            .collect();
        prop_assert!(clusters[0].is_some(), "no cluster is formed");
        prop_assert!(clusters.iter().all(|c| *c == clusters[0]), "{clusters:?}");
        prop_assert_eq!(world.initialized.lock().unwrap().len(), 1);
    }

    /// The assertion is in `World::round`.
    #[test]
    fn a_wiped_volume_never_founds_a_second_cluster_beside_the_first(
        steps in prop::collection::vec(step(true), 0..80),
    ) {
        let (world, runtime) = (World::new(), runtime());
        play(&world, &steps, &runtime);
        world.settle_all(&runtime);
        prop_assert!(world.with_logs().len() <= 1, "{:?}", world.with_logs());
    }
}

fn promise(cluster: u64, replace: bool) -> peer::PromiseRequest {
    let founder = |i: u32| MemberRef { member: MemberId(u64::from(i) + 1), ordinal: Ordinal(i) };
    peer::PromiseRequest {
        cluster_id: cluster,
        home: "default/kv".into(),
        founders: (0..FOUNDERS).map(founder).map(member_ref_to_wire).collect(),
        replace,
    }
}

/// Gives a promise, then loses power; returns the promise that the volume has kept.
fn promised_after_power_loss(disk: &SimDisk) -> Option<ClusterId> {
    let open = |disk: &SimDisk| {
        let dir = DataDir::open(Arc::new(disk.clone()), Path::new("/data")).unwrap();
        Bootstrap::open(World::config(1), Arc::new(dir), Arc::new(Counter::default())).unwrap()
    };
    let reply = open(disk).handle_promise(promise(7, false)).unwrap();
    assert!(matches!(reply.result, Some(promise_reply::Result::Promised(_))));
    disk.remove_hook();
    let disk = disk.crash(Crash::LoseAll);
    open(&disk).identity().map(|identity| identity.cluster)
}

#[test]
fn a_promise_survives_a_power_loss() {
    assert_eq!(promised_after_power_loss(&SimDisk::new(1)), Some(ClusterId(7)));
}

#[test]
fn without_the_sync_of_the_identity_a_promise_is_forgotten() {
    let disk = SimDisk::new(1);
    disk.ignore_syncs(|op| matches!(op, DiskOp::SyncData(_)));
    let forgotten = std::panic::catch_unwind(|| promised_after_power_loss(&disk));
    // The promise is lost, or the file has zeros and is refused.
    assert!(!matches!(forgotten, Ok(Some(ClusterId(7)))));
}

#[test]
fn without_the_sync_of_its_directory_a_promise_is_forgotten() {
    let disk = SimDisk::new(1);
    disk.ignore_syncs(|op| matches!(op, DiskOp::SyncDir(dir) if dir == Path::new("/data")));
    assert_ne!(promised_after_power_loss(&disk), Some(ClusterId(7)));
}

#[test]
fn a_promise_is_replaced_only_when_asked_to_and_only_without_a_log() {
    let disk = SimDisk::new(1);
    let dir = Arc::new(DataDir::open(Arc::new(disk.clone()), Path::new("/data")).unwrap());
    let bootstrap = Bootstrap::open(World::config(1), dir, Arc::new(Counter::default())).unwrap();
    let answer = |request| bootstrap.handle_promise(request).unwrap().result.unwrap();
    assert!(matches!(answer(promise(7, false)), promise_reply::Result::Promised(_)));
    assert!(matches!(answer(promise(8, false)), promise_reply::Result::Engaged(_)));
    assert!(matches!(answer(promise(8, true)), promise_reply::Result::Promised(_)));
    disk.create_dir_all(Path::new("/data/wal")).unwrap();
    disk.open(Path::new("/data/wal/1.wal"), Open::CreateNew).unwrap();
    assert!(matches!(answer(promise(9, true)), promise_reply::Result::Taken(_)));
    assert_eq!(bootstrap.identity().unwrap().stage, Stage::Promised);
}

/// A peer that answers each request to join with an id in this cluster.
struct Joins(ClusterId);

impl BootstrapRpc for Joins {
    async fn promise(
        &self,
        _: Ordinal,
        _: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, String> {
        unreachable!("only the founder asks for promises")
    }

    async fn join(&self, _: Ordinal, _: peer::JoinRequest) -> Result<peer::JoinReply, String> {
        let joined = peer::Joined { cluster_id: self.0.0, member_id: 50 };
        let result = Some(join_reply::Result::Joined(joined));
        Ok(peer::JoinReply { result, has_quorum: true })
    }
}

/// The founder joined the cluster of a member that returned meanwhile, and never calls this volume.
#[test]
fn a_promise_does_not_keep_a_volume_from_another_cluster_for_ever() {
    const PROMISED: ClusterId = ClusterId(7);
    const OTHER: ClusterId = ClusterId(8);
    let waiting = Duration::from_secs(3600);
    for (takeover_timeout, answers, cluster, stage) in [
        (Duration::ZERO, OTHER, OTHER, Stage::Assigned),
        (Duration::ZERO, PROMISED, PROMISED, Stage::Promised),
        (waiting, OTHER, PROMISED, Stage::Promised),
    ] {
        let dir = DataDir::open(Arc::new(SimDisk::new(1)), Path::new("/data")).unwrap();
        let config = BootstrapConfig { takeover_timeout, ..World::config(1) };
        let volume = Bootstrap::open(config, Arc::new(dir), Arc::new(Counter::default())).unwrap();
        let founder = |i: u32| {
            let (member, ordinal) = (MemberId(u64::from(i) + 1), Ordinal(i));
            member_ref_to_wire(MemberRef { member, ordinal })
        };
        let promise = peer::PromiseRequest {
            cluster_id: PROMISED.0,
            home: "default/kv".into(),
            founders: (0..FOUNDERS).map(founder).collect(),
            replace: false,
        };
        volume.handle_promise(promise).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert!(runtime.block_on(volume.round(&Joins(answers))).unwrap().is_none());
        let identity = volume.identity().unwrap();
        assert_eq!((identity.cluster, identity.stage), (cluster, stage), "{takeover_timeout:?}");
    }
}
