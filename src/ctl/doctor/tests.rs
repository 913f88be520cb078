//! Each problem has its own check, and a healthy cluster has none.

use super::{
    findings::report,
    probe::{Clock, Facts, Probe},
    report::{Finding, HealthReport},
};
use crate::{
    client::{ClientError, Unreachable},
    proto::{
        cluster_admin::{Answerer, ClusterMember, ClusterReply, Leading},
        etcdserverpb::{
            AlarmMember, AlarmType, HashKvResponse, Member, ResponseHeader, StatusResponse,
        },
    },
};

/// Three members, of which the first leads.
fn healthy() -> Facts {
    let ids = [0xa0, 0xa1, 0xa2];
    let member = |id: &u64| Member {
        id: *id,
        name: format!("kv-{}", id - 0xa0),
        client_ur_ls: vec![format!("http://kv-{}:2379", id - 0xa0)],
        ..Member::default()
    };
    Facts {
        members: ids.iter().map(member).collect(),
        member_list_error: None,
        alarms: vec![],
        probes: ids.iter().map(|id| probe(*id)).collect(),
    }
}

fn probe(id: u64) -> Probe {
    let header = ResponseHeader { cluster_id: 0xc1, member_id: id, revision: 30, raft_term: 4 };
    let member = |id: u64| ClusterMember {
        ordinal: (id - 0xa0) as u32,
        member_id: id,
        votes: true,
        will_vote: true,
        in_contact: Some(true),
        ..ClusterMember::default()
    };
    Probe {
        id,
        name: format!("kv-{}", id - 0xa0),
        endpoint: format!("kv-{}:2379", id - 0xa0),
        status: Ok(StatusResponse {
            header: Some(header),
            leader: 0xa0,
            raft_term: 4,
            raft_index: 90,
            raft_applied_index: 90,
            db_size_quota: 1000,
            version: "3.6.16".into(),
            ..StatusResponse::default()
        }),
        cluster: Some(ClusterReply {
            cluster_id: 0xc1,
            member_id: id,
            leader: 0xa0,
            members: [0xa0, 0xa1, 0xa2].map(member).into(),
            leading: (id == 0xa0).then(|| Leading { tolerates: Some(1), ..Leading::default() }),
            answerer: Some(Answerer { version: "0.1.0".into(), ..Answerer::default() }),
            ..ClusterReply::default()
        }),
        clock: Some(Clock { offset_ms: 1_000_000, error_ms: 2 }),
        hash: Some(HashKvResponse { hash: 7, compact_revision: 5, ..HashKvResponse::default() }),
    }
}

fn unreachable(reason: &str) -> ClientError {
    let (endpoint, reason) = ("kv-2:2379".into(), reason.into());
    ClientError::Unreachable(vec![Unreachable { endpoint, reason, refused: false }])
}

/// The checks of the problems once `happens` has changed a healthy cluster.
fn problems(happens: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
    let mut facts = healthy();
    happens(&mut facts);
    let report = report(&facts);
    let problems = report.findings.iter().filter(|finding| finding.problem);
    let checks: Vec<_> = problems.map(|finding| finding.check).collect();
    assert_eq!(report.is_healthy(), checks.is_empty());
    checks
}

fn status(facts: &mut Facts, at: usize) -> &mut StatusResponse {
    facts.probes[at].status.as_mut().unwrap()
}

fn cluster(facts: &mut Facts, at: usize) -> &mut ClusterReply {
    facts.probes[at].cluster.as_mut().unwrap()
}

fn leading(facts: &mut Facts) -> &mut Leading {
    cluster(facts, 0).leading.as_mut().unwrap()
}

fn answerer(facts: &mut Facts, at: usize) -> &mut Answerer {
    cluster(facts, at).answerer.as_mut().unwrap()
}

/// The third member is gone, also for the leader.
fn gone(facts: &mut Facts, reason: &str) {
    facts.probes[2] = Probe {
        status: Err(unreachable(reason)),
        cluster: None,
        clock: None,
        hash: None,
        ..probe(0xa2)
    };
    cluster(facts, 0).members[2].in_contact = Some(false);
    leading(facts).tolerates = Some(0);
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    let report = report(&healthy());
    let summary = "3 of 3 members answer; leader kv-0; no problems".into();
    assert_eq!(report, HealthReport { summary, findings: vec![] });
}

#[test]
fn an_unreachable_member_is_named_with_the_lost_tolerance() {
    let lost = ["member_silent", "no_loss_tolerated"];
    assert_eq!(problems(|facts| gone(facts, "connection refused")), lost);
    let unknown = "failed to lookup address information: Name or service not known";
    assert_eq!(problems(|facts| gone(facts, unknown)), ["name_unknown", "no_loss_tolerated"]);
}

#[test]
fn a_member_in_contact_with_the_leader_is_a_note() {
    let mut facts = healthy();
    facts.probes[2].status = Err(unreachable("connection refused"));
    facts.probes[2].cluster = None;
    let report = report(&facts);
    let checks: Vec<_> = report.findings.iter().map(|f| (f.check, f.problem)).collect();
    assert_eq!(checks, [("unreachable_from_here", false)]);
}

#[test]
fn no_leader_names_the_quorum() {
    let mut facts = healthy();
    for at in 0..3 {
        status(&mut facts, at).leader = 0;
        cluster(&mut facts, at).leading = None;
        cluster(&mut facts, at).members.iter_mut().for_each(|m| m.in_contact = None);
    }
    let enough = report(&facts);
    assert!(enough.findings[0].message.contains("a quorum of voters answers"), "{enough:?}");
    for at in [1, 2] {
        facts.probes[at].status = Err(unreachable("connection refused"));
        facts.probes[at].cluster = None;
    }
    let report = report(&facts);
    let found = report.findings.iter().find(|f| f.check == "no_leader").unwrap();
    assert_eq!(found.message, "no leader: 1 of 3 voters answer, and the quorum is 2");
    assert_eq!(report.summary, "1 of 3 members answer; no leader; 3 problems");
}

#[test]
fn no_member_at_all_is_a_finding_of_its_own() {
    let mut facts =
        Facts { member_list_error: Some(unreachable("connection refused")), ..Facts::default() };
    facts.probes = vec![Probe {
        id: 0,
        status: Err(unreachable("x")),
        cluster: None,
        clock: None,
        ..probe(0xa2)
    }];
    let report = report(&facts);
    let checks: Vec<_> = report.findings.iter().map(|f| f.check).collect();
    assert_eq!(checks, ["member_silent", "nobody_answers"]);
}

#[test]
fn each_problem_has_its_check() {
    assert_eq!(
        problems(|f| status(f, 1).header.as_mut().unwrap().cluster_id = 9),
        ["several_clusters"]
    );
    assert_eq!(problems(|f| status(f, 1).leader = 0), ["no_leader"]);
    assert_eq!(problems(|f| cluster(f, 0).members[1].in_contact = Some(false)), ["out_of_contact"]);
    assert_eq!(problems(|f| status(f, 0).raft_index = 9000), [] as [&str; 0]);
    let behind = problems(|f| {
        status(f, 0).raft_index = 9000;
        status(f, 0).raft_applied_index = 9000;
    });
    assert_eq!(behind, ["behind", "behind"]);
    assert_eq!(problems(|f| leading(f).waits_for = "ordinal 4".into()), ["membership_waits"]);
    assert_eq!(problems(|f| answerer(f, 1).fsync_p99_us = 64_000), ["slow_disk"]);
    assert_eq!(problems(|f| answerer(f, 1).volume_full = true), ["volume_full"]);
    assert_eq!(problems(|f| status(f, 2).db_size_in_use = 810), ["quota_near"]);
    assert_eq!(problems(|f| answerer(f, 2).version = "0.2.0".into()), ["version_mix"]);
    assert_eq!(problems(|f| f.probes[1].hash.as_mut().unwrap().hash = 8), ["contents_differ"]);
    for (alarm, check) in
        [(AlarmType::Nospace, "alarm_nospace"), (AlarmType::Corrupt, "alarm_corrupt")]
    {
        let raised = AlarmMember { member_id: 0xa1, alarm: alarm.into() };
        // Each member reports it.
        assert_eq!(problems(|f| f.alarms = vec![raised, raised]), [check]);
    }
}

#[test]
fn hashes_at_other_compactions_are_not_compared() {
    let apart = problems(|facts| {
        let hash = facts.probes[1].hash.as_mut().unwrap();
        (hash.hash, hash.compact_revision) = (8, 6);
    });
    assert!(apart.is_empty(), "{apart:?}");
}

#[test]
fn clocks_are_compared_as_exactly_as_the_answers_took() {
    let ahead = |ms: i64, error_ms: i64| {
        problems(|f| f.probes[1].clock = Some(Clock { offset_ms: 1_000_000 + ms, error_ms }))
    };
    assert_eq!(ahead(1001, 2), [] as [&str; 0]);
    assert_eq!(ahead(1500, 2), ["clock_skew"]);
    assert_eq!(ahead(1500, 900), [] as [&str; 0]);
    assert_eq!(ahead(-1500, 2), ["clock_skew"]);
}

#[test]
fn a_single_member_tolerates_no_loss() {
    let mut facts = healthy();
    facts.members.truncate(1);
    facts.probes.truncate(1);
    cluster(&mut facts, 0).members.truncate(1);
    leading(&mut facts).tolerates = Some(0);
    let report = report(&facts);
    assert!(report.is_healthy());
    let [Finding { check: "no_loss_tolerated", problem: false, message, .. }] =
        &report.findings[..]
    else {
        panic!("{report:?}");
    };
    assert!(message.contains("one or two members never do"), "{message}");
}
