//! The findings that follow from the members' responses. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    probe::{Facts, Probe},
    report::{Finding, HealthReport},
};
use crate::{
    client::ClientError,
    ctl::{cluster::tolerated, gotext::size},
    proto::{cluster_admin::ClusterReply, etcdserverpb::AlarmType},
};

/// Clocks may differ by this. Ordinal's guarantees do not depend on clocks; certificates and logs do.
const CLOCK_SKEW_MAX_MS: i64 = 1000;
/// A slower WAL slows every write down, and makes elections likely.
const FSYNC_P99_MAX_US: u64 = 50_000;
/// More entries are more than a moment's lag.
const LAG_MAX_ENTRIES: u64 = 5000;
const QUOTA_WARNING_PERCENT: i64 = 80;

const CHECKS: [fn(&Facts) -> Vec<Finding>; 13] = [
    unreachable_members,
    several_clusters,
    missing_leader,
    members_out_of_contact,
    lagging_members,
    blocked_membership_change,
    clock_skew,
    disks,
    quotas,
    alarms,
    version_mix,
    differing_contents,
    fault_tolerance,
];

pub fn report(facts: &Facts) -> HealthReport {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(facts)).collect();
    findings.sort_by_key(|finding| !finding.problem);
    let summary = summary(facts, &findings);
    HealthReport { summary, findings }
}

fn summary(facts: &Facts, findings: &[Finding]) -> String {
    let (answer, all) = (facts.answering().count(), facts.probes.len());
    let leader = match facts.leader() {
        Some(id) => format!("leader {}", facts.name(id)),
        None => "no leader".into(),
    };
    let problems = match findings.iter().filter(|f| f.problem).count() {
        0 => "no problems".into(),
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    };
    format!("{answer} of {all} members answer; {leader}; {problems}")
}

impl Facts {
    fn answering(&self) -> impl Iterator<Item = &Probe> {
        self.probes.iter().filter(|probe| probe.status.is_ok())
    }

    /// The leader of the newest term that a member knows.
    fn leader(&self) -> Option<u64> {
        let statuses = self.answering().filter_map(|probe| probe.status.as_ref().ok());
        statuses.filter(|s| s.leader != 0).max_by_key(|s| s.raft_term).map(|s| s.leader)
    }

    /// The leader's view of the cluster; without one, a member's.
    fn cluster(&self) -> Option<&ClusterReply> {
        let views = || self.probes.iter().filter_map(|probe| probe.cluster.as_ref());
        views().find(|reply| reply.leading.is_some()).or_else(|| views().next())
    }

    fn name(&self, id: u64) -> String {
        let listed = self.members.iter().find(|m| m.id == id).map(|m| m.name.clone());
        listed.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("member {id:x}"))
    }

    fn is_in_kubernetes(&self) -> bool {
        self.cluster().is_some_and(|reply| reply.follows_pods)
    }

    fn is_in_contact_with_leader(&self, id: u64) -> bool {
        let members = self.cluster().map(|reply| &reply.members[..]).unwrap_or_default();
        members.iter().any(|m| m.member_id == id && m.in_contact == Some(true))
    }
}

impl Probe {
    fn display_name(&self) -> &str {
        if self.name.is_empty() { &self.endpoint } else { &self.name }
    }
}

fn problem(check: &'static str, message: String, advice: impl Into<String>) -> Finding {
    Finding { check, problem: true, message, advice: advice.into() }
}

fn note(check: &'static str, message: String, advice: impl Into<String>) -> Finding {
    Finding { problem: false, ..problem(check, message, advice) }
}

fn unreachable_members(facts: &Facts) -> Vec<Finding> {
    let failed =
        facts.probes.iter().filter_map(|probe| Some((probe, probe.status.as_ref().err()?)));
    let mut found: Vec<Finding> =
        failed.map(|(probe, error)| unreachable(facts, probe, error)).collect();
    let never_started = facts.members.iter().filter(|m| m.client_ur_ls.is_empty());
    found.extend(never_started.map(|member| {
        problem(
            "member_not_started",
            format!(
                "member {:x} was added ({}) and has never started",
                member.id,
                member.peer_ur_ls.join(",")
            ),
            format!(
                "Start a member with that ordinal, or remove the entry: kvctl member remove {:x}",
                member.id
            ),
        )
    }));
    found
}

fn unreachable(facts: &Facts, probe: &Probe, error: &ClientError) -> Finding {
    let (name, endpoint) = (probe.display_name(), &probe.endpoint);
    if is_unknown_name(error) {
        return problem(
            "name_unknown",
            format!("{name}: DNS does not resolve {endpoint}"),
            "In Kubernetes: check that the pod exists (kubectl get pods), and that the headless Service \
             exists, selects the pod and has publishNotReadyAddresses. Names of the cluster do not \
             resolve outside of it: run kvctl in a pod, or pass reachable --endpoints.",
        );
    }
    if facts.is_in_contact_with_leader(probe.id) {
        return note(
            "unreachable_from_here",
            format!(
                "{name} does not answer kvctl at {endpoint}, and is in contact with the leader: {error}"
            ),
            "Its advertised address (--advertise-client-urls) is not reachable from here.",
        );
    }
    problem(
        "member_silent",
        format!("{name} does not answer: {error}"),
        "Check its process (kubectl get pods) and its log. It catches up by itself once it is back; if \
         its volume is lost, start it with an empty one.",
    )
}

fn is_unknown_name(error: &ClientError) -> bool {
    let ClientError::Unreachable(all) = error else { return false };
    all.iter().any(|one| one.reason.contains("lookup address") || one.reason.contains("dns error"))
}

/// A client that uses endpoints of several clusters writes to one of them at random.
fn several_clusters(facts: &Facts) -> Vec<Finding> {
    let mut clusters: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for probe in facts.answering() {
        let header = probe.status.as_ref().ok().and_then(|status| status.header);
        let cluster_id = header.unwrap_or_default().cluster_id;
        clusters.entry(cluster_id).or_default().push(probe.display_name());
    }
    if clusters.len() < 2 {
        return vec![];
    }
    let list: Vec<String> =
        clusters.iter().map(|(id, names)| format!("{id:x} ({})", names.join(", "))).collect();
    vec![problem(
        "several_clusters",
        format!("the endpoints belong to {} clusters: {}", clusters.len(), list.join(", ")),
        "Remove the endpoints of other clusters from --endpoints, or from the Service.",
    )]
}

fn missing_leader(facts: &Facts) -> Vec<Finding> {
    if facts.answering().next().is_none() {
        let error = facts.member_list_error.as_ref();
        let error = error.map_or(String::new(), |error| format!(": {error}"));
        return vec![problem("nobody_answers", format!("no member answers{error}"), "")];
    }
    if facts.leader().is_none() {
        return vec![no_leader(facts)];
    }
    let followers = facts.answering();
    let lost = followers.filter(|probe| probe.status.as_ref().is_ok_and(|s| s.leader == 0));
    lost.map(|probe| {
        problem(
            "no_leader",
            format!("{} knows no leader, and other members do", probe.display_name()),
            "Peer traffic between it and the leader is blocked in at least one direction: check \
             NetworkPolicy, firewall and DNS.",
        )
    })
    .collect()
}

fn no_leader(facts: &Facts) -> Finding {
    let voters = facts.members.iter().filter(|m| !m.is_learner);
    let voters: Vec<u64> = voters.map(|m| m.id).collect();
    let answering = facts.answering().filter(|probe| voters.contains(&probe.id)).count();
    let quorum = voters.len() / 2 + 1;
    if voters.len() < quorum || answering >= quorum {
        return problem(
            "no_leader",
            "no leader, although a quorum of voters answers".into(),
            "An election may be running: run kvctl doctor again. If this persists, members do not \
             reach each other at their peer addresses: check NetworkPolicy, firewall and DNS.",
        );
    }
    let scale = match facts.is_in_kubernetes() {
        true => format!(" In Kubernetes: scale to at least {quorum}."),
        false => String::new(),
    };
    problem(
        "no_leader",
        format!(
            "no leader: {answering} of {} voters answer, and the quorum is {quorum}",
            voters.len()
        ),
        format!(
            "Bring voters back. No data is lost; reads with --consistency=s still work.{scale}"
        ),
    )
}

fn members_out_of_contact(facts: &Facts) -> Vec<Finding> {
    let Some(reply) = facts.cluster() else { return vec![] };
    let answers = |id: u64| facts.answering().any(|probe| probe.id == id);
    let cut_off = reply.members.iter().filter(|m| m.in_contact == Some(false));
    cut_off
        .filter(|m| answers(m.member_id))
        .map(|m| {
            problem(
                "out_of_contact",
                format!(
                    "{} answers kvctl, and is out of contact with the leader",
                    facts.name(m.member_id)
                ),
                format!(
                    "Check that the leader can reach {}: NetworkPolicy, firewall, DNS.",
                    m.peer_urls.join(",")
                ),
            )
        })
        .collect()
}

fn lagging_members(facts: &Facts) -> Vec<Finding> {
    let statuses = facts.answering().filter_map(|probe| probe.status.as_ref().ok());
    let last = statuses.map(|status| status.raft_applied_index).max().unwrap_or(0);
    let lagging = facts.answering().filter_map(|probe| {
        let lag = last.saturating_sub(probe.status.as_ref().ok()?.raft_applied_index);
        (lag > LAG_MAX_ENTRIES).then(|| {
            problem(
                "behind",
                format!("{} lags {lag} entries behind", probe.display_name()),
                "It is catching up, or its disk or CPU is too slow: see kvctl top.",
            )
        })
    });
    lagging.collect()
}

fn blocked_membership_change(facts: &Facts) -> Vec<Finding> {
    let leading = facts.cluster().and_then(|reply| reply.leading.as_ref());
    let reason = leading.map(|l| &l.waits_for).filter(|reason| !reason.is_empty());
    let advice = "It continues by itself once the condition holds.";
    let found = reason.map(|why| {
        problem("membership_waits", format!("membership change blocked: {why}"), advice)
    });
    found.into_iter().collect()
}

fn clock_skew(facts: &Facts) -> Vec<Finding> {
    let clocks = || facts.probes.iter().filter_map(|probe| Some((probe, probe.clock?)));
    let (Some((behind, first)), Some((ahead, last))) =
        (clocks().min_by_key(|(_, c)| c.offset_ms), clocks().max_by_key(|(_, c)| c.offset_ms))
    else {
        return vec![];
    };
    let skew_ms = last.offset_ms - first.offset_ms;
    if skew_ms <= CLOCK_SKEW_MAX_MS + last.error_ms + first.error_ms {
        return vec![];
    }
    vec![problem(
        "clock_skew",
        format!(
            "the clock of {} is {}.{:03} s ahead of that of {}",
            ahead.display_name(),
            skew_ms / 1000,
            skew_ms % 1000,
            behind.display_name()
        ),
        "Run NTP on the nodes. Data is safe: only certificates and times in logs depend on clocks.",
    )]
}

fn disks(facts: &Facts) -> Vec<Finding> {
    let answerers = facts.probes.iter().filter_map(|probe| {
        Some((probe.display_name(), probe.cluster.as_ref()?.answerer.as_ref()?))
    });
    let found = answerers.flat_map(|(name, answerer)| {
        let slow = (answerer.fsync_p99_us >= FSYNC_P99_MAX_US).then(|| {
            problem(
                "slow_disk",
                format!(
                    "{name}: p99 of WAL fsync is at least {} ms since the member started",
                    answerer.fsync_p99_us / 2000
                ),
                "Give the volume a faster or less shared disk. If writes stall, raise \
                 --election-timeout.",
            )
        });
        let full = answerer.volume_full.then(|| {
            problem(
                "volume_full",
                format!("{name}: no space left on the volume for the next WAL segment"),
                "Enlarge the PersistentVolumeClaim, or delete keys and compact: writes are refused.",
            )
        });
        [slow, full].into_iter().flatten().collect::<Vec<_>>()
    });
    found.collect()
}

fn quotas(facts: &Facts) -> Vec<Finding> {
    let near = facts.answering().filter_map(|probe| {
        let status = probe.status.as_ref().ok()?;
        let (used, quota) = (status.db_size_in_use, status.db_size_quota);
        (quota > 0 && used / QUOTA_WARNING_PERCENT >= quota / 100).then(|| {
            let shown = |bytes: i64| size(bytes.max(0).unsigned_abs());
            let name = probe.display_name();
            problem(
                "quota_near",
                format!("{name} uses {} of its quota of {}", shown(used), shown(quota)),
                "Delete keys and compact, or raise --quota-backend-bytes of all members. At the quota, \
                 writes are refused.",
            )
        })
    });
    near.collect()
}

fn alarms(facts: &Facts) -> Vec<Finding> {
    let mut raised: Vec<_> = facts.alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
    raised.sort_unstable();
    raised.dedup();
    let found = raised.into_iter().map(|(member, alarm)| {
        let name = facts.name(member);
        match AlarmType::try_from(alarm) {
            Ok(AlarmType::Nospace) => problem(
                "alarm_nospace",
                format!("{name} has exceeded its quota: writes are refused"),
                "Delete keys and compact; the alarm clears itself (on etcd: defragment and disarm it).",
            ),
            Ok(AlarmType::Corrupt) => problem(
                "alarm_corrupt",
                format!("{name} has different data than the other members"),
                "Stop it and start it with an empty volume: it joins as a new member, and receives a \
                 snapshot.",
            ),
            _ => problem("alarm", format!("{name} has raised alarm {alarm}"), ""),
        }
    });
    found.collect()
}

fn version_mix(facts: &Facts) -> Vec<Finding> {
    let mut versions: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for probe in facts.answering() {
        let own = probe.cluster.as_ref().and_then(|reply| reply.answerer.as_ref());
        let Ok(status) = &probe.status else { continue };
        let version =
            own.map_or(format!("etcd {}", status.version), |own| format!("kvd {}", own.version));
        versions.entry(version).or_default().push(probe.display_name());
    }
    if versions.len() < 2 {
        return vec![];
    }
    let list: Vec<String> = versions
        .iter()
        .map(|(version, names)| format!("{version} ({})", names.join(", ")))
        .collect();
    vec![problem(
        "version_mix",
        format!("members run different versions: {}", list.join(", ")),
        "Finish the rolling update (kubectl rollout status), or roll it back (kubectl rollout undo).",
    )]
}

/// Only hashes of the same compact revision can be compared.
fn differing_contents(facts: &Facts) -> Vec<Finding> {
    let mut hashes: BTreeMap<i64, BTreeMap<u32, Vec<&str>>> = BTreeMap::new();
    for probe in &facts.probes {
        let Some(hash) = &probe.hash else { continue };
        let comparable = hashes.entry(hash.compact_revision).or_default();
        comparable.entry(hash.hash).or_default().push(probe.display_name());
    }
    let differing = hashes.into_values().filter(|groups| groups.len() > 1);
    let found = differing.map(|groups| {
        let groups: Vec<String> = groups.values().map(|names| names.join(", ")).collect();
        problem(
            "contents_differ",
            format!(
                "members have different data at the same revision: {}",
                groups.join(" against ")
            ),
            "Keep all volumes, and report this. Then start the smaller group with empty volumes.",
        )
    });
    found.collect()
}

/// One or two members cannot lose any: that is a note, as it may be intended.
fn fault_tolerance(facts: &Facts) -> Vec<Finding> {
    let Some(reply) = facts.cluster() else { return vec![] };
    let Some(text) = tolerated(reply) else { return vec![] };
    let ordinals: BTreeSet<u32> = reply.members.iter().map(|m| m.ordinal).collect();
    match reply.leading.as_ref().and_then(|leading| leading.tolerates) {
        Some(0) if ordinals.len() <= 2 => vec![note("no_loss_tolerated", text, "")],
        Some(0) => vec![problem(
            "no_loss_tolerated",
            text,
            "Bring back the voters that are out of contact.",
        )],
        Some(_) | None => vec![],
    }
}
