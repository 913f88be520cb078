//! `etcd_mvcc_*` and `etcd_debugging_mvcc_*`.

use super::sources::MemberSample;
use crate::{metrics::Exposition, types::Revision};

pub fn expose(text: &mut Exposition, now: &MemberSample<'_>) {
    sizes(text, now);
    operations(text, now);
    revisions(text, now);
    compaction(text, now);
    text.histogram(
        "etcd_mvcc_hash_rev_duration_seconds",
        "Time to hash all keys.",
        &now.node().metrics().hash_duration,
    );
}

fn sizes(text: &mut Exposition, now: &MemberSample<'_>) {
    let view = now.node().raft().view();
    text.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Bytes on disk, without the log.",
        now.status.db_size_bytes,
    );
    text.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Of these, the bytes that live records and tables need.",
        now.status.db_size_in_use_bytes,
    );
    text.gauge("etcd_mvcc_db_open_read_transactions", "Reads in progress.", view.open_reads());
    text.gauge("etcd_debugging_mvcc_keys_total", "Keys that exist.", view.keys());
}

fn operations(text: &mut Exposition, now: &MemberSample<'_>) {
    let applied = &now.node().raft().metrics().operations;
    let read = now.node().metrics();
    text.counter("etcd_mvcc_put_total", "Puts applied.", applied.puts.get());
    text.counter("etcd_mvcc_delete_total", "Range deletions applied.", applied.deletes.get());
    text.counter(
        "etcd_mvcc_range_total",
        "Ranges read by this member, also in transactions.",
        applied.ranges.get() + read.ranges.get(),
    );
    text.counter(
        "etcd_mvcc_txn_total",
        "Transactions of more than one operation.",
        applied.txns.get() + read.read_txns.get(),
    );
}

fn revisions(text: &mut Exposition, now: &MemberSample<'_>) {
    let Revision(revision) = now.header.revision;
    let Revision(compacted) = now.node().raft().view().compacted();
    text.gauge("etcd_debugging_mvcc_current_revision", "The revision of the store.", revision);
    text.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The last compacted revision; -1 if nothing was ever compacted.",
        compacted,
    );
}

fn compaction(text: &mut Exposition, now: &MemberSample<'_>) {
    let consensus = now.node().raft().metrics();
    text.counter(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Records that compactions removed.",
        consensus.compacted_records.get(),
    );
    let last = consensus.last_compaction().map_or(0, |ago| now.time.saturating_sub(ago).as_secs());
    text.gauge(
        "etcd_debugging_mvcc_db_compaction_last",
        "End of the last compaction, in seconds since 1970; zero: none since the start.",
        last,
    );
    text.histogram(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "Time that one step of a compaction blocked the apply lane.",
        &consensus.compaction_step,
    );
    text.histogram(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Time from the first step of a compaction to its last.",
        &consensus.compaction,
    );
}
