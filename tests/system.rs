//! System tests: every test that starts a real `kvd` and uses it from outside.
//!
//! ```text
//! cluster       members are killed, stopped and damaged under load
//! differential  kvd and a real etcd answer the same requests
//! k8s           the shipped manifests in a real Kubernetes, under chaos
//! metrics       /metrics, log spans and traces of a running cluster
//! robustness    bad input, from the command line to the disk
//! wire          HTTP/2 frame by frame
//! support       processes, ports, retry, oracle
//! ```
//!
//! One of them: `cargo test --test system wire::`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::disallowed_methods, reason = "outside of the process, and so of its ports")]

mod cluster;
mod differential;
mod k8s;
mod metrics;
mod robustness;
mod support;
mod wire;
