//! Watches and leases: `etcd_debugging_mvcc_*watch*`, `etcd_debugging_lease_*`, and our own.

use super::sources::MemberSample;
use crate::metrics::{Exposition, MetricKind};

pub fn expose(text: &mut Exposition, now: &MemberSample<'_>) {
    watches(text, now);
    leases(text, now);
}

fn watches(text: &mut Exposition, now: &MemberSample<'_>) {
    let counters = now.sources.watches.counters();
    text.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Open watch streams of this member.",
        counters.streams.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Watches on these streams.",
        counters.watchers.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Unsynced watches: those that read the history or wait for their client to read.",
        counters.slow_watchers.get(),
    );
    text.counter(
        "etcd_debugging_mvcc_events_total",
        "Events sent, once for each watch that received them.",
        counters.events_total.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Events queued for sending, once for each watch.",
        counters.pending_events.get(),
    );
    text.counter(
        "ordinal_watches_compacted_total",
        "Watches canceled because the revision they needed was compacted.",
        counters.compacted_total.get(),
    );
    text.gauge(
        "ordinal_watch_queued_bytes",
        "Bytes of events queued for watch streams or in flight on them.",
        counters.queued_bytes.get(),
    );
}

fn leases(text: &mut Exposition, now: &MemberSample<'_>) {
    let counters = now.node().lease_counters();
    text.gauge("ordinal_leases", "Leases that exist.", counters.live);
    text.counter("etcd_debugging_lease_granted_total", "Leases granted.", counters.granted);
    text.counter(
        "etcd_debugging_lease_revoked_total",
        "Leases that ended, by a client or by time.",
        counters.revoked,
    );
    text.counter(
        "etcd_debugging_lease_renewed_total",
        "Renewals by this member as the leader.",
        counters.renewed,
    );
    text.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases whose time was over while this member led.",
        counters.expired,
    );
    let help = "The time to live of each lease that was granted, in seconds.";
    text.family("etcd_debugging_lease_ttl_total", MetricKind::Histogram, help)
        .histogram(&[], now.node().lease_ttls());
}
