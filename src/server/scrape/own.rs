//! `ordinal_*`: what etcd has no name for.

use super::{Now, ProcessCounts};
use crate::{
    metrics::{Exposition, Kind},
    wal::Space,
};

pub(super) fn show(text: &mut Exposition, now: Option<&Now<'_>>, counts: &ProcessCounts) {
    text.gauge(
        "ordinal_tables_rebuilt",
        "Tables set aside and rebuilt at start.",
        counts.rebuilt_tables.get(),
    );
    text.gauge("ordinal_member_running", "Whether this volume is a running member.", now.is_some());
    if let Some(now) = now {
        raft(text, now);
        log(text, now);
    }
}

fn raft(text: &mut Exposition, now: &Now<'_>) {
    let (raft, status) = (now.node().raft(), &now.status);
    text.gauge("ordinal_raft_term", "The present term.", status.term.0);
    text.gauge(
        "ordinal_raft_first_index",
        "The first entry still in the log: who lacks an earlier one needs a snapshot.",
        raft.log().first_index(),
    );
    text.gauge("ordinal_raft_last_index", "The last entry in the log.", status.raft_index);
    text.gauge("ordinal_raft_applied_index", "The last entry applied.", status.applied_index);
    text.gauge(
        "ordinal_raft_lag_entries",
        "Entries known to be committed and not applied here.",
        raft.lag(),
    );
    if let Some(age) = raft.quorum_age() {
        text.gauge(
            "ordinal_raft_quorum_age_seconds",
            "Since a majority was last known to follow the leader.",
            age.as_secs_f64(),
        );
    }
    let members = raft.members();
    let voters = members.iter().filter(|member| member.voter).count();
    let mut family = text.family("ordinal_members", Kind::Gauge, "Members of the cluster.");
    family.sample(&[("role", "voter")], voters);
    family.sample(&[("role", "learner")], members.len() - voters);
    text.histogram(
        "ordinal_apply_duration_seconds",
        "How long a chunk of entries took to apply.",
        &raft.metrics().apply,
    );
}

fn log(text: &mut Exposition, now: &Now<'_>) {
    let log = now.node().raft().log();
    text.gauge("ordinal_wal_size_bytes", "Bytes of the log on disk.", log.size());
    text.gauge(
        "ordinal_wal_space_low",
        "Whether the disk has no room for the next segment of the log: writes are refused.",
        *log.space().borrow() == Space::Low,
    );
}
