//! Membership's orchestrator, as Kubernetes is one.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Service},
};
use kube::Config;
use tokio::sync::watch;

use super::{
    connection::{self, ConnectError, Connection, Swap},
    events::{Events, Subjects},
    metrics::KubernetesMetrics,
    mirror::{Mirror, MirrorOptions, MirrorPace},
    naming, objects,
    outage::Pauses,
};
use crate::{
    clock::Clock,
    membership::{Claim, Claimed, Intent, LeaderNews, News, Orchestrator, OrchestratorError},
    types::Ordinal,
};

/// Which objects are this member's.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    pub namespace: String,
    /// The StatefulSet that the pod is of.
    pub statefulset: String,
    /// The ConfigMap with the claim.
    pub claim: String,
    /// This pod's name.
    pub pod: String,
    /// Where the leader is told, so that it can be asked for there too.
    pub mirror: MirrorOptions,
    /// Its uid, without which `kubectl describe pod` does not show the pod's Events; other commands do.
    pub pod_uid: Option<String>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// One try of one call.
    pub call_limit: Duration,
    /// What is left to say, at the end.
    pub close_limit: Duration,
    pub event_pauses: Pauses,
    pub mirror: MirrorPace,
}

const PACE: Pace = Pace {
    call_limit: Duration::from_secs(2),
    close_limit: Duration::from_secs(2),
    event_pauses: Pauses {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(10),
        longest_refused: Duration::from_secs(10),
    },
    mirror: MirrorPace {
        renewal: Duration::from_secs(3),
        pauses: Pauses {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(1),
            longest_refused: Duration::from_secs(10),
        },
        stop_limit: Duration::from_secs(3),
    },
};

/// Kubernetes, as one member sees it.
#[derive(Debug)]
pub struct Kubernetes {
    options: KubernetesOptions,
    connection: Connection,
    clock: Arc<dyn Clock>,
    events: Events,
    pace: Pace,
}

impl Kubernetes {
    /// Gets ready to talk as the pod's service account, or as `KUBECONFIG` says. Calls nobody yet, so it
    /// does not matter whether the API server is there. On a runtime.
    ///
    /// # Errors
    /// When this process is not set up to talk to an API server.
    pub async fn connect(
        options: KubernetesOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Kubernetes, ConnectError> {
        Kubernetes::new(connection::config().await?, options, clock, PACE)
    }

    pub(super) fn new(
        config: Config,
        options: KubernetesOptions,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Kubernetes, ConnectError> {
        let connection = Connection::new(config, options.namespace.clone(), pace.call_limit)?;
        let subjects = Subjects {
            namespace: options.namespace.clone(),
            pod: options.pod.clone(),
            pod_uid: options.pod_uid.clone(),
            statefulset: options.statefulset.clone(),
        };
        let events = Events::start(subjects, clock.clone(), connection.clone(), pace.event_pauses);
        Ok(Kubernetes { options, connection, clock, events, pace })
    }

    /// Starts to tell others who leads. On a runtime.
    pub fn mirror(&self, news: &watch::Receiver<LeaderNews>) -> Mirror {
        let (clock, pod) = (&self.clock, &self.options.pod);
        Mirror::start(
            self.options.mirror.clone(),
            &self.connection,
            clock,
            pod,
            news,
            self.pace.mirror,
        )
    }

    pub fn metrics(&self) -> Arc<KubernetesMetrics> {
        self.connection.metrics.clone()
    }

    /// Says what is left to say, for two seconds at most; nothing is said afterwards.
    pub async fn close(&self) {
        self.events.close(self.pace.close_limit).await;
    }

    async fn set(&self) -> Result<Option<StatefulSet>, OrchestratorError> {
        let set: Option<StatefulSet> = self.connection.get(&self.options.statefulset).await?;
        self.events.know_set(set.as_ref().and_then(|set| set.metadata.uid.clone()));
        Ok(set)
    }
}

impl Orchestrator for Kubernetes {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        async { objects::intent(self.set().await?.as_ref()) }.boxed()
    }

    fn claim(&self) -> BoxFuture<'_, Result<Option<Claimed>, OrchestratorError>> {
        async {
            let claim = self.connection.get::<ConfigMap>(&self.options.claim);
            let (claim, set) = tokio::try_join!(claim, self.set())?;
            let Some(claim) = claim else { return Ok(None) };
            let set = set.ok_or_else(|| {
                let name = &self.options.statefulset;
                OrchestratorError::Refused(format!("StatefulSet {name} is not there"))
            })?;
            objects::claimed(&claim, &set).map(Some)
        }
        .boxed()
    }

    /// An error leaves open whether it was written: read it again.
    fn write_claim<'a>(
        &'a self,
        claim: Claim,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        async move {
            let patch = objects::claim_patch(claim);
            let swap =
                self.connection.swap::<ConfigMap>(&self.options.claim, version, patch).await?;
            Ok(swap == Swap::Done)
        }
        .boxed()
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        async {
            let MirrorOptions { lease, service } = &self.options.mirror;
            let told = |annotations| naming::told_leader(&annotations, &self.options.statefulset);
            if let Some(name) = service
                && let Some(leader) = told(self.connection.annotations::<Service>(name).await?)
            {
                return Ok(Some(leader));
            }
            match lease {
                Some(name) => Ok(told(self.connection.annotations::<Lease>(name).await?)),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn say(&self, news: News) {
        self.events.say(news);
    }
}
