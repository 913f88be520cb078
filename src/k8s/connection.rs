//! Calls to the API server: one try each, with a time limit, and with membership's errors.
//!
//! Connections are reused. A call that exceeds its limit is dropped together with its connection: a dead
//! connection costs one call, and the next call reaches an API server that is back.

use std::{collections::BTreeMap, env, error::Error as _, fmt, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    serde::{
        Serialize,
        de::{DeserializeOwned, Error as _},
    },
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
    core::{Status, response::reason},
};
use serde_json::{Value, json};

use super::metrics::KubernetesMetrics;
use crate::membership::OrchestratorError;

/// The field manager of our writes.
pub const FIELD_MANAGER: &str = "kvd";
/// Immediate retries of an update that conflicts with other writers.
const CONFLICT_RETRIES_MAX: usize = 5;
/// Objects in one page of a list.
const LIST_PAGE_MAX: u32 = 500;

/// The process has no access to Kubernetes: it is not a pod, or not configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot use the file in KUBECONFIG: {0}")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error(
        "cannot use this pod's service account: {0} (automountServiceAccountToken must be on; outside \
         of a pod, set KUBECONFIG)"
    )]
    ServiceAccount(#[source] kube::config::InClusterError),
    #[error("cannot create a client for the API server: {0}")]
    Client(#[source] kube::Error),
}

/// A namespaced object.
pub trait Object:
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

/// The result of a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    Done,
    /// The object has another version now.
    Conflict,
    /// The object does not exist.
    Absent,
}

/// A client for one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    namespace: String,
    call_limit: Duration,
    pub metrics: Arc<KubernetesMetrics>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The client's configuration: `KUBECONFIG` if it is set, otherwise the pod's service account.
pub async fn config() -> Result<Config, ConnectError> {
    if env::var_os("KUBECONFIG").is_some() {
        let options = KubeConfigOptions::default();
        Config::from_kubeconfig(&options).await.map_err(ConnectError::Kubeconfig)
    } else {
        Config::incluster().map_err(ConnectError::ServiceAccount)
    }
}

impl Connection {
    /// Does not connect yet, so the API server may be down. Must run on a Tokio runtime.
    pub fn new(
        mut config: Config,
        namespace: String,
        call_limit: Duration,
    ) -> Result<Connection, ConnectError> {
        config.connect_timeout = Some(call_limit);
        // The callers retry with their own backoff.
        config.default_retry = false;
        Ok(Connection {
            client: config.try_into().map_err(ConnectError::Client)?,
            namespace,
            call_limit,
            metrics: Arc::default(),
        })
    }

    /// Reads the current object; `None` if it does not exist.
    pub async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, OrchestratorError> {
        // Without a resourceVersion the API server reads from its store, not from a cache.
        match self.call(self.api::<K>().get(name)).await {
            Ok(object) => Ok(Some(object)),
            Err(Failure::Kube(kube::Error::Api(status))) if is_absence(&status, name) => Ok(None),
            Err(failure) => Err(self.failed(failure, describe::<K>(name))),
        }
    }

    /// Whether a refusal of permission is authentic. A starting API server forbids everything until it has
    /// read its roles; then every valid token may read its version.
    pub async fn knows_permissions(&self) -> bool {
        match self.call(self.client.apiserver_version()).await {
            Ok(_) => true,
            // No role decides whether a token is valid.
            Err(Failure::Kube(kube::Error::Api(status))) => {
                status.code == 401 && is_prohibition(&status)
            }
            Err(_) => false,
        }
    }

    /// Reads all objects of this kind in the namespace, in their current state, page by page. One call limit holds for all pages.
    ///
    /// No page is skipped: an incomplete list is an error.
    pub async fn list<K: Object>(&self) -> Result<Vec<K>, OrchestratorError> {
        let pages = async {
            let mut objects = Vec::new();
            let mut params = ListParams::default().limit(LIST_PAGE_MAX);
            loop {
                let page = self.api::<K>().list(&params).await?;
                // A proxy's answer to anything may have the form of an empty list.
                if page.types.kind != format!("{}List", K::kind(&())) {
                    let kind = page.types.kind;
                    return Err(kube::Error::SerdeError(serde_json::Error::custom(format!(
                        "the answer is a {kind}"
                    ))));
                }
                objects.extend(page.items);
                params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
                if params.continue_token.is_none() {
                    return Ok(objects);
                }
            }
        };
        let failed = |failure| self.failed(failure, format!("list of {}", K::plural(&())));
        self.call(pages).await.map_err(failed)
    }

    /// The object's annotations; empty if it does not exist.
    pub async fn annotations<K: Object>(
        &self,
        name: &str,
    ) -> Result<BTreeMap<String, String>, OrchestratorError> {
        let object = self.get::<K>(name).await?;
        Ok(object.map(|mut object| std::mem::take(object.annotations_mut())).unwrap_or_default())
    }

    /// Merges `patch` into the object if it still has `version`. After an error the outcome is unknown.
    pub async fn swap<K: Object>(
        &self,
        name: &str,
        version: &str,
        mut patch: Value,
    ) -> Result<Swap, OrchestratorError> {
        // Kubernetes accepts an empty version as "any version".
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
            Err(failure) => Err(self.failed(failure, describe::<K>(name))),
        }
    }

    /// Reads the object and merges the patch that `change` derives from it, again after a conflict. `None`
    /// changes nothing.
    ///
    /// # Errors
    /// Also if the object does not exist, or every retry conflicts.
    pub async fn update<K: Object>(
        &self,
        name: &str,
        mut change: impl FnMut(&K) -> Option<Value>,
    ) -> Result<(), OrchestratorError> {
        let object = describe::<K>(name);
        let absent = || {
            OrchestratorError::Refused(format!(
                "{object} does not exist: apply the manifests again"
            ))
        };
        for _ in 0..CONFLICT_RETRIES_MAX {
            let current = self.get::<K>(name).await?.ok_or_else(absent)?;
            let Some(patch) = change(&current) else { return Ok(()) };
            let version = current.meta().resource_version.as_deref().unwrap_or_default();
            match self.swap::<K>(name, version, patch).await? {
                Swap::Done => return Ok(()),
                Swap::Conflict => {}
                Swap::Absent => return Err(absent()),
            }
        }
        Err(OrchestratorError::Unreachable(format!(
            "{object}: every update conflicts with another writer"
        )))
    }

    /// Creates the object. An existing object of this name counts as success.
    pub async fn create<K: Object + Serialize>(&self, object: &K) -> Result<(), OrchestratorError> {
        let manager = Some(FIELD_MANAGER.to_string());
        let params = PostParams { field_manager: manager, ..PostParams::default() };
        match self.call(self.api::<K>().create(&params, object)).await {
            Ok(_) => Ok(()),
            Err(Failure::Kube(kube::Error::Api(status))) if status.is_already_exists() => Ok(()),
            Err(failure) => {
                let name = object.meta().name.as_deref().unwrap_or_default();
                Err(self.failed(failure, describe::<K>(name)))
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
            Err(_) => Err(Failure::TimedOut(self.call_limit)),
        }
    }

    fn failed(&self, failure: Failure, object: String) -> OrchestratorError {
        self.metrics.failed_calls.increment();
        match failure {
            Failure::Kube(kube::Error::SerdeError(why)) => {
                OrchestratorError::Malformed { object, why: why.to_string() }
            }
            Failure::Kube(kube::Error::Api(status)) if is_prohibition(&status) => {
                OrchestratorError::Forbidden(format!("{object}: {}", summary(&status)))
            }
            Failure::Kube(kube::Error::Api(status)) if is_refusal(&status) => {
                OrchestratorError::Refused(format!("{object}: {}", summary(&status)))
            }
            Failure::Kube(kube::Error::Api(status)) => {
                OrchestratorError::Unreachable(format!("{object}: {}", summary(&status)))
            }
            Failure::Kube(other) => {
                OrchestratorError::Unreachable(format!("{object}: {}", with_causes(&other)))
            }
            Failure::TimedOut(limit) => {
                OrchestratorError::Unreachable(format!("{object}: no answer within {limit:?}"))
            }
        }
    }
}

/// A call without a usable answer.
#[derive(Debug)]
enum Failure {
    Kube(kube::Error),
    TimedOut(Duration),
}

fn describe<K: Object>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}

/// Whether the API server itself says that this object does not exist. The 404 of a proxy, or of an API
/// server that does not serve this API yet, says nothing about the object.
fn is_absence(status: &Status, name: &str) -> bool {
    let of = status.details.as_ref().map(|details| details.name.as_str());
    status.reason == reason::NOT_FOUND && of == Some(name)
}

/// Whether the API server itself rejects this pod's token or permission. A proxy may answer with the same
/// codes.
fn is_prohibition(status: &Status) -> bool {
    [401, 403].contains(&status.code) && reason::is_known(&status.reason)
}

/// Whether a retry is pointless: the request is forbidden or invalid. Other errors (too many requests, no
/// space, a proxy's page) are transient.
fn is_refusal(status: &Status) -> bool {
    let transient = [408, 409, 429].contains(&status.code) || !reason::is_known(&status.reason);
    (400..500).contains(&status.code) && !transient
}

fn summary(status: &Status) -> String {
    let message = status.message.lines().next().unwrap_or_default();
    format!("{} {message}", status.code)
}

/// An error with its causes, which kube's own text omits.
fn with_causes(error: &kube::Error) -> String {
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
