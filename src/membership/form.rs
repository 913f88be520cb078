//! From a pristine volume to a member: formation without Kubernetes, and joining.
//!
//! The lowest ordinal mints the cluster and asks every founder to promise itself to it. It
//! initializes only after *all* have: a majority would do for Raft, but not for a founder that
//! lost its disk in between and begins anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    claim::Seen,
    datadir::{DataDir, DataDirError},
    identity::{Identity, Stage, place_from_wire, place_to_wire},
    orchestrator::{News, Orchestrator},
};
use crate::{
    proto::peer::{self, join_reply, promise_reply},
    rng::Rng,
    types::{ClusterId, Desired, MemberId, Ordinal, PeerPlace},
};

/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(200);
/// The same, once it has taken a while: others are asked each time.
const LONG_ROUND: Duration = Duration::from_secs(1);
/// So many rounds pass quietly before a waiting member says in its log for whom it waits.
const QUIET_ROUNDS: u32 = 25;

/// How a member asks others before it has a Raft to ask with. `peer` implements it.
pub trait Peers: Send + Sync {
    fn promise(
        &self,
        to: Ordinal,
        request: peer::PromiseRequest,
    ) -> impl Future<Output = Result<peer::PromiseReply, String>> + Send;

    fn join(
        &self,
        to: Ordinal,
        request: peer::JoinRequest,
    ) -> impl Future<Output = Result<peer::JoinReply, String>> + Send;

    fn standing(
        &self,
        to: Ordinal,
        request: peer::StandingRequest,
    ) -> impl Future<Output = Result<peer::StandingReply, String>> + Send;

    /// Once this volume is a member.
    fn may_stop(
        &self,
        to: PeerPlace,
    ) -> impl Future<Output = Result<peer::MayStopReply, String>> + Send;

    /// Waits `limit` for the answer. Once this volume is a member.
    fn change_members(
        &self,
        to: PeerPlace,
        change: peer::change_members_request::Change,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::ChangeMembersReply, String>> + Send;

    /// Which ordinal is dialled at this `host:port`; else what is known, in words.
    fn ordinal_at(&self, address: &str) -> Result<Ordinal, String>;
}

/// What a volume found out about itself.
#[derive(Debug, Clone)]
pub struct Formed {
    pub identity: Identity,
    /// This member initializes Raft with these voters, unless its log is initialized already.
    pub initialize: bool,
    /// With Kubernetes: it serves nobody before the claim says that it has founded the cluster.
    pub unconfirmed: bool,
}

/// Why a volume cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(
        "this volume is of cluster {ours}, but {formed} was formed here. If this volume is the right one, \
         write its cluster id into the ConfigMap of the claim; if not, delete its PersistentVolumeClaim"
    )]
    OtherCluster { ours: ClusterId, formed: ClusterId },
    #[error(
        "another pod founded the cluster meanwhile: this volume is set aside at the next start"
    )]
    Outrun,
    #[error("a peer refused this member: {0}")]
    Refused(String),
}

/// What formation needs to know.
#[derive(Debug, Clone)]
pub struct FormationConfig {
    pub ordinal: Ordinal,
    pub home: String,
    /// How many ordinals, from 0, found the cluster.
    pub founders: u32,
    /// Ordinals that may be asked (to join).
    pub known: Vec<Ordinal>,
    /// Who runs the pods; without one, the founders promise themselves to each other.
    pub orchestrator: Option<Arc<dyn Orchestrator>>,
    /// After so long, a founder that does not go on is replaced: [`TAKE_OVER`](super::TAKE_OVER).
    pub take_over: Duration,
}

/// A volume on its way to be a member. Shared with the peer server, which answers for it.
#[derive(Debug)]
pub struct Formation {
    config: FormationConfig,
    dir: Arc<DataDir>,
    rng: Arc<dyn Rng>,
    state: Mutex<State>,
    /// Held from looking at the identity until the next one is on disk: two founders may ask at once.
    deciding: Mutex<()>,
    changed: Notify,
    /// Of the member that was set aside here last, if there is one.
    was_of: Option<ClusterId>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    identity: Option<Identity>,
    /// A peer that knows us as a member of our cluster has called.
    contacted: bool,
    /// The identity is taken, and a log is being made under it: it cannot be another one any more.
    settled: bool,
    /// A claim that is not finished.
    pub(super) claim: Option<Seen>,
    /// Ordinals that are wanted, beside those that are known.
    wanted: Vec<Ordinal>,
    /// The claim says that this founder's cluster is formed.
    pub(super) confirmed: bool,
    /// Who led last, as far as it was looked for.
    led_last: Option<Ordinal>,
    /// What was waited for last.
    waited: String,
}

impl Formation {
    /// Reads who this volume is, and counts this start.
    pub fn open(
        config: FormationConfig,
        dir: Arc<DataDir>,
        rng: Arc<dyn Rng>,
    ) -> Result<Formation, FormationError> {
        let mut identity = dir.identity()?;
        if let Some(identity) = &mut identity {
            check_place(identity, &config, &dir)?;
        }
        if let Some(dead) = identity.take_if(|identity| identity.stage == Stage::Dead) {
            tracing::warn!(member = %dead.member, "setting the data of a dead member aside");
            dir.archive()?;
        }
        if let Some(identity) = &mut identity {
            identity.boot += 1;
            dir.store_identity(identity)?;
        }
        // A founder that nobody was served by leaves nothing behind that must be heeded.
        let served = |dead: &Identity| dead.founders.is_empty();
        let was_of = match identity {
            None => dir.set_aside()?.filter(served).map(|dead| dead.cluster),
            Some(_) => None,
        };
        let state = Mutex::new(State { identity, ..State::default() });
        let (deciding, changed) = (Mutex::new(()), Notify::new());
        Ok(Formation { config, dir, rng, state, deciding, changed, was_of })
    }

    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.dir
    }

    pub fn identity(&self) -> Option<Identity> {
        self.state().identity.clone()
    }

    pub(super) fn ordinal(&self) -> Ordinal {
        self.config.ordinal
    }

    pub(super) fn take_over(&self) -> Duration {
        self.config.take_over
    }

    pub fn orchestrator(&self) -> Option<&Arc<dyn Orchestrator>> {
        self.config.orchestrator.as_ref()
    }

    pub(super) fn new_id(&self) -> u64 {
        self.rng.next_id()
    }

    pub(super) fn identity_of(
        &self,
        cluster: ClusterId,
        member: MemberId,
        stage: Stage,
        founders: Vec<PeerPlace>,
    ) -> Identity {
        let (ordinal, home) = (self.config.ordinal, self.config.home.clone());
        Identity { cluster, member, ordinal, home, boot: 1, stage, founders }
    }

    /// Says for whom or what this volume waits, once.
    pub(super) fn waits(&self, why: &str) {
        let before = std::mem::replace(&mut self.state().waited, why.to_string());
        if before != why {
            tracing::info!(ordinal = %self.config.ordinal, "waiting: {why}");
            if let Some(pods) = self.orchestrator() {
                pods.say(News::of_pod("Waiting", why.to_string()));
            }
        }
    }

    /// So many pods there are: they may be asked, too.
    pub(super) fn know(&self, wanted: &Desired) {
        let all = wanted.start..wanted.start.saturating_add(wanted.replicas);
        self.state().wanted = all.map(Ordinal).collect();
    }

    /// The members may live where no pod is wanted any more: whoever led last is asked, too.
    pub(super) async fn look_for_the_leader(&self, pods: &dyn Orchestrator) {
        // An API server that is away hinders nobody.
        if let Ok(Some(leader)) = pods.last_leader().await {
            self.state().led_last = Some(leader);
        }
    }

    /// Whether this volume knows of no cluster that anybody was ever served in.
    pub fn is_pristine(&self) -> bool {
        match self.identity() {
            None => self.was_of.is_none(),
            // A founder that nobody was served by yet.
            Some(identity) => identity.stage == Stage::Promised && !self.state().confirmed,
        }
    }

    /// The cluster of the member whose data is set aside here, on a volume that is empty now.
    pub(super) fn was_of(&self) -> Option<ClusterId> {
        self.was_of
    }

    /// Gives up an identity under which nothing was begun.
    pub(super) fn forget(&self, identity: &Identity) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() == Some(identity) && !self.state().settled {
            self.dir.forget_identity()?;
            let mut state = self.state();
            (state.identity, state.contacted) = (None, false);
        }
        Ok(())
    }

    /// This volume's member is dead: at the next start its data is set aside. Blocks on the disk.
    pub fn bury(&self) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        let Some(identity) = self.identity() else { return Ok(()) };
        self.store(Identity { stage: Stage::Dead, ..identity })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn deciding(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an identity in place of the one it was decided on; false: that is not ours any more.
    pub(super) fn adopt(
        &self,
        new: Identity,
        instead_of: Option<&Identity>,
    ) -> Result<bool, DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() != instead_of {
            return Ok(false);
        }
        self.store(new)?;
        Ok(true)
    }

    /// The point of no return: from here on nobody gets another promise. `None`: the identity has
    /// changed meanwhile.
    pub(super) fn settle(&self, identity: Identity, initialize: bool) -> Option<Formed> {
        let _deciding = self.deciding();
        let mut state = self.state();
        if state.identity.as_ref() != Some(&identity) {
            return None;
        }
        state.settled = true;
        let unconfirmed = initialize && self.config.orchestrator.is_some();
        Some(Formed { identity, initialize, unconfirmed })
    }

    /// The caller is `deciding`.
    pub(super) fn store(&self, identity: Identity) -> Result<(), DataDirError> {
        self.dir.store_identity(&identity)?;
        let mut state = self.state();
        // Whoever called, called another one.
        state.contacted &= state.identity.as_ref().is_some_and(|old| old.member == identity.member);
        state.identity = Some(identity);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// It has a log now: from here on a missing log is a lost log. Blocks on the disk.
    pub fn became_member(&self, formed: &Identity) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        assert_eq!(self.identity().as_ref(), Some(formed), "a settled identity does not change");
        if formed.stage != Stage::Member {
            let member = Identity { stage: Stage::Member, founders: Vec::new(), ..formed.clone() };
            self.store(member)?;
        }
        Ok(())
    }

    /// A message of Raft's arrived, meant for this member of its cluster.
    pub fn note_contact(&self) {
        self.state().contacted = true;
        self.changed.notify_waiters();
    }

    /// Answers a founder. Blocks on the disk: a promise is fsynced before it is given.
    pub fn handle_promise(
        &self,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, DataDirError> {
        let reply = |result| Ok(peer::PromiseReply { result: Some(result) });
        let refuse = |why: String| reply(promise_reply::Result::Refused(why));
        if request.home != self.config.home {
            return refuse(format!("this is {:?}, not {:?}", self.config.home, request.home));
        }
        let founders: Vec<PeerPlace> = request.founders.into_iter().map(place_from_wire).collect();
        let Some(me) = founders.iter().find(|p| p.ordinal == self.config.ordinal) else {
            return refuse(format!("ordinal {} is no founder", self.config.ordinal));
        };
        let cluster = ClusterId(request.cluster_id);
        let _deciding = self.deciding();
        let taken = self.state().settled || self.dir.has_log()?;
        let mut replaced_boot = 0;
        if let Some(own) = self.identity() {
            if taken || own.stage != Stage::Promised {
                return reply(promise_reply::Result::Taken(peer::Taken {
                    cluster_id: own.cluster.0,
                    member_id: own.member.0,
                }));
            }
            if own.cluster == cluster && own.member == me.member {
                return reply(promise_reply::Result::Promised(peer::Promised {}));
            }
            if !request.replace {
                let cluster_id = own.cluster.0;
                return reply(promise_reply::Result::Engaged(peer::Engaged { cluster_id }));
            }
            replaced_boot = own.boot;
        }
        self.store(Identity {
            cluster,
            member: me.member,
            ordinal: me.ordinal,
            home: self.config.home.clone(),
            boot: replaced_boot + 1,
            stage: Stage::Promised,
            founders,
        })?;
        reply(promise_reply::Result::Promised(peer::Promised {}))
    }

    /// Waits until this volume is a member of a cluster.
    pub async fn run(&self, peers: &impl Peers) -> Result<Formed, FormationError> {
        let mut rounds = 0;
        loop {
            let changed = self.changed.notified();
            if let Some(formed) = self.round(peers).await? {
                return Ok(formed);
            }
            rounds += 1;
            if rounds % QUIET_ROUNDS == 0 {
                tracing::info!(ordinal = %self.config.ordinal, "waiting for the other members");
            }
            let pause = if rounds < QUIET_ROUNDS { ROUND } else { LONG_ROUND };
            // Either way the next round looks at everything anew.
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }

    /// One look at everything, and one step if there is one to make.
    pub(super) async fn round(&self, peers: &impl Peers) -> Result<Option<Formed>, FormationError> {
        let pods = self.config.orchestrator.as_deref();
        let Some(identity) = self.identity() else {
            let looked = match pods {
                Some(pods) => self.pristine_pod(peers, pods).await,
                None => self.pristine(peers).await,
            };
            return looked.map(|()| None);
        };
        if identity.stage == Stage::Recovering {
            return Ok(self.recovering_pod(pods, identity).await);
        }
        let founds = identity.stage == Stage::Promised && self.leads_formation(&identity);
        // A log is begun only when formation is over, so a crash came before `became_member`.
        if identity.stage == Stage::Member || self.dir.has_log()? {
            if let Some(pods) = pods.filter(|_| !founds) {
                self.check_claim(pods, &identity).await?;
            }
            return Ok(self.settle(identity, founds));
        }
        let contacted = self.state().contacted;
        match identity.stage {
            Stage::Promised if founds => match pods {
                Some(pods) => self.founder_pod(pods, identity).await,
                None => self.collect_promises(peers, identity).await,
            },
            _ if contacted => Ok(self.settle(identity, false)),
            Stage::Assigned => self.ask_to_be_added(peers, &identity, pods).await.map(|()| None),
            Stage::Promised | Stage::Member | Stage::Dead | Stage::Recovering => Ok(None),
        }
    }

    fn leads_formation(&self, identity: &Identity) -> bool {
        identity.founders.iter().map(|p| p.ordinal).min() == Some(identity.ordinal)
    }

    /// Looks for a cluster to join; where there is none, the lowest ordinal begins one.
    async fn pristine(&self, peers: &impl Peers) -> Result<(), FormationError> {
        match self.join_existing(peers, None).await? {
            Found::NoCluster => {}
            Found::Joined | Found::NoLeader => return Ok(()),
        }
        if self.config.ordinal != Ordinal(0) || self.identity().is_some() {
            return Ok(());
        }
        let place = |i: u32| PeerPlace { member: MemberId(u64::from(i) + 1), ordinal: Ordinal(i) };
        let cluster = ClusterId(self.rng.next_id());
        tracing::info!(%cluster, founders = self.config.founders, "founding a cluster");
        let founders = (0..self.config.founders).map(place).collect();
        let founder = self.identity_of(cluster, place(0).member, Stage::Promised, founders);
        // If it was promised away meanwhile, the next round sees that.
        self.adopt(founder, None)?;
        Ok(())
    }

    /// Founder: asks all; formed once every one of them has promised (or is a member already).
    async fn collect_promises(
        &self,
        peers: &impl Peers,
        identity: Identity,
    ) -> Result<Option<Formed>, FormationError> {
        let others: Vec<PeerPlace> =
            identity.founders.iter().copied().filter(|p| p.ordinal != identity.ordinal).collect();
        let mut answers = self.ask_promises(peers, &identity, &others, false).await;
        let answered = answers.values().filter(|a| **a != Answer::Silent).count();
        let engaged = answers.values().any(|a| *a == Answer::Engaged);
        // Everybody answers, nobody has a log: the promise they gave was to a founder that is lost.
        if engaged && answered == others.len() && !answers.values().any(|a| *a == Answer::Other) {
            answers = self.ask_promises(peers, &identity, &others, true).await;
        }
        if answers.values().any(|a| *a == Answer::Other) {
            // There is a cluster without us: this volume was wiped. Ask to join it.
            tracing::warn!("the other members have a cluster already: asking to join it");
            return self.join_existing(peers, Some(&identity)).await.map(|_| None);
        }
        let all = answers.values().all(|a| *a == Answer::Ours);
        Ok(if all { self.settle(identity, true) } else { None })
    }

    async fn ask_promises(
        &self,
        peers: &impl Peers,
        identity: &Identity,
        others: &[PeerPlace],
        replace: bool,
    ) -> BTreeMap<Ordinal, Answer> {
        let request = peer::PromiseRequest {
            cluster_id: identity.cluster.0,
            home: identity.home.clone(),
            founders: identity.founders.iter().copied().map(place_to_wire).collect(),
            replace,
        };
        let ask = |place: PeerPlace| {
            let request = request.clone();
            async move {
                let reply = peers.promise(place.ordinal, request).await;
                (place.ordinal, answer(identity, place, reply))
            }
        };
        futures_util::future::join_all(others.iter().copied().map(ask)).await.into_iter().collect()
    }

    /// Asks for an id in a cluster that exists, and keeps it.
    pub(super) async fn join_existing(
        &self,
        peers: &impl Peers,
        instead_of: Option<&Identity>,
    ) -> Result<Found, FormationError> {
        let joined = match self.ask_join(peers, self.join_request(None)).await? {
            Asked::Joined(joined) => joined,
            Asked::NoLeader | Asked::Dead => return Ok(Found::NoLeader),
            Asked::Nobody => return Ok(Found::NoCluster),
        };
        tracing::info!(member = %MemberId(joined.member_id), "joining as a new member");
        let (cluster, member) = (ClusterId(joined.cluster_id), MemberId(joined.member_id));
        let assigned = self.identity_of(cluster, member, Stage::Assigned, Vec::new());
        // If it was promised away meanwhile, the next round sees that.
        self.adopt(assigned, instead_of)?;
        Ok(Found::Joined)
    }

    async fn ask_to_be_added(
        &self,
        peers: &impl Peers,
        identity: &Identity,
        pods: Option<&dyn Orchestrator>,
    ) -> Result<(), FormationError> {
        let why = match self.ask_join(peers, self.join_request(Some(identity))).await {
            Ok(Asked::Nobody) => {
                self.waits(&format!("no member of cluster {} answers", identity.cluster));
                if let Some(pods) = pods {
                    self.look_for_the_leader(pods).await;
                }
                return Ok(());
            }
            Ok(Asked::Dead) => "this id is dead".into(),
            // Nothing was begun under it: it is no loss.
            Err(FormationError::Refused(why)) => why,
            Ok(_) => return Ok(()),
            Err(e) => return Err(e),
        };
        tracing::warn!(member = %identity.member, "{why}: asking for another id");
        Ok(self.forget(identity)?)
    }

    /// Asks for an id, or to be let in under the one that is kept.
    pub(super) fn join_request(&self, assigned: Option<&Identity>) -> peer::JoinRequest {
        peer::JoinRequest {
            home: self.config.home.clone(),
            ordinal: self.config.ordinal.0,
            nonce: if assigned.is_some() { 0 } else { self.rng.next_id() },
            member_id: assigned.map_or(0, |identity| identity.member.0),
            cluster_id: assigned.map_or(0, |identity| identity.cluster.0),
        }
    }

    /// Everybody who may be asked.
    pub(super) fn others(&self) -> Vec<Ordinal> {
        let (wanted, led_last) = {
            let state = self.state();
            (state.wanted.clone(), state.led_last)
        };
        let known = self.config.known.iter().copied();
        let all: BTreeSet<Ordinal> = known.chain(wanted).chain(led_last).collect();
        all.into_iter().filter(|o| *o != self.config.ordinal).collect()
    }

    /// Asks everybody known, and the leader they name.
    async fn ask_join(
        &self,
        peers: &impl Peers,
        request: peer::JoinRequest,
    ) -> Result<Asked, FormationError> {
        let mut ask = self.others();
        let (mut hops, mut asked) = (0, Asked::Nobody);
        while let Some(to) = ask.pop() {
            let Ok(reply) = peers.join(to, request.clone()).await else { continue };
            match reply.result {
                Some(join_reply::Result::Joined(joined)) => return Ok(Asked::Joined(joined)),
                Some(join_reply::Result::LeaderAt(at)) if hops < 3 => {
                    hops += 1;
                    ask.push(Ordinal(at.ordinal));
                }
                Some(join_reply::Result::NoLeader(_) | join_reply::Result::LeaderAt(_)) => {
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Refused(why)) => return Err(FormationError::Refused(why)),
                Some(join_reply::Result::OccupiedBy(by)) => {
                    let member = MemberId(by.member_id);
                    self.waits(&format!("member {member} lives at this ordinal, and answers"));
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Wait(why)) => {
                    self.waits(&why);
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Dead(_)) => return Ok(Asked::Dead),
                Some(join_reply::Result::NotFormed(said)) if said.starting => {
                    self.waits(&format!("ordinal {to} is of a cluster, and is starting"));
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::NotFormed(_)) | None => {}
            }
        }
        Ok(asked)
    }
}

/// What asking to join came to.
enum Asked {
    Joined(peer::Joined),
    /// There is a cluster, but nobody there could decide.
    NoLeader,
    /// Nobody answers, or nobody knows of a cluster.
    Nobody,
    /// The id that was named can never be let in any more.
    Dead,
}

/// What a pristine volume found.
pub(super) enum Found {
    Joined,
    /// A cluster, which it must not found anew: ask again.
    NoLeader,
    NoCluster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Promised to us, or a member of our cluster.
    Ours,
    /// Promised to another cluster, and has no log.
    Engaged,
    /// A member of another cluster.
    Other,
    Silent,
}

fn answer(
    identity: &Identity,
    place: PeerPlace,
    reply: Result<peer::PromiseReply, String>,
) -> Answer {
    match reply.ok().and_then(|r| r.result) {
        Some(promise_reply::Result::Promised(_)) => Answer::Ours,
        Some(promise_reply::Result::Taken(taken))
            if taken.cluster_id == identity.cluster.0 && taken.member_id == place.member.0 =>
        {
            Answer::Ours
        }
        Some(promise_reply::Result::Taken(_)) => Answer::Other,
        Some(promise_reply::Result::Engaged(_)) => Answer::Engaged,
        Some(promise_reply::Result::Refused(why)) => {
            tracing::warn!(ordinal = %place.ordinal, why, "a founder refuses");
            Answer::Silent
        }
        None => Answer::Silent,
    }
}

fn check_place(
    identity: &Identity,
    config: &FormationConfig,
    dir: &DataDir,
) -> Result<(), DataDirError> {
    let root = || dir.root().display().to_string();
    if identity.ordinal != config.ordinal {
        return Err(DataDirError::OtherOrdinal {
            dir: root(),
            found: identity.ordinal,
            expected: config.ordinal,
        });
    }
    if identity.home != config.home {
        return Err(DataDirError::OtherHome {
            dir: root(),
            found: identity.home.clone(),
            expected: config.home.clone(),
        });
    }
    Ok(())
}
