//! Watches and leases: `etcd_debugging_mvcc_*` and `etcd_debugging_lease_*`.

use super::Now;
use crate::metrics::{Exposition, Kind};

pub(super) fn show(text: &mut Exposition, now: &Now<'_>) {
    watches(text, now);
    leases(text, now);
}

fn watches(text: &mut Exposition, now: &Now<'_>) {
    let counters = now.sources.watches.counters();
    let mut gauge = |name, help, value: u64| text.gauge(name, help, value);
    gauge("etcd_debugging_mvcc_watch_stream_total", "Open streams.", counters.streams.get());
    gauge("etcd_debugging_mvcc_watcher_total", "Watches on them.", counters.watchers.get());
    gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watches that read history, or wait for their stream to have room.",
        counters.slow.get(),
    );
    gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Events that wait to be sent, once for each watch.",
        counters.pending_events.get(),
    );
    gauge(
        "ordinal_watch_queued_bytes",
        "Bytes that wait to be sent on all streams.",
        counters.queued_bytes.get(),
    );
    text.counter(
        "etcd_debugging_mvcc_events_total",
        "Events sent, once for each watch.",
        counters.events_total.get(),
    );
    text.counter(
        "ordinal_watch_cut_off_total",
        "Watches that fell behind until what they missed was compacted.",
        counters.cut_off_total.get(),
    );
}

fn leases(text: &mut Exposition, now: &Now<'_>) {
    let counters = now.node().lease_counters();
    let mut counter = |name, help, value: u64| text.counter(name, help, value);
    counter("etcd_debugging_lease_granted_total", "Leases granted.", counters.granted);
    counter("etcd_debugging_lease_revoked_total", "Leases revoked or expired.", counters.revoked);
    counter(
        "etcd_debugging_lease_renewed_total",
        "As the leader: leases kept alive.",
        counters.renewed,
    );
    counter(
        "etcd_debugging_server_lease_expired_total",
        "As the leader: leases that ended by themselves.",
        counters.expired,
    );
    let help = "The time to live of each granted lease, in seconds.";
    text.family("etcd_debugging_lease_ttl_total", Kind::Histogram, help)
        .histogram(&[], now.node().lease_ttls());
    text.gauge("ordinal_leases", "Leases that there are.", counters.live);
}
