//! A model of pods that start, crash and lose their volumes, on simulated disks. The bootstrap record is
//! deleted and recreated, and so is the StatefulSet, with other ordinals, while volumes remain; volumes
//! attach late. The bootstrap rounds are the real code; Raft is a stub.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::super::{
    Bootstrap, BootstrapConfig, BootstrapRpc, Bootstrapped, DataDir, FoundingOrderError, Identity,
    Stage,
    orchestrator::{
        BootstrapRecord, ClaimOrigin, ClusterEvent, FormerClaim, FoundingOrder, Intent,
        Orchestrator, OrchestratorError, StoredRecord, Termination,
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

/// The replicas of the first StatefulSet, from ordinal 0 on.
pub const PODS: usize = 3;
/// The ordinals of all sets.
pub const ORDINALS: usize = 5;
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

/// A model of the API server. Times are in seconds.
#[derive(Debug)]
pub struct Api {
    pub now: u64,
    pub set: Set,
    /// The record, its version, and its creation.
    pub record: Option<(BootstrapRecord, u64, u64)>,
    /// An operator's order, in the record.
    pub order: Option<FoundingOrder>,
    pub versions: u64,
    pub claims: BTreeMap<usize, Claim>,
    pub away: bool,
    /// The role lacks `list` on claims.
    pub refuses_list: bool,
    /// The next write takes effect, and its answer is lost.
    pub loses_answer: bool,
    pub events: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Set {
    pub start: usize,
    pub replicas: usize,
    pub created: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub created: u64,
    pub restored: bool,
}

impl Api {
    pub fn wants(&self, i: usize) -> bool {
        (self.set.start..self.set.start + self.set.replicas).contains(&i)
    }

    /// The controller creates the missing claims.
    fn create_claims(&mut self) {
        let claim = Claim { created: self.now, restored: false };
        for i in self.set.start..self.set.start + self.set.replicas {
            self.claims.entry(i).or_insert(claim);
        }
    }

    /// A record without data, as in the manifests.
    fn create_record(&mut self) {
        self.versions += 1;
        self.order = None;
        self.record = Some((BootstrapRecord::Empty, self.versions, self.now));
    }

    fn origin(&self, claim: Claim) -> Option<ClaimOrigin> {
        if claim.created < self.set.created {
            Some(ClaimOrigin::OlderThanSet)
        } else if self.record.is_some_and(|(_, _, created)| claim.created < created) {
            Some(ClaimOrigin::OlderThanRecord)
        } else {
            claim.restored.then_some(ClaimOrigin::Restored)
        }
    }

    fn former_claims(&self) -> Result<Vec<FormerClaim>, OrchestratorError> {
        if self.refuses_list {
            return Err(OrchestratorError::Forbidden("403 may not list".into()));
        }
        let former = |(i, claim): (&usize, &Claim)| {
            let origin = self.origin(*claim)?;
            Some(FormerClaim { name: format!("data-kv-{i}"), ordinal: Ordinal(*i as u32), origin })
        };
        Ok(self.claims.iter().filter_map(former).collect())
    }
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

    /// Changes the object of the record if it still has `version`.
    fn swap(
        &self,
        version: &str,
        change: impl FnOnce(&mut Api),
    ) -> Result<bool, OrchestratorError> {
        let (swapped, lost) = self.answered(|api| {
            if api.record.is_none_or(|(_, at, _)| at.to_string() != version) {
                return (false, false);
            }
            change(api);
            api.versions += 1;
            let version = api.versions;
            api.record.as_mut().unwrap().1 = version;
            (true, std::mem::take(&mut api.loses_answer))
        })?;
        match lost {
            true => Err(OrchestratorError::Unreachable("no answer".into())),
            false => Ok(swapped),
        }
    }
}

impl Orchestrator for Pods {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        let desired = |api: &mut Api| DesiredReplicas {
            set: format!("created at {}", api.set.created),
            generation: 1,
            start: api.set.start as u32,
            replicas: api.set.replicas as u32,
        };
        Box::pin(async move { self.answered(|api| Intent::Scale(desired(api))) })
    }

    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
        let stored = |api: &mut Api| {
            let (record, version, created) = api.record?;
            let younger_by = Duration::from_secs(created.saturating_sub(api.set.created));
            let (version, order) = (version.to_string(), api.order.clone());
            Some(StoredRecord { record, version, younger_by, order })
        };
        Box::pin(async move { self.answered(stored) })
    }

    fn write_bootstrap_record<'a>(
        &'a self,
        record: BootstrapRecord,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        let change = move |api: &mut Api| {
            api.record.as_mut().unwrap().0 = record;
            api.order.take_if(|_| !matches!(record, BootstrapRecord::Claimed { .. }));
        };
        Box::pin(async move { self.swap(version, change) })
    }

    fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>> {
        Box::pin(async { self.answered(|api| api.former_claims())? })
    }

    fn order_founding<'a>(
        &'a self,
        order: &'a FoundingOrder,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        Box::pin(async move { self.swap(version, |api| api.order = Some(order.clone())) })
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
                api.record = Some((record, api.versions, api.now));
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

    fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>> {
        Box::pin(async { self.answered(|_| None) })
    }

    fn emit(&self, event: ClusterEvent) {
        self.0.lock().unwrap().events.push(event.message);
    }
}

pub struct Pod {
    pub disk: SimDisk,
    /// The volume is not attached, or the pod is Pending: it cannot start.
    pub late: bool,
    pub up: Option<Arc<Bootstrap>>,
    /// Set once it takes part in Raft and answers peers.
    pub member: Option<Bootstrapped>,
}

pub struct World {
    pub pods: Vec<Mutex<Pod>>,
    pub api: Pods,
    rng: Arc<Counter>,
    /// Names that still resolve to the former address of their pod, where another pod runs.
    pub stale_names: Mutex<BTreeMap<Ordinal, Ordinal>>,
    /// An operator accepts that a cluster is founded next to other volumes.
    ordered: AtomicBool,
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
    /// An operator applies the manifests again, after a while.
    RecreateRecord(Duration),
    /// The volume does not attach.
    Late(usize, bool),
    /// The claim is deleted, and created from a snapshot of its volume.
    Restore(usize),
    /// Another API server, whose clock is a second behind, created the claim.
    Skew(usize),
    RefuseList(bool),
    Scale(usize, usize),
    /// The manifests are deleted and applied again, with other ordinals; the claims stay.
    Recreate(usize, usize),
    /// An operator restores a formed record of a former cluster.
    StaleRecord,
}

impl World {
    pub fn new() -> World {
        let pod =
            |i: u64| Mutex::new(Pod { disk: SimDisk::new(i), late: false, up: None, member: None });
        let mut api = Api {
            now: 1_000_000,
            set: Set { start: 0, replicas: PODS, created: 1_000_000 },
            record: None,
            order: None,
            versions: 0,
            claims: BTreeMap::new(),
            away: false,
            refuses_list: false,
            loses_answer: false,
            events: Vec::new(),
        };
        api.create_record();
        api.create_claims();
        World {
            pods: (0..ORDINALS as u64).map(pod).collect(),
            api: Pods(Arc::new(Mutex::new(api))),
            rng: Arc::default(),
            stale_names: Mutex::default(),
            ordered: AtomicBool::default(),
            founded: Mutex::default(),
        }
    }

    pub fn api(&self) -> MutexGuard<'_, Api> {
        self.api.0.lock().unwrap()
    }

    /// The first set's record was emptied, and seems to be new.
    pub fn empty_record(&self) {
        let mut api = self.api();
        api.record = Some((BootstrapRecord::Empty, 1000, api.set.created));
    }

    /// The controller deletes and creates pods and claims.
    fn follow_set(&self) {
        let wants: Vec<bool> = (0..ORDINALS).map(|i| self.api().wants(i)).collect();
        (0..ORDINALS).filter(|i| !wants[*i]).for_each(|i| self.crash(i, Crash::KeepAll));
        self.api().create_claims();
    }

    /// `kubectl delete -k`, and `kubectl apply -k` a second later.
    pub fn recreate(&self, start: usize, replicas: usize) {
        (0..ORDINALS).for_each(|i| self.crash(i, Crash::KeepAll));
        {
            let mut api = self.api();
            api.now += 1;
            api.set = Set { start, replicas, created: api.now };
            api.create_record();
        }
        self.follow_set();
    }

    pub fn late(&self, i: usize, late: bool) {
        if late {
            self.crash(i, Crash::KeepAll);
        }
        self.pods[i].lock().unwrap().late = late;
    }

    pub fn restore(&self, i: usize) {
        self.crash(i, Crash::KeepAll);
        let mut api = self.api();
        let claim = Claim { created: api.now, restored: true };
        api.claims.insert(i, claim);
    }

    /// With an immediate takeover of an unfinished record, which provokes more races.
    pub fn start(&self, i: usize) {
        self.start_with_timeout(i, Duration::ZERO);
    }

    pub fn start_with_timeout(&self, i: usize, takeover_timeout: Duration) {
        let wanted = self.api().wants(i);
        let mut pod = self.pods[i].lock().unwrap();
        if pod.up.is_some() || pod.late || !wanted {
            return;
        }
        let dir = DataDir::open(Arc::new(pod.disk.clone()), Path::new("/data")).unwrap();
        let config = BootstrapConfig {
            ordinal: Ordinal(i as u32),
            home: "default/kv".into(),
            founders: 1,
            known: [Ordinal(0)].into(),
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
        drop(pod);
        let mut api = self.api();
        api.claims.remove(&i);
        api.create_claims();
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

    /// Whether the cluster may have a leader: more than half of the volumes that are left run.
    pub fn leads(&self, cluster: ClusterId) -> bool {
        let of_cluster = |pod: &&Mutex<Pod>| {
            let pod = pod.lock().unwrap();
            let identity = Identity::load(&pod.disk, Path::new("/data/identity")).ok().flatten();
            identity.is_some_and(|identity| {
                identity.cluster == cluster && identity.stage == Stage::Member
            })
        };
        let running = |pod: &&Mutex<Pod>| pod.lock().unwrap().member.is_some();
        let left = self.pods.iter().filter(of_cluster);
        let (all, running) = (left.clone().count(), left.filter(running).count());
        running * 2 > all
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
            let permitted = others.is_empty() || self.ordered.load(Ordering::Relaxed);
            assert!(permitted, "pod {i} founds a cluster next to {others:?}");
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
        for i in 0..ORDINALS {
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
            let (before, leads) = (self.formed(), self.leads(leader.cluster));
            let mut guard = RecordGuard::new(&leader);
            guard.confirm_after = Duration::ZERO;
            let mut fenced = guard.check(&self.api, leads, Instant::now()).await;
            // A missing record is created at the second check.
            if fenced.is_none() && leads {
                fenced = guard.check(&self.api, leads, Instant::now()).await;
            }
            if fenced.is_some() {
                self.crash(i, Crash::KeepAll);
            }
            let away = self.api.0.lock().unwrap().away;
            assert!(away || !leads || fenced.is_some() || self.formed() == Some(leader.cluster));
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
            self.api().now += 1;
            match *step {
                Step::Round(i) => self.round(i, true).await,
                Step::Start(i) => self.start(i),
                Step::Crash(i, how) => self.crash(i, how),
                Step::CrashUnconfirmed(i, how) => {
                    self.round(i, false).await;
                    self.crash(i, how);
                }
                Step::Wipe(i) => self.wipe(i),
                Step::Api(away) => self.api().away = away,
                Step::LoseAnswer => self.api().loses_answer = true,
                Step::DeleteRecord => self.api().record = None,
                Step::RecreateRecord(after) => {
                    let mut api = self.api();
                    api.now += after.as_secs();
                    api.create_record();
                }
                Step::StaleRecord => {
                    let mut api = self.api();
                    api.create_record();
                    api.record.as_mut().unwrap().0 = BootstrapRecord::Formed { cluster: STALE };
                }
                Step::Late(i, late) => self.late(i, late),
                Step::Restore(i) => self.restore(i),
                Step::Skew(i) => {
                    if let Some(claim) = self.api().claims.get_mut(&i) {
                        claim.created -= 1;
                    }
                }
                Step::RefuseList(refuses) => self.api().refuses_list = refuses,
                Step::Scale(start, replicas) => {
                    let mut api = self.api();
                    (api.set.start, api.set.replicas) = (start, replicas);
                    drop(api);
                    self.follow_set();
                }
                Step::Recreate(start, replicas) => self.recreate(start, replicas),
            }
            self.lead().await;
        }
    }

    /// Orders a founding at a running pod.
    pub async fn order_founding(&self, i: usize) -> Result<Vec<FormerClaim>, FoundingOrderError> {
        self.ordered.store(true, Ordering::Relaxed);
        let up = self.pods[i].lock().unwrap().up.clone().unwrap();
        up.order_founding().await
    }

    /// Some rounds of all pods that can start.
    pub async fn rounds(&self) {
        for _ in 0..8 {
            for i in 0..ORDINALS {
                self.start_with_timeout(i, HOUR);
                self.round(i, true).await;
                self.lead().await;
            }
        }
    }

    /// Nothing fails any more.
    pub async fn all_up(&self) {
        {
            let mut api = self.api();
            (api.away, api.refuses_list, api.loses_answer) = (false, false, false);
        }
        for i in 0..ORDINALS {
            self.late(i, false);
            self.crash(i, Crash::KeepAll);
            self.start_with_timeout(i, HOUR);
        }
        self.rounds().await;
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
        let to = self.stale_names.lock().unwrap().get(&to).copied().unwrap_or(to);
        let (up, member) = {
            let pod = self.pods.get(to.0 as usize).ok_or("no such name")?.lock().unwrap();
            (pod.up.clone().ok_or("down")?, pod.member.clone())
        };
        let pristine = up.is_pristine();
        let has_quorum = member.as_ref().is_some_and(|m| self.leads(m.identity.cluster));
        let result = match member {
            None => join_reply::Result::NotFormed(peer::NotFormed {
                pristine,
                starting: up.identity().is_some_and(|i| i.stage == Stage::Member),
                ordinal: Some(to.0),
                home: up.home().into(),
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
        Ok(peer::JoinReply { result: Some(result), has_quorum })
    }
}

pub fn run(test: impl AsyncFnOnce()) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(test());
}
