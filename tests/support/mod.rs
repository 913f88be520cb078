//! Shared by all system tests: processes, ports, and the checks of a history.
//!
//! ```text
//! retry     runs the body of a test, and once more after a failure
//! ports     TCP ports on which nothing listens
//! kvd       a `kvd` process
//! grpc      one request, without the library's own client
//! http      GET requests to an admin port
//! http2     HTTP/2 frames written by hand
//! rng       pseudo-random numbers from a seed that is printed
//! oracle    attempted writes and their outcomes
//! workload  requests that the oracle records or checks
//! history   checks a history of versions against the oracle
//! ```

pub mod grpc;
pub mod history;
pub mod http;
pub mod http2;
pub mod kvd;
pub mod oracle;
pub mod ports;
pub mod retry;
pub mod rng;
pub mod workload;

use std::time::Duration;

/// Bound on every wait for a process. All tests together may share one busy core.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two checks of a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);
