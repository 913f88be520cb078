//! Frames of known clusters.

use std::{collections::BTreeMap, time::Duration};

use ratatui::{Terminal, backend::TestBackend, style::Modifier};
use tokio::time::Instant;

use super::{
    draw::{self, TopState},
    samples::{MemberSample, Metrics, Sample},
    view,
};
use crate::{
    client::{ClientError, Unreachable},
    proto::etcdserverpb::{ResponseHeader, StatusResponse},
};

/// kv-0 leads, kv-1 follows, kv-2 is a learner that is behind.
fn sample(at: Instant, puts: f64) -> Sample {
    let member = |n: u64, applied: u64| MemberSample {
        id: 0xa0 + n,
        name: format!("kv-{n}"),
        endpoint: format!("http://kv-{n}:2379"),
        learner: n == 2,
        status: Ok(StatusResponse {
            header: Some(ResponseHeader {
                cluster_id: 0xc1,
                member_id: 0xa0 + n,
                revision: 4711,
                raft_term: 3,
            }),
            version: "3.5.12".into(),
            db_size: 28_000_000,
            db_size_in_use: 21_000_000,
            db_size_quota: 8_000_000_000,
            leader: 0xa0,
            raft_index: 9_000,
            raft_applied_index: applied,
            raft_term: 3,
            is_learner: n == 2,
            ..StatusResponse::default()
        }),
        metrics: Ok(Metrics {
            url: format!("http://kv-{n}:2381/metrics"),
            values: BTreeMap::from([
                ("etcd_mvcc_put_total".into(), puts),
                ("etcd_debugging_mvcc_range_total".into(), puts * 2.0),
                ("etcd_debugging_mvcc_events_total".into(), puts / 100.0),
                ("etcd_debugging_mvcc_watcher_total".into(), 10.0 + n as f64),
            ]),
        }),
    };
    let members = vec![member(0, 9_000), member(1, 8_998), member(2, 8_000)];
    Sample { at, members, leases: Some(12), member_list_error: None }
}

fn state(selected: Option<usize>) -> TopState {
    let now = Instant::now();
    let view = view::of(Some(&sample(now, 1000.0)), &sample(now + Duration::from_secs(2), 3000.0));
    TopState { view, selected, interval: Duration::from_secs(2) }
}

fn unreachable() -> ClientError {
    ClientError::Unreachable(vec![Unreachable {
        endpoint: "kv-1:2379".into(),
        reason: "connection refused".into(),
        refused: true,
    }])
}

#[tokio::test]
async fn a_text_frame_has_all_columns() {
    assert_eq!(
        draw::text(&state(None), 170),
        "cluster c1   3 of 3 members answer   leader kv-0   term 3   revision 4711\n\
         puts 1000/s   reads 6000/s   watch events 30/s   watches 33   leases 12   errors: none\n\
         \n\
         MEMBER  ID  ROLE     ENDPOINT   VERSION  TERM  INDEX  APPLIED   LAG     DB  IN USE   QUOTA  PUTS/S  READS/S  EVENTS/S  WATCHES\n\
         kv-0    a0  leader   kv-0:2379  3.5.12      3   9000     9000     0  28 MB   21 MB  8.0 GB    1000     2000        10       10\n\
         kv-1    a1  voter    kv-1:2379  3.5.12      3   9000     8998     2  28 MB   21 MB  8.0 GB    1000     2000        10       11\n\
         kv-2    a2  learner  kv-2:2379  3.5.12      3   9000     8000  1000  28 MB   21 MB  8.0 GB    1000     2000        10       12\n"
    );
}

#[tokio::test]
async fn a_narrow_terminal_keeps_the_most_important_columns() {
    let text = draw::text(&state(None), 80);
    let heading = text.lines().nth(3).unwrap();
    assert_eq!(
        heading,
        "MEMBER  ROLE     APPLIED   LAG     DB  PUTS/S  READS/S  EVENTS/S  WATCHES"
    );
    let narrow = draw::text(&state(None), 40);
    assert!(narrow.lines().nth(3).unwrap().starts_with("MEMBER  ROLE"), "{narrow}");
}

#[tokio::test]
async fn missing_members_and_metrics_are_shown() {
    let now = Instant::now();
    let before = sample(now, 0.0);
    let mut after = sample(now + Duration::from_secs(1), 5.0);
    after.members[1].status = Err(unreachable());
    after.members[1].metrics = Err("connection refused".into());
    after.members[2].metrics = Err("http://kv-2:2379/metrics: no web page is there".into());
    after.members[0].status.as_mut().unwrap().errors = vec!["memberID:160 alarm:NOSPACE ".into()];
    let view = view::of(Some(&before), &after);
    let text =
        draw::text(&TopState { view, selected: None, interval: Duration::from_secs(1) }, 140);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("2 of 3 members answer"), "{text}");
    assert!(lines[1].ends_with("errors: memberID:160 alarm:NOSPACE"), "{text}");
    assert!(lines[5].starts_with("kv-1    a1  away"), "{text}");
    assert!(lines[6].ends_with("-        -         -        -"), "{text}");
    assert_eq!(
        lines[7],
        "no rates of kv-2: pass the address of their metrics with --metrics \
         (http://kv-2:2379/metrics: no web page is there)"
    );
}

#[tokio::test]
async fn without_a_leader_lag_counts_from_the_longest_log() {
    let now = Instant::now();
    let mut after = sample(now, 5.0);
    for member in &mut after.members {
        member.status.as_mut().unwrap().leader = 0;
    }
    after.members[0].status = Err(unreachable());
    let view = view::of(None, &after);
    assert!(view.cluster.contains("leader none"), "{}", view.cluster);
    assert_eq!((view.rows[1].cells[8].as_str(), view.rows[2].cells[8].as_str()), ("2", "1000"));
    assert_eq!(view.rows[1].health, view::Health::Unhealthy);
}

#[tokio::test]
async fn the_newest_term_names_the_leader() {
    let mut now = sample(Instant::now(), 5.0);
    for member in &mut now.members[1..] {
        let status = member.status.as_mut().unwrap();
        (status.leader, status.raft_term) = (0xa1, 4);
    }
    let view = view::of(None, &now);
    assert!(view.cluster.contains("leader kv-1   term 4"), "{}", view.cluster);
    assert_eq!(
        (view.rows[0].cells[2].as_str(), view.rows[1].cells[2].as_str()),
        ("voter", "leader")
    );
}

#[tokio::test]
async fn a_live_frame_has_the_selected_member_and_the_keys() {
    let mut state = state(Some(0));
    state.select(-1);
    let mut terminal = Terminal::new(TestBackend::new(120, 14)).unwrap();
    terminal.draw(|frame| draw::draw(frame, &state)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let line: String = (0..120).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    };
    assert!(buffer[(0, 6)].modifier.contains(Modifier::REVERSED), "kv-2 is selected");
    assert_eq!(line(9), "kv-2  id a2  http://kv-2:2379");
    assert_eq!(line(11), "metrics from http://kv-2:2381/metrics");
    assert_eq!(line(13), "q quit   arrows select   + - interval: every 2s");
}
