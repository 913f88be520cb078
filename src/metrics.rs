//! What a member counts and measures, under etcd's names where etcd has one, else `ordinal_…`.

use prometheus_client::{encoding::text::encode, metrics::gauge::Gauge, registry::Registry};

use crate::node::{Header, Status};

/// The state of a member at the moment of a scrape, in Prometheus' text format.
pub fn render(
    now: Option<(&Header, &Status)>,
    rebuilt_tables: u64,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    gauge("ordinal_tables_rebuilt", "Tables set aside and rebuilt at start", rebuilt_tables);
    gauge(
        "ordinal_member_running",
        "Whether this volume is a running member",
        now.is_some().into(),
    );
    if let Some((header, status)) = now {
        let leads = status.leader == Some(header.member);
        gauge(
            "etcd_server_has_leader",
            "Whether a leader is known",
            status.leader.is_some().into(),
        );
        gauge("etcd_server_is_leader", "Whether this member leads", leads.into());
        gauge("etcd_server_is_learner", "Whether this member is a learner", status.learner.into());
        gauge("etcd_server_quota_backend_bytes", "Quota of live bytes", status.db_size_quota_bytes);
        gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes on disk", status.db_size_bytes);
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes on disk that live records need",
            status.db_size_in_use_bytes,
        );
        gauge("ordinal_raft_term", "Current term", status.term.0);
        gauge("ordinal_raft_last_index", "Last entry in the log", status.raft_index);
        gauge("ordinal_raft_applied_index", "Last entry applied", status.applied_index);
        let revision = u64::try_from(header.revision.0).unwrap_or(0);
        gauge("etcd_debugging_mvcc_current_revision", "Revision of the store", revision);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MemberId, Revision};

    #[test]
    fn a_leader_says_that_it_leads() {
        let header = Header { member: MemberId(3), revision: Revision(9), ..Header::default() };
        let status = Status { leader: Some(MemberId(3)), ..Status::default() };
        let text = render(Some((&header, &status)), 0).unwrap();
        assert!(text.contains("\netcd_server_is_leader 1\n"), "{text}");
        assert!(text.contains("\netcd_debugging_mvcc_current_revision 9\n"), "{text}");
    }

    #[test]
    fn a_volume_that_is_no_member_yet_has_metrics_too() {
        let text = render(None, 0).unwrap();
        assert!(text.contains("\nordinal_member_running 0\n"), "{text}");
    }
}
