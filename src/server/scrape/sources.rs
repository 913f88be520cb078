//! The sources of the metrics, and their values at the time of a scrape.

use std::{sync::Arc, time::Duration};

use crate::{
    metrics::Counter,
    node::{Header, Node, NodePort, Status},
    peer::PeerMetrics,
    server::{connections::ConnectionCounters, grpc::calls::CallMetrics},
    storage::StorageMetrics,
    types::MemberId,
    watch::Watches,
};

/// The sources of a running member's metrics.
#[derive(Debug)]
pub struct MetricSources {
    pub node: Node,
    pub storage: Arc<StorageMetrics>,
    pub peers: Arc<PeerMetrics>,
    pub watches: Watches,
}

/// Counters of the process, which exist before its volume is a member.
#[derive(Debug, Default)]
pub struct ProcessCounters {
    pub calls: CallMetrics,
    pub connections: PortCounters,
    pub health_success: Counter,
    pub health_failures: Counter,
    pub rebuilt_tables: Counter,
}

/// Counters of each port's connections.
#[derive(Debug, Default)]
pub struct PortCounters {
    pub client: Arc<ConnectionCounters>,
    pub peer: Arc<ConnectionCounters>,
    pub admin: Arc<ConnectionCounters>,
}

/// A running member at the time of the scrape.
pub struct MemberSample<'a> {
    pub sources: &'a MetricSources,
    pub header: Header,
    pub status: Status,
    /// The time of day, since 1970-01-01 UTC.
    pub time: Duration,
}

impl MemberSample<'_> {
    pub fn take(sources: &MetricSources, time: Duration) -> MemberSample<'_> {
        let (header, status) = (sources.node.header(), sources.node.status());
        MemberSample { sources, header, status, time }
    }

    pub fn node(&self) -> &Node {
        &self.sources.node
    }

    pub fn member_id(&self) -> String {
        etcd_id(self.header.member)
    }
}

/// An id in etcd's notation.
pub fn etcd_id(member: MemberId) -> String {
    format!("{:x}", member.0)
}
