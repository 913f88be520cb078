//! Writes the response to a scrape of `/metrics`. This module alone maps our counters to etcd's metric
//! families. A family that etcd also has keeps etcd's name, type, labels and unit; our own begin with
//! `ordinal_`. `docs/metrics.md` lists all families, and those that are absent.
//!
//! ```text
//! server    etcd_server_*: leadership, proposals, reads, health
//! disk      etcd_disk_*, etcd_snap_*: the log and the storage
//! mvcc      etcd_mvcc_*, etcd_debugging_mvcc_*: keys and revisions
//! streams   watches and leases
//! network   etcd_network_peer_*, etcd_network_snapshot_*: the other members
//! ordinal   ordinal_*
//! process   process_*: the kernel's numbers of the process
//! ```
//! Client calls are in [`super::grpc::calls`]. Each layer counts with the instruments of
//! [`crate::metrics`]; this module counts nothing, and omits a family that has no value yet.

mod disk;
mod mvcc;
mod network;
mod ordinal;
mod process;
mod server;
mod sources;
mod streams;

use std::time::Duration;

pub use process::Process;
pub use sources::{MetricSources, PortCounters, ProcessCounters};

use self::sources::MemberSample;
use crate::metrics::Exposition;

/// The whole response. `time` is the time of day.
pub fn render(
    sources: Option<&MetricSources>,
    counts: &ProcessCounters,
    process: &Process,
    time: Duration,
) -> String {
    let now = sources.map(|sources| MemberSample::take(sources, time));
    let mut text = Exposition::default();
    server::expose(&mut text, now.as_ref(), counts);
    if let Some(now) = &now {
        disk::expose(&mut text, now);
        mvcc::expose(&mut text, now);
        streams::expose(&mut text, now);
        network::expose(&mut text, now);
    }
    counts.calls.expose(&mut text);
    ordinal::expose(&mut text, now.as_ref(), counts);
    process.expose(&mut text);
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_is_not_a_member_yet_has_no_leader() {
        let text = render(None, &ProcessCounters::default(), &Process::default(), Duration::ZERO);
        assert!(text.contains("\nordinal_member_running 0\n"), "{text}");
        assert!(text.contains("\netcd_server_has_leader 0\n"), "{text}");
    }
}
