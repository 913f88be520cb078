//! What the conversation with Kubernetes counts.

use crate::metrics::Counter;

/// One member's numbers since it started.
#[derive(Debug, Default)]
pub struct KubernetesMetrics {
    /// Requests to the API server.
    pub calls: Counter,
    /// Those without an answer that can be used: unreachable, refused, not understood. A conflict is none.
    pub failed_calls: Counter,
    /// Events that Kubernetes took.
    pub events_said: Counter,
    /// News that was left out because it had been said within the last minute.
    pub events_repeated: Counter,
    /// News that was lost: too much waited, or Kubernetes would not have it.
    pub events_dropped: Counter,
}
