//! Formation with Kubernetes: pods start, crash and lose their volumes, the claim is deleted and made
//! anew, the API server goes away, answers get lost.
//!
//! What must hold: no cluster is founded beside the volumes of another; once everything is there, one is.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::super::{
    Claim, Claimed, DataDir, Formation, FormationConfig, Formed, Identity, Intent, News,
    Orchestrator, OrchestratorError, Peers, Stage,
};
use crate::{
    disk::{
        Disk, Open,
        sim::{Crash, SimDisk},
    },
    proto::peer::{self, join_reply},
    rng::Rng,
    types::{ClusterId, Desired, MemberId, Ordinal, PeerPlace},
};

const PODS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The API server, as far as it matters here.
#[derive(Debug)]
struct Api {
    /// Content, version, and how much younger than the set it is.
    claim: Option<(Claim, u64, Duration)>,
    versions: u64,
    away: bool,
    /// The next write is made, and its answer lost.
    loses_answer: bool,
}

#[derive(Debug, Clone)]
struct Pods(Arc<Mutex<Api>>);

impl Pods {
    fn answered<T>(&self, ask: impl FnOnce(&mut Api) -> T) -> Result<T, OrchestratorError> {
        let mut api = self.0.lock().unwrap();
        if api.away {
            return Err(OrchestratorError::Unreachable("away".into()));
        }
        Ok(ask(&mut api))
    }
}

impl Orchestrator for Pods {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        let desired = Desired { set: "a".into(), generation: 1, start: 0, replicas: PODS as u32 };
        Box::pin(async { self.answered(|_| Intent::Scale(desired)) })
    }

    fn claim(&self) -> BoxFuture<'_, Result<Option<Claimed>, OrchestratorError>> {
        let claimed = |(claim, version, younger_by): (Claim, u64, Duration)| Claimed {
            claim,
            version: version.to_string(),
            younger_by,
        };
        Box::pin(async move { self.answered(|api| api.claim.map(claimed)) })
    }

    fn write_claim<'a>(
        &'a self,
        claim: Claim,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        Box::pin(async move {
            let (swapped, lost) = self.answered(|api| {
                let Some((_, at, younger_by)) = api.claim else { return (false, false) };
                if at.to_string() != version {
                    return (false, false);
                }
                api.versions += 1;
                api.claim = Some((claim, api.versions, younger_by));
                (true, std::mem::take(&mut api.loses_answer))
            })?;
            match lost {
                true => Err(OrchestratorError::Unreachable("no answer".into())),
                false => Ok(swapped),
            }
        })
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        Box::pin(async { self.answered(|_| None) })
    }

    fn say(&self, _: News) {}
}

struct Pod {
    disk: SimDisk,
    up: Option<Arc<Formation>>,
    /// Takes part in Raft, and answers peers.
    member: Option<Formed>,
}

struct World {
    pods: Vec<Mutex<Pod>>,
    api: Pods,
    rng: Arc<Counter>,
    /// Clusters that were confirmed, and so may have answered clients.
    founded: Mutex<BTreeSet<ClusterId>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Round(usize),
    Start(usize),
    Crash(usize, Crash),
    /// The process dies after it began its log, before the claim says that the cluster is formed.
    CrashUnconfirmed(usize, Crash),
    Wipe(usize),
    Api(bool),
    LoseAnswer,
    DeleteClaim,
    /// Somebody applies the manifests again.
    RecreateClaim,
}

impl World {
    fn new() -> World {
        let pod = |i: u64| Mutex::new(Pod { disk: SimDisk::new(i), up: None, member: None });
        let claim = Some((Claim::Empty, 1, Duration::ZERO));
        let api = Api { claim, versions: 1, away: false, loses_answer: false };
        World {
            pods: (0..PODS as u64).map(pod).collect(),
            api: Pods(Arc::new(Mutex::new(api))),
            rng: Arc::default(),
            founded: Mutex::default(),
        }
    }

    /// Takes an unfinished claim over at once: more can go wrong then.
    fn start(&self, i: usize) {
        self.start_patient(i, Duration::ZERO);
    }

    fn start_patient(&self, i: usize, take_over: Duration) {
        let mut pod = self.pods[i].lock().unwrap();
        if pod.up.is_some() {
            return;
        }
        let dir = DataDir::open(Arc::new(pod.disk.clone()), Path::new("/data")).unwrap();
        let config = FormationConfig {
            ordinal: Ordinal(i as u32),
            home: "default/kv".into(),
            founders: 1,
            known: (0..PODS as u32).map(Ordinal).collect(),
            orchestrator: Some(Arc::new(self.api.clone())),
            take_over,
        };
        pod.up = Some(Arc::new(Formation::open(config, Arc::new(dir), self.rng.clone()).unwrap()));
    }

    fn crash(&self, i: usize, how: Crash) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = pod.disk.crash(how);
    }

    fn wipe(&self, i: usize) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = SimDisk::new(self.rng.next_u64());
    }

    /// The clusters that confirmed members' volumes are of, running or not.
    fn alive(&self) -> BTreeSet<ClusterId> {
        let founded = self.founded.lock().unwrap().clone();
        let identity = |pod: &Mutex<Pod>| {
            let pod = pod.lock().unwrap();
            let has_log = pod.disk.list(Path::new("/data/wal")).is_ok_and(|l| !l.is_empty());
            let identity = Identity::load(&pod.disk, Path::new("/data/identity")).ok().flatten();
            identity.filter(|_| has_log).filter(|identity| identity.stage != Stage::Dead)
        };
        let alive = self.pods.iter().filter_map(identity).map(|identity| identity.cluster);
        alive.filter(|cluster| founded.contains(cluster)).collect()
    }

    /// A leader of this cluster, if a majority of the members that ever were may run.
    fn leads(&self, cluster: ClusterId) -> bool {
        let running = self.pods.iter().filter(|pod| {
            let pod = pod.lock().unwrap();
            pod.member.as_ref().is_some_and(|formed| formed.identity.cluster == cluster)
        });
        // The founder alone is a majority until somebody else votes; that others vote only makes it
        // harder to find a leader.
        running.count() >= 1
    }

    async fn round(&self, i: usize, confirmed: bool) {
        let up = self.pods[i].lock().unwrap().up.clone();
        let Some(formation) = up else { return };
        if self.pods[i].lock().unwrap().member.is_some() {
            return;
        }
        let formed = match formation.round(self).await {
            Ok(Some(formed)) => formed,
            Ok(None) => return,
            Err(_) => return self.crash(i, Crash::KeepAll),
        };
        self.begin_log(i);
        if formed.unconfirmed {
            if !confirmed {
                return self.crash(i, Crash::KeepAll);
            }
            let sure = tokio::time::timeout(
                Duration::from_millis(1),
                formation.confirm_founded(self, &formed.identity),
            );
            match sure.await {
                Ok(Ok(())) => {}
                // Outrun, or the API server is away: the process is started again.
                Ok(Err(_)) | Err(_) => return self.crash(i, Crash::KeepAll),
            }
            let mut others = self.alive();
            others.remove(&formed.identity.cluster);
            assert!(others.is_empty(), "pod {i} founds a cluster beside {others:?}");
            self.founded.lock().unwrap().insert(formed.identity.cluster);
        }
        formation.became_member(&formed.identity).unwrap();
        self.pods[i].lock().unwrap().member = Some(formed);
    }

    fn begin_log(&self, i: usize) {
        let disk = self.pods[i].lock().unwrap().disk.clone();
        let (dir, file) = (Path::new("/data/wal"), Path::new("/data/wal/1.wal"));
        disk.create_dir_all(dir).unwrap();
        if !disk.exists(file).unwrap() {
            disk.open(file, Open::CreateNew).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(dir).unwrap();
    }

    /// A leader calls everybody it added, and writes a lost claim again.
    fn lead(&self) {
        for pod in &self.pods {
            let member = pod.lock().unwrap().member.clone();
            let Some(leader) = member.map(|formed| formed.identity) else { continue };
            for other in &self.pods {
                let up = other.lock().unwrap().up.clone();
                if let Some(up) = up
                    && up.identity().is_some_and(|o| o.cluster == leader.cluster)
                {
                    up.note_contact();
                }
            }
            let mut api = self.api.0.lock().unwrap();
            let away = api.away;
            if let Some((claim, ..)) = &mut api.claim
                && !away
                && !matches!(claim, Claim::Formed { .. })
            {
                *claim = Claim::Formed { cluster: leader.cluster };
            }
        }
    }

    async fn play(&self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Round(i) => self.round(i, true).await,
                Step::Start(i) => self.start(i),
                Step::Crash(i, how) => self.crash(i, how),
                Step::CrashUnconfirmed(i, how) => {
                    self.round(i, false).await;
                    self.crash(i, how);
                }
                Step::Wipe(i) => self.wipe(i),
                Step::Api(away) => self.api.0.lock().unwrap().away = away,
                Step::LoseAnswer => self.api.0.lock().unwrap().loses_answer = true,
                Step::DeleteClaim => self.api.0.lock().unwrap().claim = None,
                Step::RecreateClaim => {
                    let mut api = self.api.0.lock().unwrap();
                    api.versions += 1;
                    api.claim = Some((Claim::Empty, api.versions, HOUR));
                }
            }
            self.lead();
        }
    }

    async fn all_up(&self) {
        self.api.0.lock().unwrap().away = false;
        for i in 0..PODS {
            self.crash(i, Crash::KeepAll);
            self.start_patient(i, HOUR);
        }
        for _ in 0..8 {
            for i in 0..PODS {
                self.start_patient(i, HOUR);
                self.round(i, true).await;
                self.lead();
            }
        }
    }

    fn clusters(&self) -> BTreeSet<ClusterId> {
        let member = |pod: &Mutex<Pod>| Some(pod.lock().unwrap().member.as_ref()?.identity.cluster);
        self.pods.iter().filter_map(member).collect()
    }

    fn members(&self) -> usize {
        self.pods.iter().filter(|pod| pod.lock().unwrap().member.is_some()).count()
    }
}

impl Peers for World {
    async fn promise(
        &self,
        _: Ordinal,
        _: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, String> {
        unreachable!("pods do not promise")
    }

    async fn join(
        &self,
        to: Ordinal,
        request: peer::JoinRequest,
    ) -> Result<peer::JoinReply, String> {
        let (up, member) = {
            let pod = self.pods.get(to.0 as usize).ok_or("no such name")?.lock().unwrap();
            (pod.up.clone().ok_or("down")?, pod.member.clone())
        };
        let pristine = up.is_pristine();
        let result = match member {
            None => join_reply::Result::NotFormed(peer::NotFormed {
                pristine,
                starting: up.identity().is_some_and(|i| i.stage == Stage::Member),
            }),
            Some(formed) if self.leads(formed.identity.cluster) => {
                let cluster_id = formed.identity.cluster.0;
                let member_id = match request.member_id {
                    0 => 2000 + self.rng.next_u64(),
                    id => id,
                };
                join_reply::Result::Joined(peer::Joined { cluster_id, member_id })
            }
            Some(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
        };
        Ok(peer::JoinReply { result: Some(result) })
    }

    async fn standing(
        &self,
        _: Ordinal,
        _: peer::StandingRequest,
    ) -> Result<peer::StandingReply, String> {
        Err("asked by members that run, and these do not".into())
    }

    async fn may_stop(&self, _: PeerPlace) -> Result<peer::MayStopReply, String> {
        Err("asked by members that run, and these do not".into())
    }

    async fn change_members(
        &self,
        _: PeerPlace,
        _: peer::change_members_request::Change,
        _: Duration,
    ) -> Result<peer::ChangeMembersReply, String> {
        Err("asked by members that run, and these do not".into())
    }

    fn ordinal_at(&self, _: &str) -> Result<Ordinal, String> {
        Err("asked by members that run, and these do not".into())
    }
}

fn run(test: impl AsyncFnOnce()) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(test());
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..PODS;
    let crash = || prop_oneof![Just(Crash::LoseAll), Just(Crash::KeepAll), Just(Crash::Arbitrary)];
    prop_oneof![
        10 => pod.clone().prop_map(Step::Round),
        5 => pod.clone().prop_map(Step::Start),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::Crash(i, how)),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::CrashUnconfirmed(i, how)),
        1 => pod.prop_map(Step::Wipe),
        1 => any::<bool>().prop_map(Step::Api),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::DeleteClaim),
        1 => Just(Step::RecreateClaim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_cluster_is_founded_beside_the_volumes_of_another(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        run(async || World::new().play(&steps).await);
    }

    /// Whatever crashed before, and wherever: without lost volumes and a lost claim, all end in one.
    #[test]
    fn crashes_and_lost_answers_alone_end_in_one_cluster(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let harmless = |step: &Step| {
            !matches!(step, Step::Wipe(_) | Step::DeleteClaim | Step::RecreateClaim)
        };
        let steps: Vec<Step> = steps.into_iter().filter(harmless).collect();
        run(async || {
            let world = World::new();
            world.play(&steps).await;
            world.all_up().await;
            assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
        });
    }
}

#[test]
fn a_wiped_ordinal_founds_nothing_whoever_else_is_down_and_whatever_became_of_the_claim() {
    let claims: [&[Step]; 3] =
        [&[], &[Step::DeleteClaim], &[Step::DeleteClaim, Step::RecreateClaim]];
    for (wiped, down, claim) in (0..PODS)
        .flat_map(|w| (0..1 << PODS).map(move |d| (w, d)))
        .flat_map(|(w, d)| claims.map(|c| (w, d, c)))
    {
        run(async || {
            let world = World::new();
            world.all_up().await;
            let before = world.clusters();
            for i in (0..PODS).filter(|i| down >> i & 1 == 1) {
                world.crash(i, Crash::KeepAll);
            }
            world.play(claim).await;
            world.wipe(wiped);
            for _ in 0..8 {
                world.start(wiped);
                world.round(wiped, true).await;
            }
            let founded = world.founded.lock().unwrap().clone();
            assert_eq!(founded, before, "wiped {wiped}, down {down:03b}, {claim:?}");
            assert!(world.clusters().is_subset(&before));
        });
    }
}

#[test]
fn a_founder_that_never_goes_on_is_replaced_and_learns_of_it() {
    run(async || {
        let world = World::new();
        world
            .play(&[Step::Start(1), Step::Round(1), Step::CrashUnconfirmed(1, Crash::KeepAll)])
            .await;
        world.start_patient(2, HOUR);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        assert!(world.clusters().is_empty(), "the first one may come back yet");
        world.crash(2, Crash::KeepAll);
        world.start(2);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        let second = world.clusters();
        assert_eq!(second.len(), 1);
        // The first one finds that it was outrun, sets its volume aside, and joins.
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, second));
        let disk = world.pods[1].lock().unwrap().disk.clone();
        assert!(disk.exists(Path::new("/data/archive/identity")).unwrap());
        let identity = Identity::load(&disk, Path::new("/data/identity")).unwrap().unwrap();
        assert_ne!(identity.member, MemberId(1));
    });
}

/// A founder that was outrun may find its log, and a claim that was made anew, while the cluster that
/// outran it is down.
#[test]
fn an_outrun_founder_founds_nothing_under_a_claim_that_was_made_anew() {
    run(async || {
        let world = World::new();
        let outrun = [Step::Start(0), Step::Round(0), Step::CrashUnconfirmed(0, Crash::KeepAll)];
        world.play(&outrun).await;
        world.play(&[Step::Start(1), Step::Round(1), Step::Round(1), Step::Round(1)]).await;
        let before = world.clusters();
        assert_eq!(before.len(), 1);
        world.play(&[Step::Crash(1, Crash::KeepAll), Step::DeleteClaim, Step::RecreateClaim]).await;
        world.play(&[Step::Start(0), Step::Round(0), Step::Start(0), Step::Round(0)]).await;
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

/// Two crashed while they founded, and their claim is gone: neither was served by, so one may go on.
#[test]
fn two_unfinished_founders_do_not_wait_for_each_other() {
    run(async || {
        let world = World::new();
        for i in [0, 1] {
            world
                .play(&[Step::Start(i), Step::Round(i), Step::CrashUnconfirmed(i, Crash::KeepAll)])
                .await;
        }
        let begun = |i: usize| {
            let disk = world.pods[i].lock().unwrap().disk.clone();
            disk.exists(Path::new("/data/wal/1.wal")).unwrap()
        };
        assert!(begun(0) && begun(1) && world.clusters().is_empty());
        world.play(&[Step::DeleteClaim, Step::RecreateClaim]).await;
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

/// The members moved to other ordinals, and the set is made anew where the old volumes are.
#[test]
fn a_volume_of_a_member_that_left_founds_no_other_cluster() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        for i in 0..PODS {
            world.pods[i].lock().unwrap().up.as_ref().unwrap().bury().unwrap();
            world.crash(i, Crash::KeepAll);
        }
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
        let before = world.founded.lock().unwrap().clone();
        world.all_up().await;
        assert_eq!((world.members(), &*world.founded.lock().unwrap()), (0, &before));
    });
}

/// The same volume was given an id once more, and that one died before anything was begun under it.
#[test]
fn an_id_that_died_early_does_not_hide_the_member_set_aside_before_it() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.pods[1].lock().unwrap().up.as_ref().unwrap().bury().unwrap();
        for _ in 0..2 {
            world.crash(1, Crash::KeepAll);
            world.start(1);
            world.round(1, true).await;
        }
        let up = world.pods[1].lock().unwrap().up.clone().unwrap();
        let assigned = up.identity().filter(|identity| identity.stage == Stage::Assigned);
        up.forget(&assigned.expect("an id that nothing was begun under")).unwrap();
        [0, 2].into_iter().for_each(|i| world.wipe(i));
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
        for _ in 0..8 {
            world.round(1, true).await;
        }
        assert!(world.clusters().is_empty());
    });
}

/// It founds nothing, and needs the archive for nothing else.
#[test]
fn a_damaged_archive_stops_nobody_who_has_an_id() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.pods[1].lock().unwrap().up.as_ref().unwrap().bury().unwrap();
        world.crash(1, Crash::KeepAll);
        world.start(1);
        world.round(1, true).await;
        world.crash(1, Crash::KeepAll);
        let disk = world.pods[1].lock().unwrap().disk.clone();
        let archived = disk.open(Path::new("/data/archive/identity"), Open::Write).unwrap();
        archived.write_all_at(&[0xff; 8], 0).unwrap();
        world.start(1);
        let up = world.pods[1].lock().unwrap().up.clone().unwrap();
        let assigned = up.identity().expect("an id");
        assert_eq!(assigned.stage, Stage::Assigned);
        // What would let it found stays undone.
        assert!(up.forget(&assigned).is_err());
        assert_eq!(up.identity(), Some(assigned));
    });
}

/// A claim that was emptied looks like a new one. Members that are only starting are seen all the same.
#[test]
fn an_emptied_claim_founds_nothing_beside_members_that_are_starting() {
    let emptied = |world: &World| {
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
    };
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        emptied(&world);
        (0..PODS).for_each(|i| world.start(i));
        for _ in 0..8 {
            world.round(0, true).await;
        }
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
    // Nobody answered when it claimed; one does before it would serve.
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        emptied(&world);
        world.start(0);
        world.round(0, true).await;
        world.start(1);
        world.round(0, true).await;
        assert_eq!(*world.founded.lock().unwrap(), before);
    });
}
