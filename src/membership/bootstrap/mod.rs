//! From a pristine volume to a member: rounds of one observation and at most one step.
//!
//! A cluster is founded with [promises], or in Kubernetes with a [bootstrap record](founding), which is
//! then [confirmed](confirm). No pod founds against the [evidence] of a former cluster, unless an operator
//! [orders](order) it. Other volumes [join]. As a last resort, one volume [recovers](recover)
//! alone as a new cluster.
//!
//! Invariants ([state]):
//! - The identity changes under one lock, and is durable before any other member learns of it.
//! - Once a log is begun under an identity, the identity does not change.

mod confirm;
mod evidence;
mod founding;
mod join;
mod obstacle;
mod order;
mod promises;
mod recover;
mod round;
mod rpc;
mod state;

pub use founding::FOUNDER_TAKEOVER_TIMEOUT;
pub use order::FoundingOrderError;
pub use rpc::BootstrapRpc;
pub use state::{Bootstrap, BootstrapConfig, Bootstrapped};
