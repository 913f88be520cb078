//! The composition root: wires everything together, and knows the order of start and stop.
//!
//! ```text
//! start: listeners → data directory → formation → wal → storage → raft → node → client API
//! stop:  not ready → hand over leadership → client API drains → peer streams end → node → raft
//!        → storage → wal
//! ```

mod adapters;
mod admin;
mod answers;
mod calls;
mod dev;
mod listen;
mod member;
#[cfg(feature = "otlp")]
mod otlp;
mod panics;
#[cfg(feature = "k8s")]
mod pod;
#[cfg(not(feature = "k8s"))]
#[path = "no_pod.rs"]
mod pod;
mod port;
mod scrape;
mod serve;
mod servers;
mod signals;
mod telemetry;

pub use dev::dev;
pub use member::{MemberConfig, Pod};
pub use panics::end_process_on_panic;
pub use serve::serve;
pub use servers::Ports;
pub use telemetry::{Telemetry, init as init_telemetry};
