//! Calls to the API server: one try each, within a limit, with errors in membership's words.
//!
//! Connections are kept and reused. A call that runs into its limit is dropped, and its connection
//! with it: so a dead one costs one call, and an API server that comes back is found by the next.

use std::{collections::BTreeMap, env, error::Error as _, fmt, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    serde::{Serialize, de::DeserializeOwned},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
    core::{Status, response::reason},
};
use serde_json::{Value, json};

use super::metrics::KubernetesMetrics;
use crate::membership::OrchestratorError;

/// Kubernetes' name for who changed a field.
pub(super) const FIELD_MANAGER: &str = "kvd";
/// So often an object that others change at the same time is read again, at once.
const CONFLICTS_MAX: usize = 5;

/// Why there is no way to Kubernetes: the process is not in a pod, or not set up to talk.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the file that KUBECONFIG names: {0}")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error(
        "this pod's service account: {0} (automountServiceAccountToken must be on; outside of a pod, \
         set KUBECONFIG)"
    )]
    ServiceAccount(#[source] kube::config::InClusterError),
    #[error("a client for the API server: {0}")]
    Client(#[source] kube::Error),
}

/// An object of a namespace.
pub(super) trait Object:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + DeserializeOwned
    + Clone
    + fmt::Debug
{
}

impl<T> Object for T where
    T: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + fmt::Debug
{
}

/// What became of a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    Done,
    /// The object is at another version by now.
    Conflict,
    /// The object is gone.
    Absent,
}

/// The API server, as one namespace sees it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    namespace: String,
    call_limit: Duration,
    pub(super) metrics: Arc<KubernetesMetrics>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Where the API server is: `KUBECONFIG` if it is set, else as a pod's service account says.
pub(super) async fn config() -> Result<Config, ConnectError> {
    if env::var_os("KUBECONFIG").is_some() {
        let options = KubeConfigOptions::default();
        Config::from_kubeconfig(&options).await.map_err(ConnectError::Kubeconfig)
    } else {
        Config::incluster().map_err(ConnectError::ServiceAccount)
    }
}

impl Connection {
    /// Dials nothing yet: an API server that is away hinders nobody's start. On a runtime.
    pub(super) fn new(
        mut config: Config,
        namespace: String,
        call_limit: Duration,
    ) -> Result<Connection, ConnectError> {
        config.connect_timeout = Some(call_limit);
        // Whoever calls knows whether, and for how long, trying again is worth it.
        config.default_retry = false;
        Ok(Connection {
            client: config.try_into().map_err(ConnectError::Client)?,
            namespace,
            call_limit,
            metrics: Arc::default(),
        })
    }

    /// Reads an object as it is now; `None`: there is none.
    pub(super) async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, OrchestratorError> {
        // Without a resourceVersion the answer comes from the store, not from a cache.
        match self.call(self.api::<K>().get(name)).await {
            Ok(object) => Ok(Some(object)),
            Err(Failure::Kube(kube::Error::Api(status))) if is_absence(&status, name) => Ok(None),
            Err(failure) => Err(self.failed::<K>(failure, name)),
        }
    }

    /// What is written on an object; nothing, if there is none.
    pub(super) async fn annotations<K: Object>(
        &self,
        name: &str,
    ) -> Result<BTreeMap<String, String>, OrchestratorError> {
        let object = self.get::<K>(name).await?;
        Ok(object.map(|mut object| std::mem::take(object.annotations_mut())).unwrap_or_default())
    }

    /// Merges `patch` into the object, if that still is at `version`. After an error it may or may not
    /// have happened.
    pub(super) async fn swap<K: Object>(
        &self,
        name: &str,
        version: &str,
        mut patch: Value,
    ) -> Result<Swap, OrchestratorError> {
        // Kubernetes would take an empty one for "whichever version".
        if version.is_empty() {
            return Ok(Swap::Conflict);
        }
        patch["metadata"]["resourceVersion"] = json!(version);
        let manager = Some(FIELD_MANAGER.to_string());
        let params = PatchParams { field_manager: manager, ..PatchParams::default() };
        match self.call(self.api::<K>().patch(name, &params, &Patch::Merge(patch))).await {
            Ok(_) => Ok(Swap::Done),
            Err(Failure::Kube(kube::Error::Api(status))) if status.is_conflict() => {
                Ok(Swap::Conflict)
            }
            Err(Failure::Kube(kube::Error::Api(status))) if is_absence(&status, name) => {
                Ok(Swap::Absent)
            }
            Err(failure) => Err(self.failed::<K>(failure, name)),
        }
    }

    /// Reads an object, and merges into it what `change` makes of that; again if somebody else was
    /// faster. `None` changes nothing.
    ///
    /// # Errors
    /// Also if the object is not there, or others change it all the time.
    pub(super) async fn update<K: Object>(
        &self,
        name: &str,
        mut change: impl FnMut(&K) -> Option<Value>,
    ) -> Result<(), OrchestratorError> {
        let what = describe::<K>(name);
        let absent = || OrchestratorError::Refused(format!("{what} is not there: apply it again"));
        for _ in 0..CONFLICTS_MAX {
            let object = self.get::<K>(name).await?.ok_or_else(absent)?;
            let Some(patch) = change(&object) else { return Ok(()) };
            let version = object.meta().resource_version.as_deref().unwrap_or_default();
            match self.swap::<K>(name, version, patch).await? {
                Swap::Done => return Ok(()),
                Swap::Conflict => {}
                Swap::Absent => return Err(absent()),
            }
        }
        Err(OrchestratorError::Unreachable(format!("{what}: others change it all the time")))
    }

    /// Makes an object; one that is there already by this name is as good.
    pub(super) async fn create<K: Object + Serialize>(
        &self,
        object: &K,
    ) -> Result<(), OrchestratorError> {
        let manager = Some(FIELD_MANAGER.to_string());
        let params = PostParams { field_manager: manager, ..PostParams::default() };
        match self.call(self.api::<K>().create(&params, object)).await {
            Ok(_) => Ok(()),
            Err(Failure::Kube(kube::Error::Api(status))) if status.is_already_exists() => Ok(()),
            Err(failure) => {
                let name = object.meta().name.as_deref().unwrap_or_default();
                Err(self.failed::<K>(failure, name))
            }
        }
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        self.metrics.calls.increment();
        match tokio::time::timeout(self.call_limit, request).await {
            Ok(answer) => answer.map_err(Failure::Kube),
            Err(_) => Err(Failure::Late(self.call_limit)),
        }
    }

    fn failed<K: Object>(&self, failure: Failure, name: &str) -> OrchestratorError {
        self.metrics.failed_calls.increment();
        let what = describe::<K>(name);
        match failure {
            Failure::Kube(kube::Error::SerdeError(why)) => {
                OrchestratorError::Unreadable { what, why: why.to_string() }
            }
            Failure::Kube(kube::Error::Api(status)) if is_refusal(&status) => {
                OrchestratorError::Refused(format!("{what}: {}", told(&status)))
            }
            Failure::Kube(kube::Error::Api(status)) => {
                OrchestratorError::Unreachable(format!("{what}: {}", told(&status)))
            }
            Failure::Kube(other) => {
                OrchestratorError::Unreachable(format!("{what}: {}", chain(&other)))
            }
            Failure::Late(limit) => {
                OrchestratorError::Unreachable(format!("{what}: no answer within {limit:?}"))
            }
        }
    }
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug)]
enum Failure {
    Kube(kube::Error),
    Late(Duration),
}

fn describe<K: Object>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}

/// Whether this object is not there, in the API server's own words. A proxy's 404, or that of an API
/// server which does not serve this API yet, says nothing about the object.
fn is_absence(status: &Status, name: &str) -> bool {
    let of = status.details.as_ref().map(|details| details.name.as_str());
    status.reason == reason::NOT_FOUND && of == Some(name)
}

/// Whether trying again as we are makes no sense: we may not, or ask for nonsense. Others (too many
/// requests, no room, a proxy's page) pass.
fn is_refusal(status: &Status) -> bool {
    let passing = [408, 409, 429].contains(&status.code) || !reason::is_known(&status.reason);
    (400..500).contains(&status.code) && !passing
}

fn told(status: &Status) -> String {
    let message = status.message.lines().next().unwrap_or_default();
    format!("{} {message}", status.code)
}

/// An error and its causes: kube's own text stops where it gets interesting.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
