//! The difference between two samples, as text. Pure.

use std::collections::BTreeSet;

use super::samples::{MemberSample, Metrics, Sample};
use crate::ctl::gotext;

/// A cluster, ready to be drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterView {
    pub cluster: String,
    pub summary: String,
    pub rows: Vec<MemberRow>,
    /// Missing data, with the reason.
    pub notes: Vec<String>,
}

/// A member: cells in the order of [`COLUMNS`], and lines of details.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberRow {
    pub cells: [String; COLUMNS.len()],
    pub health: Health,
    pub details: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Healthy,
    Leader,
    /// It answers with errors, or knows no leader.
    Unhealthy,
    Unreachable,
}

/// A heading, and the rank in which the column is dropped for lack of space: the highest first, 0
/// never.
pub const COLUMNS: [(&str, u8); 16] = [
    ("MEMBER", 0),
    ("ID", 9),
    ("ROLE", 0),
    ("ENDPOINT", 5),
    ("VERSION", 8),
    ("TERM", 6),
    ("INDEX", 7),
    ("APPLIED", 2),
    ("LAG", 0),
    ("DB", 1),
    ("IN USE", 4),
    ("QUOTA", 10),
    ("PUTS/S", 0),
    ("READS/S", 0),
    ("EVENTS/S", 3),
    ("WATCHES", 1),
];

/// Counters, under their names in different versions.
const PUTS: &[&str] = &["etcd_mvcc_put_total", "etcd_debugging_mvcc_put_total"];
const READS: &[&str] = &["etcd_mvcc_range_total", "etcd_debugging_mvcc_range_total"];
const EVENTS: &[&str] = &["etcd_debugging_mvcc_events_total"];
const WATCHES: &[&str] = &["etcd_debugging_mvcc_watcher_total"];

/// A missing value.
const UNKNOWN: &str = "-";

/// Compares a sample with the one before.
pub fn of(before: Option<&Sample>, now: &Sample) -> ClusterView {
    let rates: Vec<Rates> =
        now.members.iter().map(|member| Rates::of(before, now, member)).collect();
    let statuses = || now.members.iter().filter_map(|member| member.status.as_ref().ok());
    // As in `doctor`: if members disagree, the newest term counts.
    let newest =
        statuses().filter(|status| status.leader != 0).max_by_key(|status| status.raft_term);
    let leader = newest.map(|status| status.leader);
    let leads = leader.and_then(|id| now.members.iter().find(|member| member.id == id));
    // The leader's log is the longest; without a leader, take the longest of all.
    let index =
        leads.and_then(|member| member.status.as_ref().ok()).map(|status| status.raft_index);
    let index = index.or_else(|| statuses().map(|status| status.raft_index).max());
    let rows = now.members.iter().zip(&rates);
    ClusterView {
        cluster: cluster(now, leads),
        summary: summary(now, &rates),
        rows: rows.map(|(member, rates)| row(member, rates, leader, index)).collect(),
        notes: notes(now),
    }
}

fn cluster(now: &Sample, leader: Option<&MemberSample>) -> String {
    let status = now.members.iter().filter_map(|member| member.status.as_ref().ok());
    let newest = status.max_by_key(|status| status.raft_term);
    let header = newest.and_then(|status| status.header).unwrap_or_default();
    let answering = now.members.iter().filter(|member| member.status.is_ok()).count();
    let revision = now.members.iter().filter_map(|m| m.status.as_ref().ok()?.header);
    let revision = revision.map(|header| header.revision).max().unwrap_or_default();
    format!(
        "cluster {:x}   {answering} of {} members answer   leader {}   term {}   revision {revision}",
        header.cluster_id,
        now.members.len(),
        leader.map_or("none", |member| name(member)),
        newest.map_or(0, |status| status.raft_term),
    )
}

fn summary(now: &Sample, rates: &[Rates]) -> String {
    // Every member applies every put, so puts are not summed. Reads, events and watches are.
    let most = |of: fn(&Rates) -> Option<f64>| rates.iter().filter_map(of).reduce(f64::max);
    let sum = |of: fn(&Rates) -> Option<f64>| rates.iter().filter_map(of).reduce(|a, b| a + b);
    format!(
        "puts {}/s   reads {}/s   watch events {}/s   watches {}   leases {}   errors: {}",
        rate(most(|rates| rates.puts)),
        rate(sum(|rates| rates.reads)),
        rate(sum(|rates| rates.events)),
        count(sum(|rates| rates.watches)),
        count(now.leases.map(|leases| leases as f64)),
        errors(now),
    )
}

/// The errors of all members, including alarms, without duplicates.
fn errors(now: &Sample) -> String {
    let statuses = now.members.iter().filter_map(|member| member.status.as_ref().ok());
    let errors: BTreeSet<_> =
        statuses.flat_map(|status| &status.errors).map(String::as_str).collect();
    if errors.is_empty() { "none".into() } else { Vec::from_iter(errors).join(", ") }
}

fn notes(now: &Sample) -> Vec<String> {
    let list = now.member_list_error.iter().map(|error| format!("no list of members: {error}"));
    let missing: Vec<_> =
        now.members.iter().filter(|m| m.status.is_ok() && m.metrics.is_err()).collect();
    let metrics = missing.first().map(|member| {
        let names: Vec<_> = missing.iter().map(|member| name(member)).collect();
        let reason = member.metrics.as_ref().err().map_or("", |reason| reason);
        format!(
            "no rates of {}: pass the address of their metrics with --metrics ({reason})",
            names.join(", ")
        )
    });
    list.chain(metrics).collect()
}

/// Rates per second, and the number of watches.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    puts: Option<f64>,
    reads: Option<f64>,
    events: Option<f64>,
    watches: Option<f64>,
}

impl Rates {
    fn of(before: Option<&Sample>, now: &Sample, member: &MemberSample) -> Rates {
        let Ok(metrics) = &member.metrics else { return Rates::default() };
        let watches = metrics.any(WATCHES);
        let Some(before) = before else { return Rates { watches, ..Rates::default() } };
        let same =
            before.members.iter().find(|m| m.id == member.id && m.endpoint == member.endpoint);
        let Some(Ok(was)) = same.map(|member| &member.metrics) else {
            return Rates { watches, ..Rates::default() };
        };
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        // A restarted member counts from zero.
        let per_second = |names: &[&str], was: &Metrics| {
            Some((metrics.any(names)? - was.any(names)?).max(0.0) / seconds)
        };
        Rates {
            puts: per_second(PUTS, was),
            reads: per_second(READS, was),
            events: per_second(EVENTS, was),
            watches,
        }
    }
}

fn row(
    member: &MemberSample,
    rates: &Rates,
    leader: Option<u64>,
    leader_index: Option<u64>,
) -> MemberRow {
    let unknown = || String::from(UNKNOWN);
    let leads = leader == Some(member.id) && member.status.is_ok();
    let role = match (leads, member.learner) {
        (true, _) => "leader",
        (false, true) => "learner",
        (false, false) => "voter",
    };
    let of_rates = [rate(rates.puts), rate(rates.reads), rate(rates.events), count(rates.watches)];
    let [puts, reads, events, watches] = of_rates;
    let (id, endpoint) = (format!("{:x}", member.id), short(&member.endpoint));
    let cells = match &member.status {
        Err(_) => {
            let mut cells = [(); COLUMNS.len()].map(|()| unknown());
            cells[..4].clone_from_slice(&[name(member).into(), id, "away".into(), endpoint]);
            cells
        }
        Ok(status) => [
            name(member).into(),
            id,
            role.into(),
            endpoint,
            status.version.clone(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            leader_index
                .map_or_else(unknown, |i| i.saturating_sub(status.raft_applied_index).to_string()),
            size(status.db_size),
            size(status.db_size_in_use),
            if status.db_size_quota > 0 { size(status.db_size_quota) } else { unknown() },
            puts,
            reads,
            events,
            watches,
        ],
    };
    let health = match &member.status {
        Err(_) => Health::Unreachable,
        Ok(status) if !status.errors.is_empty() || status.leader == 0 => Health::Unhealthy,
        Ok(_) if leads => Health::Leader,
        Ok(_) => Health::Healthy,
    };
    MemberRow { cells, health, details: details(member) }
}

fn details(member: &MemberSample) -> Vec<String> {
    let mut lines = vec![format!("{}  id {:x}  {}", name(member), member.id, member.endpoint)];
    match &member.status {
        Err(error) => lines.push(format!("does not answer: {error}")),
        Ok(status) if status.errors.is_empty() => lines.push("no errors".into()),
        Ok(status) => lines.push(format!("errors: {}", status.errors.join(", "))),
    }
    lines.push(match &member.metrics {
        Ok(metrics) => format!("metrics from {}", metrics.url),
        Err(reason) => format!("no metrics: {reason}"),
    });
    lines
}

fn name(member: &MemberSample) -> &str {
    if member.name.is_empty() { &member.endpoint } else { &member.name }
}

fn short(endpoint: &str) -> String {
    endpoint.trim_start_matches("http://").into()
}

fn size(bytes: i64) -> String {
    gotext::size(bytes.max(0).unsigned_abs())
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.into(),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn count(count: Option<f64>) -> String {
    count.map_or_else(|| UNKNOWN.into(), |count| format!("{count:.0}"))
}
