//! A model of pods that start, crash and lose their volumes, on simulated disks, with a bootstrap record
//! that is deleted and recreated. The bootstrap rounds are the real code; Raft is a stub.

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
use tokio::time::Instant;

use super::super::{
    Bootstrap, BootstrapConfig, BootstrapRpc, Bootstrapped, DataDir, Identity, Stage,
    orchestrator::{
        BootstrapRecord, ClusterEvent, Intent, Orchestrator, OrchestratorError, StoredRecord,
    },
    record_guard::RecordGuard,
};
use crate::{
    disk::{
        Disk, Open,
        sim::{Crash, SimDisk},
    },
    proto::peer::{self, join_reply},
    rng::Rng,
    types::{ClusterId, DesiredReplicas, Ordinal},
};

pub const PODS: usize = 3;
pub const HOUR: Duration = Duration::from_secs(3600);
/// A cluster that existed once.
pub const STALE: ClusterId = ClusterId(0x57a1e);

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A model of the API server.
#[derive(Debug)]
pub struct Api {
    /// The record, its version, and its age difference to the set.
    pub record: Option<(BootstrapRecord, u64, Duration)>,
    pub versions: u64,
    pub away: bool,
    /// The next write takes effect, and its answer is lost.
    pub loses_answer: bool,
}

#[derive(Debug, Clone)]
pub struct Pods(pub Arc<Mutex<Api>>);

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
        let desired =
            DesiredReplicas { set: "a".into(), generation: 1, start: 0, replicas: PODS as u32 };
        Box::pin(async { self.answered(|_| Intent::Scale(desired)) })
    }

    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
        let stored = |(record, version, younger_by): (BootstrapRecord, u64, Duration)| {
            StoredRecord { record, version: version.to_string(), younger_by }
        };
        Box::pin(async move { self.answered(|api| api.record.map(stored)) })
    }

    fn write_bootstrap_record<'a>(
        &'a self,
        record: BootstrapRecord,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        Box::pin(async move {
            let (swapped, lost) = self.answered(|api| {
                let Some((_, at, younger_by)) = api.record else { return (false, false) };
                if at.to_string() != version {
                    return (false, false);
                }
                api.versions += 1;
                api.record = Some((record, api.versions, younger_by));
                (true, std::mem::take(&mut api.loses_answer))
            })?;
            match lost {
                true => Err(OrchestratorError::Unreachable("no answer".into())),
                false => Ok(swapped),
            }
        })
    }

    fn create_bootstrap_record(
        &self,
        record: BootstrapRecord,
    ) -> BoxFuture<'_, Result<(), OrchestratorError>> {
        Box::pin(async move {
            let lost = self.answered(|api| {
                if api.record.is_some() {
                    return false;
                }
                api.versions += 1;
                api.record = Some((record, api.versions, HOUR));
                std::mem::take(&mut api.loses_answer)
            })?;
            match lost {
                true => Err(OrchestratorError::Unreachable("no answer".into())),
                false => Ok(()),
            }
        })
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        Box::pin(async { self.answered(|_| None) })
    }

    fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>> {
        Box::pin(async { self.answered(|_| false) })
    }

    fn termination_grace(&self) -> BoxFuture<'_, Result<Option<Duration>, OrchestratorError>> {
        Box::pin(async { self.answered(|_| None) })
    }

    fn emit(&self, _: ClusterEvent) {}
}

pub struct Pod {
    pub disk: SimDisk,
    pub up: Option<Arc<Bootstrap>>,
    /// Set once it takes part in Raft and answers peers.
    pub member: Option<Bootstrapped>,
}

pub struct World {
    pub pods: Vec<Mutex<Pod>>,
    pub api: Pods,
    rng: Arc<Counter>,
    /// The confirmed clusters, which may have served clients.
    pub founded: Mutex<BTreeSet<ClusterId>>,
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    Round(usize),
    Start(usize),
    Crash(usize, Crash),
    /// The process dies after it created its log, before the record is `formed`.
    CrashUnconfirmed(usize, Crash),
    Wipe(usize),
    Api(bool),
    LoseAnswer,
    DeleteRecord,
    /// An operator applies the manifests again.
    RecreateRecord,
    /// An operator restores a formed record of a former cluster.
    StaleRecord,
}

impl World {
    pub fn new() -> World {
        let pod = |i: u64| Mutex::new(Pod { disk: SimDisk::new(i), up: None, member: None });
        let record = Some((BootstrapRecord::Empty, 1, Duration::ZERO));
        let api = Api { record, versions: 1, away: false, loses_answer: false };
        World {
            pods: (0..PODS as u64).map(pod).collect(),
            api: Pods(Arc::new(Mutex::new(api))),
            rng: Arc::default(),
            founded: Mutex::default(),
        }
    }

    /// With an immediate takeover of an unfinished record, which provokes more races.
    pub fn start(&self, i: usize) {
        self.start_with_timeout(i, Duration::ZERO);
    }

    pub fn start_with_timeout(&self, i: usize, takeover_timeout: Duration) {
        let mut pod = self.pods[i].lock().unwrap();
        if pod.up.is_some() {
            return;
        }
        let dir = DataDir::open(Arc::new(pod.disk.clone()), Path::new("/data")).unwrap();
        let config = BootstrapConfig {
            ordinal: Ordinal(i as u32),
            home: "default/kv".into(),
            founders: 1,
            known: (0..PODS as u32).map(Ordinal).collect(),
            orchestrator: Some(Arc::new(self.api.clone())),
            takeover_timeout,
        };
        pod.up = Some(Arc::new(Bootstrap::open(config, Arc::new(dir), self.rng.clone()).unwrap()));
    }

    pub fn crash(&self, i: usize, how: Crash) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = pod.disk.crash(how);
    }

    /// The member is removed, and its pod crashes before the next start.
    pub fn mark_removed(&self, i: usize) {
        self.pods[i].lock().unwrap().up.as_ref().unwrap().mark_removed().unwrap();
        self.crash(i, Crash::KeepAll);
    }

    pub fn wipe(&self, i: usize) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = SimDisk::new(self.rng.next_u64());
    }

    /// The confirmed clusters with at least one volume, running or not.
    pub fn alive(&self) -> BTreeSet<ClusterId> {
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

    /// Whether the cluster may have a leader.
    pub fn leads(&self, cluster: ClusterId) -> bool {
        let running = self.pods.iter().filter(|pod| {
            let pod = pod.lock().unwrap();
            pod.member.as_ref().is_some_and(|formed| formed.identity.cluster == cluster)
        });
        // The founder alone is a majority until another member votes. More voters only make a leader
        // less likely.
        running.count() >= 1
    }

    pub async fn round(&self, i: usize, confirmed: bool) {
        let up = self.pods[i].lock().unwrap().up.clone();
        let Some(bootstrap) = up else { return };
        if self.pods[i].lock().unwrap().member.is_some() {
            return;
        }
        let formed = match bootstrap.round(self).await {
            Ok(Some(formed)) => formed,
            Ok(None) => return,
            Err(_) => return self.crash(i, Crash::KeepAll),
        };
        self.create_log(i);
        if formed.unconfirmed {
            if !confirmed {
                return self.crash(i, Crash::KeepAll);
            }
            let sure = tokio::time::timeout(
                Duration::from_millis(1),
                bootstrap.confirm_founded(self, &formed.identity),
            );
            match sure.await {
                Ok(Ok(())) => {}
                // Superseded, or the API server is down: the process restarts.
                Ok(Err(_)) | Err(_) => return self.crash(i, Crash::KeepAll),
            }
            let mut others = self.alive();
            others.remove(&formed.identity.cluster);
            assert!(others.is_empty(), "pod {i} founds a cluster next to {others:?}");
            self.founded.lock().unwrap().insert(formed.identity.cluster);
        }
        bootstrap.became_member(&formed.identity).unwrap();
        self.pods[i].lock().unwrap().member = Some(formed);
    }

    pub fn create_log(&self, i: usize) {
        let disk = self.pods[i].lock().unwrap().disk.clone();
        let (dir, file) = (Path::new("/data/wal"), Path::new("/data/wal/1.wal"));
        disk.create_dir_all(dir).unwrap();
        if !disk.exists(file).unwrap() {
            disk.open(file, Open::CreateNew).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(dir).unwrap();
    }

    /// Each running member, as a leader, contacts its members, and checks the bootstrap record. A member that
    /// the record fences ends.
    pub async fn lead(&self) {
        for i in 0..PODS {
            let member = self.pods[i].lock().unwrap().member.clone();
            let Some(leader) = member.map(|formed| formed.identity) else { continue };
            for other in &self.pods {
                let up = other.lock().unwrap().up.clone();
                if let Some(up) = up
                    && up.identity().is_some_and(|o| o.cluster == leader.cluster)
                {
                    up.note_contact();
                }
            }
            let before = self.formed();
            let mut guard = RecordGuard::new(leader.cluster, leader.ordinal);
            guard.confirm_after = Duration::ZERO;
            let fenced = guard.check(&self.api, true, Instant::now()).await;
            if fenced.is_some() {
                self.crash(i, Crash::KeepAll);
            }
            let away = self.api.0.lock().unwrap().away;
            assert!(away || fenced.is_some() || self.formed() == Some(leader.cluster));
            assert!(before.is_none() || self.formed() == before, "a formed record is overwritten");
        }
    }

    /// The cluster in a formed record.
    pub fn formed(&self) -> Option<ClusterId> {
        match self.api.0.lock().unwrap().record {
            Some((BootstrapRecord::Formed { cluster }, ..)) => Some(cluster),
            _ => None,
        }
    }

    pub async fn play(&self, steps: &[Step]) {
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
                Step::DeleteRecord => self.api.0.lock().unwrap().record = None,
                Step::RecreateRecord => {
                    let mut api = self.api.0.lock().unwrap();
                    api.versions += 1;
                    api.record = Some((BootstrapRecord::Empty, api.versions, HOUR));
                }
                Step::StaleRecord => {
                    let mut api = self.api.0.lock().unwrap();
                    api.versions += 1;
                    let stale = BootstrapRecord::Formed { cluster: STALE };
                    api.record = Some((stale, api.versions, HOUR));
                }
            }
            self.lead().await;
        }
    }

    pub async fn all_up(&self) {
        self.api.0.lock().unwrap().away = false;
        for i in 0..PODS {
            self.crash(i, Crash::KeepAll);
            self.start_with_timeout(i, HOUR);
        }
        for _ in 0..8 {
            for i in 0..PODS {
                self.start_with_timeout(i, HOUR);
                self.round(i, true).await;
                self.lead().await;
            }
        }
    }

    pub fn clusters(&self) -> BTreeSet<ClusterId> {
        let member = |pod: &Mutex<Pod>| Some(pod.lock().unwrap().member.as_ref()?.identity.cluster);
        self.pods.iter().filter_map(member).collect()
    }

    pub fn members(&self) -> usize {
        self.pods.iter().filter(|pod| pod.lock().unwrap().member.is_some()).count()
    }
}

impl BootstrapRpc for World {
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
}

pub fn run(test: impl AsyncFnOnce()) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(test());
}
