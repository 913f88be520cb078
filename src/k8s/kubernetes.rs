//! Implements membership's [`Orchestrator`] with Kubernetes.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    coordination::v1::Lease,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Config;
use tokio::sync::watch;

use super::{
    claims,
    connection::{self, ConnectError, Connection, Swap},
    events::{EventRecorder, EventSubjects},
    leader_annotations,
    mirror::{Mirror, MirrorOptions, MirrorTiming},
    objects,
    outage::Backoff,
    termination,
};
use crate::{
    clock::Clock,
    membership::{
        BootstrapRecord, ClusterEvent, FormerClaim, FoundingOrder, Intent, LeaderUpdate,
        Orchestrator, OrchestratorError, PodCreation, StoredRecord, Termination,
    },
    types::Ordinal,
};

/// The names of this member's objects.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    pub namespace: String,
    /// The StatefulSet of this pod.
    pub statefulset: String,
    /// The ConfigMap with the bootstrap record.
    pub bootstrap_configmap: String,
    /// This pod's name.
    pub pod: String,
    /// The objects that name the leader.
    pub mirror: MirrorOptions,
    /// The pod's uid. Without it, `kubectl describe pod` does not show the pod's Events.
    pub pod_uid: Option<String>,
}

/// Time limits and intervals.
#[derive(Debug, Clone, Copy)]
pub struct KubernetesTiming {
    /// One try of one call.
    pub call_limit: Duration,
    /// Delivery of the queued Events at the end.
    pub close_limit: Duration,
    pub event_backoff: Backoff,
    pub mirror: MirrorTiming,
}

const TIMING: KubernetesTiming = KubernetesTiming {
    call_limit: Duration::from_secs(2),
    close_limit: Duration::from_secs(2),
    event_backoff: Backoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(10),
        max_refused: Duration::from_secs(10),
    },
    mirror: MirrorTiming {
        renewal: Duration::from_secs(3),
        backoff: Backoff {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(1),
            max_refused: Duration::from_secs(10),
        },
        stop_limit: Duration::from_secs(3),
    },
};

/// One member's access to Kubernetes.
#[derive(Debug)]
pub struct Kubernetes {
    options: KubernetesOptions,
    connection: Connection,
    clock: Arc<dyn Clock>,
    events: EventRecorder,
    timing: KubernetesTiming,
}

impl Kubernetes {
    /// Uses the pod's service account, or `KUBECONFIG`. Does not connect yet, so the API server may be
    /// down. Must run on a Tokio runtime.
    ///
    /// # Errors
    /// If this process is not configured for an API server.
    pub async fn connect(
        options: KubernetesOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Kubernetes, ConnectError> {
        Kubernetes::new(connection::config().await?, options, clock, TIMING)
    }

    pub fn new(
        config: Config,
        options: KubernetesOptions,
        clock: Arc<dyn Clock>,
        timing: KubernetesTiming,
    ) -> Result<Kubernetes, ConnectError> {
        let connection = Connection::new(config, options.namespace.clone(), timing.call_limit)?;
        let subjects = EventSubjects {
            namespace: options.namespace.clone(),
            pod: options.pod.clone(),
            pod_uid: options.pod_uid.clone(),
            statefulset: options.statefulset.clone(),
        };
        let events =
            EventRecorder::start(subjects, clock.clone(), connection.clone(), timing.event_backoff);
        Ok(Kubernetes { options, connection, clock, events, timing })
    }

    /// Starts to mirror the leader. Must run on a Tokio runtime.
    pub fn mirror(&self, leader: &watch::Receiver<LeaderUpdate>) -> Mirror {
        let (clock, pod) = (&self.clock, &self.options.pod);
        Mirror::start(
            self.options.mirror.clone(),
            &self.connection,
            clock,
            pod,
            leader,
            self.timing.mirror,
        )
    }

    #[cfg(test)]
    pub fn metrics(&self) -> Arc<super::metrics::KubernetesMetrics> {
        self.connection.metrics.clone()
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Delivers the queued Events, for at most two seconds. Later Events are dropped.
    pub async fn close(&self) {
        self.events.close(self.timing.close_limit).await;
    }

    async fn set(&self) -> Result<Option<StatefulSet>, OrchestratorError> {
        let set: Option<StatefulSet> = self.connection.get(&self.options.statefulset).await?;
        self.events.set_statefulset_uid(set.as_ref().and_then(|set| set.metadata.uid.clone()));
        Ok(set)
    }
}

impl Orchestrator for Kubernetes {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        async {
            match self.set().await {
                Err(OrchestratorError::Forbidden(why))
                    if !self.connection.knows_permissions().await =>
                {
                    Err(OrchestratorError::Unreachable(format!(
                        "{why}; the version of the API server is not readable either: it may not have \
                         read its roles yet"
                    )))
                }
                set => objects::intent(set?.as_ref()),
            }
        }
        .boxed()
    }

    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
        async {
            let record = self.connection.get::<ConfigMap>(&self.options.bootstrap_configmap);
            let (record, set) = tokio::try_join!(record, self.set())?;
            let Some(record) = record else { return Ok(None) };
            let set = set.ok_or_else(|| {
                let name = &self.options.statefulset;
                OrchestratorError::Refused(format!("StatefulSet {name} does not exist"))
            })?;
            objects::stored_record(&record, &set).map(Some)
        }
        .boxed()
    }

    fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>> {
        async {
            let record = self.connection.get::<ConfigMap>(&self.options.bootstrap_configmap);
            let claims = self.connection.list::<PersistentVolumeClaim>();
            let (record, set, claims) = tokio::try_join!(record, self.set(), claims)?;
            let set = set.ok_or_else(|| {
                let name = &self.options.statefulset;
                OrchestratorError::Refused(format!("StatefulSet {name} does not exist"))
            })?;
            claims::former(&claims, &set, record.as_ref(), &self.options.pod)
        }
        .boxed()
    }

    fn order_founding<'a>(
        &'a self,
        order: &'a FoundingOrder,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        async move {
            let name = &self.options.bootstrap_configmap;
            let patch = objects::founding_order_patch(order);
            Ok(self.connection.swap::<ConfigMap>(name, version, patch).await? == Swap::Done)
        }
        .boxed()
    }

    /// After an error the outcome is unknown: the caller must read the record again.
    fn write_bootstrap_record<'a>(
        &'a self,
        record: BootstrapRecord,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        async move {
            let patch = objects::record_patch(record);
            let swap = self
                .connection
                .swap::<ConfigMap>(&self.options.bootstrap_configmap, version, patch)
                .await?;
            Ok(swap == Swap::Done)
        }
        .boxed()
    }

    fn create_bootstrap_record(
        &self,
        record: BootstrapRecord,
    ) -> BoxFuture<'_, Result<(), OrchestratorError>> {
        async move {
            let set = self.set().await?;
            let set = set.filter(|set| set.metadata.deletion_timestamp.is_none());
            let set = set.ok_or_else(|| {
                let name = &self.options.statefulset;
                OrchestratorError::Refused(format!("StatefulSet {name} is deleted"))
            })?;
            let name = &self.options.bootstrap_configmap;
            self.connection.create(&objects::new_record(name, record, &set)).await
        }
        .boxed()
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        async {
            let MirrorOptions { lease, service } = &self.options.mirror;
            let leader = |annotations| {
                leader_annotations::annotated_leader(&annotations, &self.options.statefulset)
            };
            if let Some(name) = service
                && let Some(leader) = leader(self.connection.annotations::<Service>(name).await?)
            {
                return Ok(Some(leader));
            }
            match lease {
                Some(name) => Ok(leader(self.connection.annotations::<Lease>(name).await?)),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>> {
        async {
            let slices = self.connection.list::<EndpointSlice>().await?;
            let KubernetesOptions { pod, pod_uid, .. } = &self.options;
            Ok(termination::is_published(&slices, pod, pod_uid.as_deref()))
        }
        .boxed()
    }

    fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>> {
        async {
            let pod = self.connection.get::<Pod>(&self.options.pod).await?;
            Ok(pod.and_then(|pod| termination::of_pod(&pod, self.options.pod_uid.as_deref())))
        }
        .boxed()
    }

    fn pod_creation(&self) -> BoxFuture<'_, Result<Option<PodCreation>, OrchestratorError>> {
        async { Ok(self.set().await?.as_ref().and_then(objects::pod_creation)) }.boxed()
    }

    fn emit(&self, event: ClusterEvent) {
        self.events.emit(event);
    }
}
