//! Counters of calls and Events.

use crate::metrics::Counter;

/// One member's counters since its start.
#[derive(Debug, Default)]
pub struct KubernetesMetrics {
    /// Requests to the API server.
    pub calls: Counter,
    /// Requests that were unreachable, refused or malformed. A conflict is not a failure.
    pub failed_calls: Counter,
    /// Events that Kubernetes accepted.
    pub events_sent: Counter,
    /// Events that were suppressed because they repeat within a minute.
    pub events_repeated: Counter,
    /// Events that were lost: the queue was full, or Kubernetes refused them.
    pub events_dropped: Counter,
}
