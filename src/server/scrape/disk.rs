//! `etcd_disk_*` and `etcd_snap_*`.

use super::sources::MemberSample;
use crate::metrics::Exposition;

pub fn expose(text: &mut Exposition, now: &MemberSample<'_>) {
    let wal = now.node().raft().log().metrics();
    text.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "Time of the log's fdatasync, one for each group commit.",
        &wal.sync,
    );
    text.histogram(
        "etcd_disk_wal_write_duration_seconds",
        "Time of the log's write, one for each group commit.",
        &wal.write,
    );
    text.gauge(
        "etcd_disk_wal_write_bytes_total",
        "Bytes written to the log.",
        wal.written_bytes.get(),
    );
    let storage = &now.sources.storage;
    text.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Time to write a round of changes: blocks synced, tables committed.",
        &storage.commit,
    );
    text.histogram(
        "etcd_debugging_snap_save_total_duration_seconds",
        "Time to make a snapshot.",
        &storage.snapshot_save,
    );
    text.histogram(
        "etcd_snap_fsync_duration_seconds",
        "Time to write and sync the file of a snapshot.",
        &storage.snapshot_sync,
    );
    text.histogram(
        "etcd_snap_db_save_total_duration_seconds",
        "Time to check and sync a snapshot that another member sent.",
        &storage.received_save,
    );
    text.histogram(
        "etcd_snap_db_fsync_duration_seconds",
        "Time to sync one file of a received snapshot.",
        &storage.received_sync,
    );
}
