//! `etcd_server_*`.

use super::sources::{MemberSample, ProcessCounters};
use crate::{
    api::ETCD_VERSION,
    metrics::{Exposition, MetricKind},
    types::AlarmKind,
};

pub fn expose(text: &mut Exposition, now: Option<&MemberSample<'_>>, counts: &ProcessCounters) {
    let leader = now.and_then(|now| now.status.leader);
    let leads = now.is_some_and(|now| leader == Some(now.header.member));
    text.gauge(
        "etcd_server_has_leader",
        "Whether there is a leader, in contact with a quorum.",
        leader.is_some(),
    );
    text.gauge("etcd_server_is_leader", "Whether this member is that leader.", leads);
    text.counter(
        "etcd_server_health_success",
        "Answers of /readyz that said: ready.",
        counts.health_success.get(),
    );
    text.counter(
        "etcd_server_health_failures",
        "Answers of /readyz that said: not ready.",
        counts.health_failures.get(),
    );
    versions(text);
    if let Some(now) = now {
        identity(text, now);
        leadership(text, now);
        proposals(text, now);
        reads(text, now);
    }
}

fn versions(text: &mut Exposition) {
    let help = "The etcd whose API this is.";
    text.family("etcd_server_version", MetricKind::Gauge, help)
        .sample(&[("server_version", ETCD_VERSION)], true);
    let minor = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    text.family("etcd_cluster_version", MetricKind::Gauge, help)
        .sample(&[("cluster_version", minor)], true);
}

fn identity(text: &mut Exposition, now: &MemberSample<'_>) {
    let me = now.member_id();
    text.family("etcd_server_id", MetricKind::Gauge, "The member's id, in hexadecimal digits.")
        .sample(&[("server_id", &me)], true);
    text.gauge("etcd_server_is_learner", "Whether this member is a learner.", now.status.learner);
    text.gauge(
        "etcd_server_quota_backend_bytes",
        "Bound on the live bytes; writes beyond it are refused.",
        now.status.db_size_quota_bytes,
    );
    let help = "Raised alarms, by member.";
    let mut alarms = text.family("etcd_debugging_server_alarms", MetricKind::Gauge, help);
    for (member, alarm) in &now.status.alarms {
        let alarm = match alarm {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        alarms.sample(
            &[("alarm_type", alarm), ("server_id", &super::sources::etcd_id(*member))],
            true,
        );
    }
}

fn leadership(text: &mut Exposition, now: &MemberSample<'_>) {
    let consensus = now.node().raft().metrics();
    text.counter(
        "etcd_server_leader_changes_seen_total",
        "Leader changes that this member has seen.",
        consensus.leader_changes.get(),
    );
    text.counter(
        "etcd_server_heartbeat_send_failures_total",
        "As the leader: heartbeats sent more than an interval late (slow disk or machine).",
        consensus.late_heartbeats.get(),
    );
    text.counter(
        "etcd_server_learner_promote_successes",
        "As the leader: learners that became voters.",
        consensus.promoted.get(),
    );
    let help = "As the leader: learners that could not be made voters.";
    text.family("etcd_server_learner_promote_failures", MetricKind::Counter, help)
        .sample(&[("Reason", "not committed")], consensus.not_promoted.get());
}

fn proposals(text: &mut Exposition, now: &MemberSample<'_>) {
    let (node, consensus) = (now.node(), now.node().raft().metrics());
    text.gauge(
        "etcd_server_proposals_committed_total",
        "The last log entry that this member knows to be committed.",
        node.raft().committed_index().unwrap_or(0),
    );
    text.gauge(
        "etcd_server_proposals_applied_total",
        "The last log entry that this member has applied.",
        now.status.applied_index,
    );
    text.gauge(
        "etcd_server_proposals_pending",
        "Writes of this member's clients in flight.",
        node.pending_proposals(),
    );
    text.counter(
        "etcd_server_proposals_failed_total",
        "Writes of this member's clients that failed or whose outcome is unknown.",
        node.metrics().proposals_failed.get(),
    );
    text.counter(
        "etcd_server_slow_apply_total",
        "Chunks of entries, and reads from disk, that took longer than 100 ms.",
        consensus.slow_applies.get() + node.metrics().slow_reads.get(),
    );
    text.gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        "Whether a snapshot of another member is being installed.",
        consensus.installing.get(),
    );
}

fn reads(text: &mut Exposition, now: &MemberSample<'_>) {
    let metrics = now.node().metrics();
    text.counter(
        "etcd_server_slow_read_indexes_total",
        "Read indexes that were not confirmed in time and requested again.",
        metrics.slow_read_indexes.get(),
    );
    text.counter(
        "etcd_server_read_indexes_failed_total",
        "Rounds of linearizable reads that got no read index.",
        metrics.read_indexes_failed.get(),
    );
    let help = "Time to read a range, without the wait for the read index.";
    let mut ranges = text.family("etcd_server_range_duration_seconds", MetricKind::Histogram, help);
    ranges.histogram(&[("success", "true")], &metrics.range_duration);
    ranges.histogram(&[("success", "false")], &metrics.failed_range_duration);
}
