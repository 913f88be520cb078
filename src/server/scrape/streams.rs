//! Watches and leases: `etcd_debugging_mvcc_*watch*`, `etcd_debugging_lease_*`, and what is ours.

use super::Now;
use crate::metrics::{Exposition, Kind};

pub(super) fn show(text: &mut Exposition, now: &Now<'_>) {
    watches(text, now);
    leases(text, now);
}

fn watches(text: &mut Exposition, now: &Now<'_>) {
    let counters = now.sources.watches.counters();
    text.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Streams that watch through this member.",
        counters.streams.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Watches on these streams.",
        counters.watchers.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watches that read the history, or wait until their client reads.",
        counters.slow.get(),
    );
    text.counter(
        "etcd_debugging_mvcc_events_total",
        "Events sent, counted for each watch that got them.",
        counters.events_total.get(),
    );
    text.gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Events that wait to be sent, counted for each watch.",
        counters.pending_events.get(),
    );
    text.counter(
        "ordinal_watches_cut_off_total",
        "Watches that fell behind until what they missed was compacted.",
        counters.cut_off_total.get(),
    );
    text.gauge(
        "ordinal_watch_queued_bytes",
        "Bytes of events that wait to be sent.",
        counters.queued_bytes.get(),
    );
}

fn leases(text: &mut Exposition, now: &Now<'_>) {
    let counters = now.node().lease_counters();
    text.gauge("ordinal_leases", "Leases that live.", counters.live);
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
    text.family("etcd_debugging_lease_ttl_total", Kind::Histogram, help)
        .histogram(&[], now.node().lease_ttls());
}
