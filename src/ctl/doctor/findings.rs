//! What is wrong, judged by what members said. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding, Report,
    gather::{Facts, Seen},
};
use crate::{
    client::ClientError,
    ctl::{gotext::size, print::tolerated},
    proto::{etcdserverpb::AlarmType, own::ClusterReply},
};

/// Clocks may differ so much. Nothing that Ordinal promises rests on them, but certificates and logs do.
const SKEW_MS: i64 = 1000;
/// A log that is synced more slowly than this makes every write slow, and elections likely.
const SLOW_SYNC_US: u64 = 50_000;
/// So many entries behind is not just a moment's lag.
const FAR_BEHIND: u64 = 5000;
/// Of the quota.
const ALMOST_FULL_PERCENT: i64 = 80;

pub(super) fn of(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    for check in [
        silent as fn(&Facts) -> Vec<Finding>,
        clusters,
        leader,
        contact,
        lag,
        waiting,
        clocks,
        disks,
        room,
        alarms,
        versions,
        contents,
        losses,
    ] {
        findings.extend(check(facts));
    }
    findings.sort_by_key(|finding| !finding.problem);
    let summary = summary(facts, &findings);
    Report { summary, findings }
}

fn summary(facts: &Facts, findings: &[Finding]) -> String {
    let (answer, all) = (facts.answering().count(), facts.seen.len());
    let leader = facts.leader();
    let leads = leader.map_or("nobody leads".into(), |id| format!("{} leads", facts.name(id)));
    let found = match findings.iter().filter(|f| f.problem).count() {
        0 => "nothing is wrong".into(),
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    };
    format!("{answer} of {all} members answer; {leads}; {found}")
}

impl Facts {
    fn answering(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|one| one.status.is_ok())
    }

    /// Who leads, by the newest term that anybody knows.
    fn leader(&self) -> Option<u64> {
        let told = self.answering().filter_map(|one| one.status.as_ref().ok());
        told.filter(|s| s.leader != 0).max_by_key(|s| s.raft_term).map(|s| s.leader)
    }

    /// What the leader says; else what the first one says.
    fn cluster(&self) -> Option<&ClusterReply> {
        let told = || self.seen.iter().filter_map(|one| one.cluster.as_ref());
        told().find(|reply| reply.leading.is_some()).or_else(|| told().next())
    }

    fn name(&self, id: u64) -> String {
        let listed = self.members.iter().find(|m| m.id == id).map(|m| m.name.clone());
        listed.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("member {id:x}"))
    }

    fn is_of_kubernetes(&self) -> bool {
        self.cluster().is_some_and(|reply| reply.follows_pods)
    }
}

impl Seen {
    fn called(&self) -> &str {
        if self.name.is_empty() { &self.endpoint } else { &self.name }
    }
}

fn problem(check: &'static str, what: String, advice: impl Into<String>) -> Finding {
    Finding { check, problem: true, what, advice: advice.into() }
}

fn note(check: &'static str, what: String, advice: impl Into<String>) -> Finding {
    Finding { problem: false, ..problem(check, what, advice) }
}

/// Who does not answer, and whether it is a name that nobody knows.
fn silent(facts: &Facts) -> Vec<Finding> {
    let in_contact = |id: u64| {
        let members = facts.cluster().map(|reply| &reply.members[..]).unwrap_or_default();
        members.iter().any(|m| m.member_id == id && m.in_contact == Some(true))
    };
    let silent = facts.seen.iter().filter_map(|one| Some((one, one.status.as_ref().err()?)));
    let found = silent.map(|(one, error)| {
        let (who, at) = (one.called(), &one.endpoint);
        if is_unknown_name(error) {
            return problem(
                "name_unknown",
                format!("{who}: DNS knows no {at}"),
                "In Kubernetes: does the pod exist (kubectl get pods), is the headless Service there, with \
                 publishNotReadyAddresses, and does it select the pod? Outside the cluster its names do \
                 not resolve: run kvctl in a pod, or name --endpoints that do.",
            );
        }
        if in_contact(one.id) {
            return note(
                "unreachable_from_here",
                format!("{who} does not answer here at {at}, and yet is in contact with the leader: {error}"),
                "The address that it advertises (--advertise-client) cannot be reached from here.",
            );
        }
        problem(
            "member_silent",
            format!("{who} does not answer: {error}"),
            "Does it run (kubectl get pods, or its process), and what does its log say? It catches up by \
             itself when it is back; if its volume is lost, start it with an empty one.",
        )
    });
    let mut found: Vec<Finding> = found.collect();
    let homeless = facts.members.iter().filter(|m| m.client_ur_ls.is_empty());
    found.extend(homeless.map(|member| {
        problem(
            "member_not_started",
            format!(
                "member {:x} has a place ({}) and was never there",
                member.id,
                member.peer_ur_ls.join(",")
            ),
            format!(
                "Start a member with that ordinal, or give the place up: kvctl member remove {:x}",
                member.id
            ),
        )
    }));
    found
}

fn is_unknown_name(error: &ClientError) -> bool {
    let ClientError::Unreachable(all) = error else { return false };
    all.iter().any(|one| one.reason.contains("lookup address") || one.reason.contains("dns error"))
}

/// Endpoints of several clusters: whoever uses them all writes now here, now there.
fn clusters(facts: &Facts) -> Vec<Finding> {
    let mut clusters: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for one in facts.answering() {
        let header = one.status.as_ref().ok().and_then(|status| status.header);
        clusters.entry(header.unwrap_or_default().cluster_id).or_default().push(one.called());
    }
    if clusters.len() < 2 {
        return vec![];
    }
    let list: Vec<String> =
        clusters.iter().map(|(id, names)| format!("{id:x} ({})", names.join(", "))).collect();
    vec![problem(
        "several_clusters",
        format!("there are {} clusters here: {}", clusters.len(), list.join(", ")),
        "Take out of --endpoints, or of the Service, those that do not belong.",
    )]
}

fn leader(facts: &Facts) -> Vec<Finding> {
    let voters = facts.members.iter().filter(|m| !m.is_learner);
    let voters: Vec<u64> = voters.map(|m| m.id).collect();
    let answer = facts.answering().filter(|one| voters.contains(&one.id)).count();
    let majority = voters.len() / 2 + 1;
    if facts.answering().next().is_none() {
        let why = facts.no_list.as_ref().map_or(String::new(), |error| format!(": {error}"));
        return vec![problem("nobody_answers", format!("no member answers{why}"), "")];
    }
    if facts.leader().is_none() {
        let (what, advice) = if voters.len() >= majority && answer < majority {
            let scale = match facts.is_of_kubernetes() {
                true => format!(" In Kubernetes: scale to at least {majority}."),
                false => String::new(),
            };
            (
                format!(
                    "no leader: {answer} of {} voters answer, and it takes {majority}",
                    voters.len()
                ),
                format!(
                    "Bring voters back. Nothing is lost, and reads with --consistency=s go on.{scale}"
                ),
            )
        } else {
            (
                "no leader, though enough voters answer".into(),
                "They may be electing one: look again. If it stays so, members do not reach each other at \
                 their peer addresses (a NetworkPolicy, a firewall, DNS)."
                    .into(),
            )
        };
        return vec![problem("no_leader", what, advice)];
    }
    let lost = facts.answering().filter(|one| one.status.as_ref().is_ok_and(|s| s.leader == 0));
    lost.map(|one| {
        problem(
            "no_leader",
            format!("{} knows no leader, and others do", one.called()),
            "It does not reach the leader at its peer address, or is not reached there.",
        )
    })
    .collect()
}

/// Members that answer us and not the leader.
fn contact(facts: &Facts) -> Vec<Finding> {
    let Some(reply) = facts.cluster() else { return vec![] };
    let answers = |id: u64| facts.answering().any(|one| one.id == id);
    let cut_off = reply.members.iter().filter(|m| m.in_contact == Some(false));
    cut_off
        .filter(|m| answers(m.member_id))
        .map(|m| {
            problem(
                "out_of_contact",
                format!(
                    "{} answers here, and is out of contact with the leader",
                    facts.name(m.member_id)
                ),
                format!(
                    "Can the leader reach {}? Look at NetworkPolicy, firewall, DNS.",
                    m.peer_urls.join(",")
                ),
            )
        })
        .collect()
}

fn lag(facts: &Facts) -> Vec<Finding> {
    let last = facts.answering().filter_map(|one| one.status.as_ref().ok());
    let last = last.map(|status| status.raft_applied_index);
    let last = last.max().unwrap_or(0);
    let behind = facts.answering().filter_map(|one| {
        let behind = last.saturating_sub(one.status.as_ref().ok()?.raft_applied_index);
        (behind > FAR_BEHIND).then(|| {
            problem(
                "behind",
                format!("{} has not applied the last {behind} entries", one.called()),
                "It is catching up, or its disk or processor cannot keep up: kvctl top shows which.",
            )
        })
    });
    behind.collect()
}

fn waiting(facts: &Facts) -> Vec<Finding> {
    let leading = facts.cluster().and_then(|reply| reply.leading.as_ref());
    let why = leading.map(|l| &l.waits_for).filter(|why| !why.is_empty());
    let advice = "It goes on by itself as soon as they are there.";
    why.map(|why| problem("membership_waits", format!("a change of members waits: {why}"), advice))
        .into_iter()
        .collect()
}

fn clocks(facts: &Facts) -> Vec<Finding> {
    let clocks = || facts.seen.iter().filter_map(|one| Some((one, one.clock?)));
    let (Some(first), Some(last)) =
        (clocks().min_by_key(|(_, c)| c.offset_ms), clocks().max_by_key(|(_, c)| c.offset_ms))
    else {
        return vec![];
    };
    let (apart, sure) = (
        last.1.offset_ms - first.1.offset_ms,
        SKEW_MS + last.1.give_or_take_ms + first.1.give_or_take_ms,
    );
    if apart <= sure {
        return vec![];
    }
    vec![problem(
        "clock_skew",
        format!(
            "the clock of {} is {}.{:03} s ahead of that of {}",
            last.0.called(),
            apart / 1000,
            apart % 1000,
            first.0.called()
        ),
        "Run NTP on the nodes. Data is safe: nothing rests on clocks but certificates and the times in logs.",
    )]
}

fn disks(facts: &Facts) -> Vec<Finding> {
    let told =
        facts.seen.iter().filter_map(|one| Some((one, one.cluster.as_ref()?.answerer.as_ref()?)));
    let found = told.flat_map(|(one, told)| {
        let slow = (told.fsync_p99_us >= SLOW_SYNC_US).then(|| {
            problem(
                "slow_disk",
                format!(
                    "{}: one in a hundred syncs of the log took {} ms or more since it started",
                    one.called(),
                    told.fsync_p99_us / 2000
                ),
                "A disk of its own for the volume, faster or less shared. If writes stall, raise \
                 --election-timeout.",
            )
        });
        let full = told.volume_full.then(|| {
            problem(
                "volume_full",
                format!("{}: the volume has no room for the next file of the log", one.called()),
                "Enlarge the PersistentVolumeClaim, or delete keys and compact: writes are refused.",
            )
        });
        [slow, full].into_iter().flatten().collect::<Vec<_>>()
    });
    found.collect()
}

fn room(facts: &Facts) -> Vec<Finding> {
    let full = facts.answering().filter_map(|one| {
        let status = one.status.as_ref().ok()?;
        let (used, quota) = (status.db_size_in_use, status.db_size_quota);
        (quota > 0 && used / ALMOST_FULL_PERCENT >= quota / 100).then(|| {
            let shown = |bytes: i64| size(bytes.max(0).unsigned_abs());
            problem(
                "quota_near",
                format!("{} uses {} of its quota of {}", one.called(), shown(used), shown(quota)),
                "Delete keys and compact, or raise --quota-bytes of all members. At the quota writes are \
                 refused.",
            )
        })
    });
    full.collect()
}

fn alarms(facts: &Facts) -> Vec<Finding> {
    let mut raised: Vec<_> = facts.alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
    raised.sort_unstable();
    raised.dedup();
    let found = raised.into_iter().map(|(member, alarm)| {
        let who = facts.name(member);
        match AlarmType::try_from(alarm) {
            Ok(AlarmType::Nospace) => problem(
                "alarm_nospace",
                format!("{who} is over its quota: writes are refused"),
                "Delete keys and compact; the alarm ends by itself (on etcd: defragment and disarm it).",
            ),
            Ok(AlarmType::Corrupt) => problem(
                "alarm_corrupt",
                format!("{who} holds other data than the others"),
                "Stop it and start it with an empty volume: it joins anew, and is filled by the others.",
            ),
            _ => problem("alarm", format!("{who} has raised alarm {alarm}"), ""),
        }
    });
    found.collect()
}

fn versions(facts: &Facts) -> Vec<Finding> {
    let mut versions: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for one in facts.answering() {
        let own = one.cluster.as_ref().and_then(|reply| reply.answerer.as_ref());
        let Ok(status) = &one.status else { continue };
        let version =
            own.map_or(format!("etcd {}", status.version), |own| format!("kvd {}", own.version));
        versions.entry(version).or_default().push(one.called());
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
        format!("several versions run: {}", list.join(", ")),
        "Finish the rolling update (kubectl rollout status), or roll it back (kubectl rollout undo).",
    )]
}

/// Hashes can be compared where as much is compacted.
fn contents(facts: &Facts) -> Vec<Finding> {
    let mut hashes: BTreeMap<i64, BTreeMap<u32, Vec<&str>>> = BTreeMap::new();
    for one in &facts.seen {
        let Some(hash) = &one.hash else { continue };
        let alike = hashes.entry(hash.compact_revision).or_default();
        alike.entry(hash.hash).or_default().push(one.called());
    }
    let differing = hashes.into_values().filter(|alike| alike.len() > 1);
    let found = differing.map(|alike| {
        let groups: Vec<String> = alike.values().map(|names| names.join(", ")).collect();
        problem(
            "contents_differ",
            format!("members hold other data at the same revision: {}", groups.join(" against ")),
            "Keep all volumes as they are, and report this. Then start the fewer ones with empty volumes.",
        )
    });
    found.collect()
}

/// Who has few members cannot lose any: that is no fault, if it is meant so.
fn losses(facts: &Facts) -> Vec<Finding> {
    let Some(reply) = facts.cluster() else { return vec![] };
    let Some(text) = tolerated(reply) else { return vec![] };
    let places: BTreeSet<u32> = reply.members.iter().map(|m| m.ordinal).collect();
    match reply.leading.as_ref().and_then(|leading| leading.tolerates) {
        Some(0) if places.len() <= 2 => vec![note("no_loss_tolerated", text, "")],
        Some(0) => vec![problem(
            "no_loss_tolerated",
            text,
            "Bring back the voters that are out of contact.",
        )],
        Some(_) | None => vec![],
    }
}
