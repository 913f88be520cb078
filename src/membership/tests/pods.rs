//! Pods that start, crash and lose their volumes, on simulated disks, with a claim that comes and goes:
//! the rounds of formation are the real ones, and Raft is a word.

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
    types::{ClusterId, Desired, Ordinal},
};

pub(super) const PODS: usize = 3;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The API server, as far as it matters here.
#[derive(Debug)]
pub(super) struct Api {
    /// Content, version, and how much younger than the set it is.
    pub(super) claim: Option<(Claim, u64, Duration)>,
    pub(super) versions: u64,
    pub(super) away: bool,
    /// The next write is made, and its answer lost.
    pub(super) loses_answer: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Pods(pub(super) Arc<Mutex<Api>>);

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

pub(super) struct Pod {
    pub(super) disk: SimDisk,
    pub(super) up: Option<Arc<Formation>>,
    /// Takes part in Raft, and answers peers.
    pub(super) member: Option<Formed>,
}

pub(super) struct World {
    pub(super) pods: Vec<Mutex<Pod>>,
    pub(super) api: Pods,
    rng: Arc<Counter>,
    /// Clusters that were confirmed, and so may have answered clients.
    pub(super) founded: Mutex<BTreeSet<ClusterId>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
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
    pub(super) fn new() -> World {
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
    pub(super) fn start(&self, i: usize) {
        self.start_patient(i, Duration::ZERO);
    }

    pub(super) fn start_patient(&self, i: usize, take_over: Duration) {
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

    pub(super) fn crash(&self, i: usize, how: Crash) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = pod.disk.crash(how);
    }

    /// Its member left, and it crashed before its next start.
    pub(super) fn bury(&self, i: usize) {
        self.pods[i].lock().unwrap().up.as_ref().unwrap().bury().unwrap();
        self.crash(i, Crash::KeepAll);
    }

    pub(super) fn wipe(&self, i: usize) {
        let mut pod = self.pods[i].lock().unwrap();
        (pod.up, pod.member) = (None, None);
        pod.disk = SimDisk::new(self.rng.next_u64());
    }

    /// The clusters that confirmed members' volumes are of, running or not.
    pub(super) fn alive(&self) -> BTreeSet<ClusterId> {
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
    pub(super) fn leads(&self, cluster: ClusterId) -> bool {
        let running = self.pods.iter().filter(|pod| {
            let pod = pod.lock().unwrap();
            pod.member.as_ref().is_some_and(|formed| formed.identity.cluster == cluster)
        });
        // The founder alone is a majority until somebody else votes; that others vote only makes it
        // harder to find a leader.
        running.count() >= 1
    }

    pub(super) async fn round(&self, i: usize, confirmed: bool) {
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

    pub(super) fn begin_log(&self, i: usize) {
        let disk = self.pods[i].lock().unwrap().disk.clone();
        let (dir, file) = (Path::new("/data/wal"), Path::new("/data/wal/1.wal"));
        disk.create_dir_all(dir).unwrap();
        if !disk.exists(file).unwrap() {
            disk.open(file, Open::CreateNew).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(dir).unwrap();
    }

    /// A leader calls everybody it added, and writes a lost claim again.
    pub(super) fn lead(&self) {
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

    pub(super) async fn play(&self, steps: &[Step]) {
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

    pub(super) async fn all_up(&self) {
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

    pub(super) fn clusters(&self) -> BTreeSet<ClusterId> {
        let member = |pod: &Mutex<Pod>| Some(pod.lock().unwrap().member.as_ref()?.identity.cluster);
        self.pods.iter().filter_map(member).collect()
    }

    pub(super) fn members(&self) -> usize {
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
}

pub(super) fn run(test: impl AsyncFnOnce()) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(test());
}
