//! The state of a volume on its way to a member, and the rules for changing its identity.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    membership::{
        datadir::{DataDir, DataDirError},
        identity::{Identity, Stage},
        orchestrator::{ClusterEvent, FormerClaim, Orchestrator},
        other_formed::{OtherFormed, StaleRecovery},
        reminder::Reminder,
    },
    rng::Rng,
    types::{ClusterId, DesiredReplicas, MemberId, MemberRef, Ordinal},
};

/// The result of the bootstrap.
#[derive(Debug, Clone)]
pub struct Bootstrapped {
    pub identity: Identity,
    /// This member initializes Raft with the founders as voters, unless its log is initialized already.
    pub initialize: bool,
    /// In Kubernetes: this founder must not serve before the bootstrap record confirms its cluster.
    pub unconfirmed: bool,
}

/// A volume cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("this volume is refused: {0}")]
    OtherCluster(OtherFormed),
    #[error(transparent)]
    StaleRecovery(#[from] StaleRecovery),
    #[error(
        "another pod founded the cluster: the next start archives this volume's data and joins"
    )]
    Superseded,
    #[error("a peer refused this member: {0}")]
    Refused(String),
}

#[derive(Debug, Clone)]
pub struct BootstrapConfig {
    pub ordinal: Ordinal,
    /// The namespace and StatefulSet; empty outside Kubernetes.
    pub home: String,
    /// The number of founders; their ordinals start at 0.
    pub founders: u32,
    /// Ordinals to ask for a cluster.
    pub known: BTreeSet<Ordinal>,
    /// Without one, founders promise themselves to each other.
    pub orchestrator: Option<Arc<dyn Orchestrator>>,
    /// Normally [`FOUNDER_TAKEOVER_TIMEOUT`](super::FOUNDER_TAKEOVER_TIMEOUT).
    pub takeover_timeout: Duration,
}

/// A volume on its way to a member. Shared with the peer server, which answers for it.
#[derive(Debug)]
pub struct Bootstrap {
    pub(super) config: BootstrapConfig,
    pub(super) dir: Arc<DataDir>,
    pub(super) rng: Arc<dyn Rng>,
    state: Mutex<State>,
    /// Held from reading the identity until its successor is durable: two founders may ask at once.
    deciding: Mutex<()>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub struct State {
    identity: Option<Identity>,
    /// A member of our cluster that knows this volume as a member has called.
    pub contacted: bool,
    /// A log is being created under the identity, which is final now.
    pub settled: bool,
    /// For a volume without an identity: the cluster of the archived member.
    archived_cluster: Option<ClusterId>,
    pub unfinished: Option<UnfinishedRecord>,
    /// The cluster to which this volume has promised itself, and since when this process knows.
    pub promised_since: Option<(ClusterId, Instant)>,
    /// The desired ordinals, in addition to the known ones.
    pub desired: Vec<Ordinal>,
    /// The uid of the StatefulSet when it was last read; empty outside Kubernetes.
    pub set: String,
    /// The bootstrap record confirms this founder's cluster.
    pub confirmed: bool,
    pub last_leader: Option<Ordinal>,
    /// The last answer of a member whose cluster has a quorum.
    quorum_answered: Option<Instant>,
    /// The ordinals of former claims, in addition to the known ones.
    pub former: BTreeSet<Ordinal>,
    /// The last obstacle to a founding.
    pub blocked: Option<Blocked>,
    /// The last reported obstacle.
    waiting: Reminder,
}

/// What keeps a pod from founding, as far as its remedy differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// No pod will prove the volumes empty.
    Unprovable,
    /// Pods are silent, and their volumes may be late.
    Silence,
    /// Only the first pod, or one that hears from all others, founds.
    FirstPod,
    OtherRemedy,
}

/// An obstacle, and since when one of its kind has held.
#[derive(Debug, Clone, Copy)]
pub struct Blocked {
    pub kind: ObstacleKind,
    pub since: Instant,
}

/// An unfinished bootstrap record, for as long as it does not change.
#[derive(Debug, Clone)]
pub struct UnfinishedRecord {
    pub version: String,
    pub since: Instant,
}

impl Bootstrap {
    /// Reads the identity, and counts this start.
    pub fn open(
        config: BootstrapConfig,
        dir: Arc<DataDir>,
        rng: Arc<dyn Rng>,
    ) -> Result<Bootstrap, BootstrapError> {
        let mut identity = dir.identity()?;
        if let Some(identity) = &mut identity {
            check_home(identity, &config, &dir)?;
        }
        if let Some(dead) = identity.take_if(|identity| identity.stage == Stage::Dead) {
            tracing::warn!(member = %dead.member, "archiving the data of a removed member");
            dir.archive()?;
        }
        if let Some(identity) = &mut identity {
            identity.boot += 1;
            dir.store_identity(identity)?;
        }
        // A volume with an identity founds no other cluster, so a damaged archive does not matter to it.
        let archived_cluster = if identity.is_none() { archived_cluster(&dir)? } else { None };
        let state = Mutex::new(State { identity, archived_cluster, ..State::default() });
        let (deciding, changed) = (Mutex::new(()), Notify::new());
        Ok(Bootstrap { config, dir, rng, state, deciding, changed })
    }

    pub fn ordinal(&self) -> Ordinal {
        self.config.ordinal
    }

    /// The namespace and StatefulSet; empty outside Kubernetes.
    pub fn home(&self) -> &str {
        &self.config.home
    }

    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.dir
    }

    pub fn identity(&self) -> Option<Identity> {
        self.state().identity.clone()
    }

    pub fn orchestrator(&self) -> Option<&Arc<dyn Orchestrator>> {
        self.config.orchestrator.as_ref()
    }

    pub fn new_identity(
        &self,
        cluster: ClusterId,
        member: MemberId,
        stage: Stage,
        founders: Vec<MemberRef>,
    ) -> Identity {
        let (ordinal, home) = (self.config.ordinal, self.config.home.clone());
        let recovered_from = None;
        Identity { cluster, member, ordinal, home, boot: 1, stage, founders, recovered_from }
    }

    /// Reports an obstacle, and again as long as it holds.
    pub fn report_waiting(&self, reason: &str) {
        let is_due = self.state().waiting.is_due(reason, Instant::now());
        if is_due {
            tracing::info!(ordinal = %self.config.ordinal, reason, "bootstrap waits");
            if let Some(pods) = self.orchestrator() {
                pods.emit(ClusterEvent::of_pod("Waiting", reason.to_string()));
            }
        }
    }

    /// Adds the desired ordinals to those that may be asked for a cluster, and keeps the uid of their set.
    pub fn note_desired(&self, desired: &DesiredReplicas) {
        let mut state = self.state();
        state.desired = desired.ordinals().collect();
        state.set.clone_from(&desired.set);
    }

    /// Adds the ordinals of former claims to those that may be asked for a cluster.
    pub fn note_former(&self, claims: &[FormerClaim]) {
        self.state().former = claims.iter().map(|claim| claim.ordinal).collect();
    }

    /// Whether this volume knows no cluster that ever served a client.
    pub fn is_pristine(&self) -> bool {
        match self.identity() {
            None => self.archived_cluster().is_none(),
            // An unconfirmed founder has not served any client.
            Some(identity) => identity.stage == Stage::Promised && !self.state().confirmed,
        }
    }

    /// For a volume without an identity: the cluster of the archived member.
    pub fn archived_cluster(&self) -> Option<ClusterId> {
        self.state().archived_cluster
    }

    /// Deletes an identity without a log. Blocks on the disk.
    pub fn discard_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() == Some(identity) && !self.state().settled {
            let archived_cluster = archived_cluster(&self.dir)?;
            self.dir.discard_identity()?;
            let mut state = self.state();
            (state.identity, state.contacted) = (None, false);
            state.archived_cluster = archived_cluster;
        }
        Ok(())
    }

    /// Marks the member as dead: the next start archives its data. Blocks on the disk.
    pub fn mark_removed(&self) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        let Some(identity) = self.identity() else { return Ok(()) };
        self.store(Identity { stage: Stage::Dead, ..identity })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next change of the identity, or at the next contact.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn deciding(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the identity `expected`. False: the identity has changed since.
    pub fn replace_identity(
        &self,
        expected: Option<&Identity>,
        new: Identity,
    ) -> Result<bool, DataDirError> {
        let _deciding = self.deciding();
        if self.identity().as_ref() != expected {
            return Ok(false);
        }
        self.store(new)?;
        Ok(true)
    }

    /// Makes the identity final: from here on this volume gives no other promise. `None`: the identity
    /// has changed since.
    pub fn settle(&self, identity: Identity, initialize: bool) -> Option<Bootstrapped> {
        let _deciding = self.deciding();
        let mut state = self.state();
        if state.identity.as_ref() != Some(&identity) {
            return None;
        }
        state.settled = true;
        let unconfirmed = initialize && self.config.orchestrator.is_some();
        Some(Bootstrapped { identity, initialize, unconfirmed })
    }

    /// Stores the identity. The caller holds the lock `deciding`.
    pub(super) fn store(&self, identity: Identity) -> Result<(), DataDirError> {
        self.dir.store_identity(&identity)?;
        let mut state = self.state();
        // A call to the previous member does not count as contact.
        state.contacted &= state.identity.as_ref().is_some_and(|old| old.member == identity.member);
        state.identity = Some(identity);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Records that a log exists: from here on a missing log is a lost log. Blocks on the disk.
    pub fn became_member(&self, formed: &Identity) -> Result<(), DataDirError> {
        let _deciding = self.deciding();
        assert_eq!(self.identity().as_ref(), Some(formed), "a settled identity does not change");
        if formed.stage != Stage::Member {
            let member = Identity { stage: Stage::Member, founders: Vec::new(), ..formed.clone() };
            self.store(member)?;
        }
        Ok(())
    }

    pub fn note_quorum_answer(&self) {
        self.state().quorum_answered = Some(Instant::now());
    }

    /// Time since a member whose cluster has a quorum last answered a join request of this volume.
    pub fn quorum_answer_age(&self) -> Option<Duration> {
        self.state().quorum_answered.map(|at| at.elapsed())
    }

    /// Notes a Raft message to this member of its cluster.
    pub fn note_contact(&self) {
        self.state().contacted = true;
        self.changed.notify_waiters();
    }
}

/// The cluster of the archived member. An unconfirmed founder's cluster is ignored: it has served no client.
fn archived_cluster(dir: &DataDir) -> Result<Option<ClusterId>, DataDirError> {
    let served = |dead: &Identity| dead.founders.is_empty();
    Ok(dir.archived_identity()?.filter(served).map(|dead| dead.cluster))
}

fn check_home(
    identity: &Identity,
    config: &BootstrapConfig,
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
