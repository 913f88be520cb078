//! `etcd_network_peer_*` and `etcd_network_snapshot_*`. Followers exchange messages with the leader only, so
//! a member has traffic with the members that it led or followed.

use std::sync::Arc;

use super::sources::{MemberSample, etcd_id};
use crate::{
    metrics::{Counter, Exposition, Histogram, MetricKind, Number},
    peer::PeerTraffic,
    raft::PeerMetrics,
    types::MemberId,
};

pub fn expose(text: &mut Exposition, now: &MemberSample<'_>) {
    connections(text, now);
    traffic(text, &now.sources.peers.all());
    let peers = now.node().raft().metrics().peers.all();
    consensus(text, &peers);
    snapshots(text, &peers);
}

fn connections(text: &mut Exposition, now: &MemberSample<'_>) {
    let me = now.member_id();
    let peers = now.sources.peers.all();
    let help = "Whether a stream with that member is open.";
    let mut active = text.family("etcd_network_active_peers", MetricKind::Gauge, help);
    for (member, traffic) in &peers {
        active.sample(&[("Local", &me), ("Remote", &etcd_id(*member))], traffic.is_connected());
    }
    let help = "How often the last stream with that member ended.";
    let mut lost = text.family("etcd_network_disconnected_peers_total", MetricKind::Counter, help);
    for (member, traffic) in &peers {
        lost.sample(&[("Local", &me), ("Remote", &etcd_id(*member))], traffic.disconnects.get());
    }
    let help = "The members, this one too.";
    let mut known = text.family("etcd_network_known_peers", MetricKind::Gauge, help);
    for member in now.node().raft().members() {
        known.sample(&[("Local", &me), ("Remote", &etcd_id(member.member_ref.member))], true);
    }
}

/// Writes a family with one value for each peer.
fn per_peer<T>(
    text: &mut Exposition,
    (name, kind, help): (&str, MetricKind, &str),
    label: &str,
    peers: &[(MemberId, Arc<T>)],
    value: impl Fn(&T) -> Number,
) {
    let mut family = text.family(name, kind, help);
    for (member, of) in peers {
        family.sample(&[(label, &etcd_id(*member))], value(of));
    }
}

fn histogram_per_peer<T>(
    text: &mut Exposition,
    (name, help): (&str, &str),
    label: &str,
    peers: &[(MemberId, Arc<T>)],
    histogram: impl Fn(&T) -> &Histogram,
) {
    let mut family = text.family(name, MetricKind::Histogram, help);
    for (member, of) in peers {
        family.histogram(&[(label, &etcd_id(*member))], histogram(of));
    }
}

fn total(counter: &Counter) -> Number {
    counter.get().into()
}

fn traffic(text: &mut Exposition, peers: &[(MemberId, Arc<PeerTraffic>)]) {
    let counter = MetricKind::Counter;
    let family = ("etcd_network_peer_sent_bytes_total", counter, "Bytes of messages sent.");
    per_peer(text, family, "To", peers, |peer| total(&peer.sent_bytes));
    let family = ("etcd_network_peer_received_bytes_total", counter, "Bytes of messages received.");
    per_peer(text, family, "From", peers, |peer| total(&peer.received_bytes));
    let help = "Streams of that member that broke.";
    let family = ("etcd_network_peer_received_failures_total", counter, help);
    per_peer(text, family, "From", peers, |peer| total(&peer.receive_failures));
}

fn consensus(text: &mut Exposition, peers: &[(MemberId, Arc<PeerMetrics>)]) {
    let help = "Heartbeats, votes and batches of entries that got no answer.";
    let family = ("etcd_network_peer_sent_failures_total", MetricKind::Counter, help);
    per_peer(text, family, "To", peers, |peer| total(&peer.send_failures));
    let help = "As the leader: from a heartbeat to its answer.";
    let family = ("etcd_network_peer_round_trip_time_seconds", help);
    histogram_per_peer(text, family, "To", peers, |peer| &peer.round_trip);
}

fn snapshots(text: &mut Exposition, peers: &[(MemberId, Arc<PeerMetrics>)]) {
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    let family = ("etcd_network_snapshot_send_success", counter, "Snapshots sent.");
    per_peer(text, family, "To", peers, |peer| total(&peer.sent.succeeded));
    let family = ("etcd_network_snapshot_send_failures", counter, "Snapshots not sent to the end.");
    per_peer(text, family, "To", peers, |peer| total(&peer.sent.failed));
    let family = ("etcd_network_snapshot_send_inflights_total", gauge, "Snapshots being sent.");
    per_peer(text, family, "To", peers, |peer| peer.sent.under_way.get().into());
    let family =
        ("etcd_network_snapshot_send_total_duration_seconds", "How long sending one took.");
    histogram_per_peer(text, family, "To", peers, |peer| &peer.sent.took);

    let family = ("etcd_network_snapshot_receive_success", counter, "Snapshots received.");
    per_peer(text, family, "From", peers, |peer| total(&peer.received.succeeded));
    let help = "Snapshots not received to the end.";
    let family = ("etcd_network_snapshot_receive_failures", counter, help);
    per_peer(text, family, "From", peers, |peer| total(&peer.received.failed));
    let help = "Snapshots being received.";
    let family = ("etcd_network_snapshot_receive_inflights_total", gauge, help);
    per_peer(text, family, "From", peers, |peer| peer.received.under_way.get().into());
    let help = "How long receiving and installing one took.";
    let family = ("etcd_network_snapshot_receive_total_duration_seconds", help);
    histogram_per_peer(text, family, "From", peers, |peer| &peer.received.took);
}
