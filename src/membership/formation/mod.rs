//! From a pristine volume to a member: one look at everything, one step, until it is one.
//!
//! The ways are elsewhere: founding by [promises] or by a [claim], [joining](join), and going on alone when
//! told to [recover]. Here is what they share: the identity, which changes under one lock and is on disk
//! before anybody hears of it, and the point from which it cannot change any more.

mod claim;
mod join;
mod promises;
mod recover;

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use self::claim::Seen;
pub use self::claim::TAKE_OVER;
use super::{
    datadir::{DataDir, DataDirError},
    identity::{Identity, Stage},
    orchestrator::{News, Orchestrator},
};
use crate::{
    proto::peer,
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
    pub known: BTreeSet<Ordinal>,
    /// Who runs the pods; without one, the founders promise themselves to each other.
    pub orchestrator: Option<Arc<dyn Orchestrator>>,
    /// After so long, a founder that does not go on is replaced: [`TAKE_OVER`].
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
}

#[derive(Debug, Default)]
struct State {
    identity: Option<Identity>,
    /// A peer that knows us as a member of our cluster has called.
    contacted: bool,
    /// The identity is taken, and a log is being made under it: it cannot be another one any more.
    settled: bool,
    /// Without an identity: the cluster of the member whose data is set aside here.
    was_of: Option<ClusterId>,
    /// A claim that is not finished.
    claim: Option<Seen>,
    /// Ordinals that are wanted, beside those that are known.
    wanted: Vec<Ordinal>,
    /// The claim says that this founder's cluster is formed.
    confirmed: bool,
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
        // Who has an identity founds no other cluster: a damaged archive need not stop it.
        let was_of = if identity.is_none() { was_of(&dir)? } else { None };
        let state = Mutex::new(State { identity, was_of, ..State::default() });
        let (deciding, changed) = (Mutex::new(()), Notify::new());
        Ok(Formation { config, dir, rng, state, deciding, changed })
    }

    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.dir
    }

    pub fn identity(&self) -> Option<Identity> {
        self.state().identity.clone()
    }

    fn ordinal(&self) -> Ordinal {
        self.config.ordinal
    }

    fn take_over(&self) -> Duration {
        self.config.take_over
    }

    pub fn orchestrator(&self) -> Option<&Arc<dyn Orchestrator>> {
        self.config.orchestrator.as_ref()
    }

    fn new_id(&self) -> u64 {
        self.rng.next_id()
    }

    fn identity_of(
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
    fn waits(&self, why: &str) {
        let before = std::mem::replace(&mut self.state().waited, why.to_string());
        if before != why {
            tracing::info!(ordinal = %self.config.ordinal, "waiting: {why}");
            if let Some(pods) = self.orchestrator() {
                pods.say(News::of_pod("Waiting", why.to_string()));
            }
        }
    }

    /// So many pods there are: they may be asked, too.
    fn know(&self, wanted: &Desired) {
        let all = wanted.start..wanted.start.saturating_add(wanted.replicas);
        self.state().wanted = all.map(Ordinal).collect();
    }

    /// Whether this volume knows of no cluster that anybody was ever served in.
    pub fn is_pristine(&self) -> bool {
        match self.identity() {
            None => self.was_of().is_none(),
            // A founder that nobody was served by yet.
            Some(identity) => identity.stage == Stage::Promised && !self.state().confirmed,
        }
    }

    /// Without an identity: the cluster of the member whose data is set aside here.
    fn was_of(&self) -> Option<ClusterId> {
        self.state().was_of
    }

    /// Gives up an identity under which nothing was begun.
    pub(super) fn forget(&self, identity: &Identity) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() == Some(identity) && !self.state().settled {
            let was_of = was_of(&self.dir)?;
            self.dir.forget_identity()?;
            let mut state = self.state();
            (state.identity, state.contacted, state.was_of) = (None, false, was_of);
        }
        Ok(())
    }

    /// This volume's member is dead: at the next start its data is set aside. Blocks on the disk.
    pub fn bury(&self) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        let Some(identity) = self.identity() else { return Ok(()) };
        self.store(Identity { stage: Stage::Dead, ..identity })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn deciding(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an identity in place of the one it was decided on; false: that is not ours any more.
    fn adopt(&self, new: Identity, instead_of: Option<&Identity>) -> Result<bool, DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() != instead_of {
            return Ok(false);
        }
        self.store(new)?;
        Ok(true)
    }

    /// The point of no return: from here on nobody gets another promise. `None`: the identity has
    /// changed meanwhile.
    fn settle(&self, identity: Identity, initialize: bool) -> Option<Formed> {
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
    fn store(&self, identity: Identity) -> Result<(), DataDirError> {
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
}

/// The cluster of the member whose data is set aside. A founder that nobody was served by leaves nothing
/// behind that must be heeded.
fn was_of(dir: &DataDir) -> Result<Option<ClusterId>, DataDirError> {
    let served = |dead: &Identity| dead.founders.is_empty();
    Ok(dir.set_aside()?.filter(served).map(|dead| dead.cluster))
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
