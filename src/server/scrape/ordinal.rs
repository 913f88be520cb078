//! `ordinal_*`: families without a counterpart in etcd.

use super::sources::{MemberSample, PortCounters, ProcessCounters};
use crate::{
    metrics::{Exposition, MetricKind},
    wal::DiskSpace,
};

pub fn expose(text: &mut Exposition, now: Option<&MemberSample<'_>>, counts: &ProcessCounters) {
    text.gauge(
        "ordinal_tables_rebuilt",
        "1 if the start set damaged tables aside and rebuilt them from snapshot and log.",
        counts.rebuilt_tables.get(),
    );
    connections(text, &counts.connections);
    text.gauge(
        "ordinal_member_running",
        "1 once the volume is a running member; 0 while it forms, joins or recovers.",
        now.is_some(),
    );
    if let Some(now) = now {
        raft(text, now);
        log(text, now);
    }
}

fn connections(text: &mut Exposition, ports: &PortCounters) {
    let ports = [("client", &ports.client), ("peer", &ports.peer), ("admin", &ports.admin)];
    let help = "Open connections, by port.";
    let mut open = text.family("ordinal_connections", MetricKind::Gauge, help);
    for (port, counts) in ports {
        open.sample(&[("port", port)], counts.open());
    }
    let help = "Connections accepted, by port.";
    let mut accepted = text.family("ordinal_connections_accepted_total", MetricKind::Counter, help);
    for (port, counts) in ports {
        accepted.sample(&[("port", port)], counts.accepted.get());
    }
}

fn raft(text: &mut Exposition, now: &MemberSample<'_>) {
    let (raft, status) = (now.node().raft(), &now.status);
    text.gauge("ordinal_raft_term", "The current term.", status.term.0);
    text.gauge(
        "ordinal_raft_first_index",
        "The first entry in the log. A member that lacks an earlier one receives a snapshot.",
        raft.log().first_index(),
    );
    text.gauge("ordinal_raft_last_index", "The last entry in the log.", status.raft_index);
    text.gauge("ordinal_raft_applied_index", "The last applied entry.", status.applied_index);
    text.gauge(
        "ordinal_apply_lag_entries",
        "Entries that this member knows to be committed and has not applied.",
        raft.apply_lag(),
    );
    if let Some(age) = raft.quorum_age() {
        text.gauge(
            "ordinal_raft_quorum_contact_age_seconds",
            "Time since a quorum was last known to be in contact with the leader.",
            age.as_secs_f64(),
        );
    }
    let members = raft.members();
    let voters = members.iter().filter(|member| member.voter).count();
    let mut family = text.family("ordinal_members", MetricKind::Gauge, "Members of the cluster.");
    family.sample(&[("role", "voter")], voters);
    family.sample(&[("role", "learner")], members.len() - voters);
    text.histogram(
        "ordinal_apply_duration_seconds",
        "Time to apply a chunk of entries.",
        &raft.metrics().apply,
    );
}

fn log(text: &mut Exposition, now: &MemberSample<'_>) {
    let log = now.node().raft().log();
    text.gauge("ordinal_wal_size_bytes", "Size of the WAL on disk.", log.size());
    text.gauge(
        "ordinal_wal_space_low",
        "1 while the disk has no room for the next WAL segment; writes are refused.",
        *log.space().borrow() == DiskSpace::Low,
    );
}
