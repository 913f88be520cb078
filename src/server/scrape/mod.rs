//! What a scrape of `/metrics` shows: the one place that knows which of our numbers is which of
//! etcd's. Names, types, labels and units are etcd's where etcd has the same thing; what only we have
//! begins with `ordinal_`. `docs/metrics.md` lists all of them, and what we lack.
//!
//! ```text
//! server    etcd_server_*: leadership, proposals, reads, health
//! disk      etcd_disk_*, etcd_snap_*: the log and the storage
//! mvcc      etcd_mvcc_*, etcd_debugging_mvcc_*: keys and revisions
//! streams   watches and leases
//! network   etcd_network_peer_*, etcd_network_snapshot_*: the other members
//! own       ordinal_*
//! process   process_*: what the kernel says of the process
//! ```
//! The calls of clients are in [`super::calls`]. Each layer counts in its own words
//! ([`crate::metrics`]); nothing here is counted, and no value is made up: a family whose numbers
//! nobody has yet is left out.

mod disk;
mod mvcc;
mod network;
mod own;
mod process;
mod server;
mod streams;

use std::{sync::Arc, time::Duration};

pub(super) use process::Process;

use super::calls::Calls;
use crate::{
    metrics::{Counter, Exposition},
    node::{Header, Node, NodePort, Status},
    peer::PeerMetrics,
    storage::StorageMetrics,
    types::MemberId,
    watch::Watches,
};

/// Where the numbers of a running member are.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) node: Node,
    pub(super) storage: Arc<StorageMetrics>,
    pub(super) peers: Arc<PeerMetrics>,
    pub(super) watches: Watches,
}

/// What the process counts, also while its volume is no member yet.
#[derive(Debug, Default)]
pub(super) struct ProcessCounts {
    pub(super) calls: Calls,
    pub(super) health_success: Counter,
    pub(super) health_failures: Counter,
    pub(super) rebuilt_tables: Counter,
}

/// A running member at the moment of the scrape.
struct Now<'a> {
    sources: &'a Sources,
    header: Header,
    status: Status,
    /// Since 1970-01-01 UTC.
    time: Duration,
}

impl Now<'_> {
    fn node(&self) -> &Node {
        &self.sources.node
    }

    fn me(&self) -> String {
        id(self.header.member)
    }
}

/// An id as etcd writes it.
fn id(member: MemberId) -> String {
    format!("{:x}", member.0)
}

/// The whole text. `time` is the time of day.
pub(super) fn render(
    sources: Option<&Sources>,
    counts: &ProcessCounts,
    process: &Process,
    time: Duration,
) -> String {
    let now = sources.map(|sources| Now {
        sources,
        header: sources.node.header(),
        status: sources.node.status(),
        time,
    });
    let mut text = Exposition::default();
    server::show(&mut text, now.as_ref(), counts);
    if let Some(now) = &now {
        disk::show(&mut text, now);
        mvcc::show(&mut text, now);
        streams::show(&mut text, now);
        network::show(&mut text, now);
    }
    counts.calls.show(&mut text);
    own::show(&mut text, now.as_ref(), counts);
    process.show(&mut text);
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_is_no_member_yet_has_no_leader() {
        let text = render(None, &ProcessCounts::default(), &Process::default(), Duration::ZERO);
        assert!(text.contains("\nordinal_member_running 0\n"), "{text}");
        assert!(text.contains("\netcd_server_has_leader 0\n"), "{text}");
    }
}
