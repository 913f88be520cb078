//! `-w simple`: keys and values on lines of their own, as they are.

use super::{Answer, Printed, Style, cluster, event_name, out, report, table};
use crate::{
    ctl::{
        endpoint::EndpointHealth,
        gotext::{duration, quote},
        member::MemberAnswer,
    },
    proto::{
        etcdserverpb::{
            DeleteRangeResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse, Member,
            MemberAddResponse, PutResponse, ResponseHeader, TxnResponse,
            response_op::Response as Op,
        },
        mvccpb::{Event, KeyValue},
    },
};

pub(crate) fn render(answer: &Answer, style: Style) -> Printed {
    match answer {
        Answer::Get(response) => out(key_values(&response.kvs, style)),
        Answer::Put(response) => out(put(response, style)),
        Answer::Del(response) => out(del(response, style)),
        Answer::Txn(response) => out(txn(response, style)),
        Answer::Compacted(revision) => out(format!("compacted revision {revision}\n")),
        Answer::Members(response) => out(comma_separated(&table::members(&response.members).rows)),
        Answer::Member(answer) => out(member(answer)),
        Answer::Cluster(reply) => out(cluster::text(reply)),
        Answer::Recovering(cluster) => out(format!(
            "that member stops, and goes on alone as cluster {cluster:x} when it is started again\n"
        )),
        Answer::Report(found) => out(report::text(found)),
        Answer::Status(endpoints) => out(comma_separated(&table::status(endpoints).rows)),
        Answer::Hash(endpoints) => out(comma_separated(&table::hash(endpoints).rows)),
        Answer::Health(endpoints) => health(endpoints),
        Answer::Granted(r) => out(format!("lease {:016x} granted with TTL({}s)\n", r.id, r.ttl)),
        Answer::Revoked(id, _) => out(format!("lease {id:016x} revoked\n")),
        Answer::KeptAlive(r) => {
            out(format!("lease {:016x} keepalived with TTL({})\n", r.id, r.ttl))
        }
        Answer::TimeToLive { left, keys } => out(time_to_live(left, *keys)),
        Answer::Leases(response) => out(leases(response)),
        Answer::Watch(answer) => out(events(&answer.events, style)),
    }
}

fn member(answer: &MemberAnswer) -> String {
    let said = |id: u64, what: &str, header: Option<ResponseHeader>| {
        let cluster = header.unwrap_or_default().cluster_id;
        format!("Member {id:>16x} {what} cluster {cluster:>16x}\n")
    };
    match answer {
        MemberAnswer::Added { name, urls, response } => {
            let member = response.member.clone().unwrap_or_default();
            let how = if member.is_learner { "added as learner to" } else { "added to" };
            said(member.id, how, response.header) + &settings(name, urls, &member, response)
        }
        MemberAnswer::Removed(id, r) => said(*id, "removed from", r.header),
        MemberAnswer::Updated(id, r) => said(*id, "updated in", r.header),
        MemberAnswer::Promoted(id, r) => said(*id, "promoted in", r.header),
        MemberAnswer::LeaderMoved { from, to, .. } => {
            format!("Leadership transferred from {from:x} to {to:x}\n")
        }
    }
}

/// With what an etcd is started that is to be this member.
fn settings(name: &str, urls: &[String], added: &Member, response: &MemberAddResponse) -> String {
    let place = |member: &Member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let all: Vec<String> = response.members.iter().flat_map(place).collect();
    let line = |variable: &str, value: &str| format!("{variable}={}\n", quote(value.as_bytes()));
    [
        "\n".into(),
        line("ETCD_NAME", name),
        line("ETCD_INITIAL_CLUSTER", &all.join(",")),
        line("ETCD_INITIAL_ADVERTISE_PEER_URLS", &urls.join(",")),
        line("ETCD_INITIAL_CLUSTER_STATE", "existing"),
    ]
    .concat()
}

fn put(response: &PutResponse, style: Style) -> Vec<u8> {
    let mut out = b"OK\n".to_vec();
    out.extend(key_values(response.prev_kv.as_slice(), style));
    out
}

fn del(response: &DeleteRangeResponse, style: Style) -> Vec<u8> {
    let mut out = format!("{}\n", response.deleted).into_bytes();
    out.extend(key_values(&response.prev_kvs, style));
    out
}

fn txn(response: &TxnResponse, style: Style) -> Vec<u8> {
    let mut out = if response.succeeded { b"SUCCESS\n".to_vec() } else { b"FAILURE\n".to_vec() };
    for op in &response.responses {
        out.push(b'\n');
        match &op.response {
            Some(Op::ResponseRange(response)) => out.extend(key_values(&response.kvs, style)),
            Some(Op::ResponsePut(response)) => out.extend(put(response, style)),
            Some(Op::ResponseDeleteRange(response)) => out.extend(del(response, style)),
            Some(Op::ResponseTxn(response)) => out.extend(txn(response, style)),
            None => {}
        }
    }
    out
}

fn key_values(kvs: &[KeyValue], style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    for kv in kvs {
        if !style.value_only {
            line(&mut out, &kv.key, style);
        }
        line(&mut out, &kv.value, style);
    }
    out
}

fn line(out: &mut Vec<u8>, bytes: &[u8], style: Style) {
    if style.hex {
        bytes.iter().for_each(|byte| out.extend(format!("\\x{byte:02x}").bytes()));
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

fn time_to_live(left: &LeaseTimeToLiveResponse, keys: bool) -> Vec<u8> {
    let LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = left;
    if *granted_ttl == 0 && *ttl == -1 {
        return format!("lease {id:016x} already expired\n").into_bytes();
    }
    let mut out =
        format!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)").into_bytes();
    if keys {
        out.extend_from_slice(b", attached keys([");
        out.extend(left.keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
    out
}

fn leases(response: &LeaseLeasesResponse) -> String {
    let ids = response.leases.iter().map(|lease| format!("{:016x}\n", lease.id));
    format!("found {} leases\n", response.leases.len()) + &ids.collect::<String>()
}

fn events(events: &[Event], style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        out.extend_from_slice(event_name(event).as_bytes());
        out.push(b'\n');
        out.extend(key_values(event.prev_kv.as_slice(), style));
        out.extend(key_values(event.kv.as_slice(), style));
    }
    out
}

/// The unhealthy ones go to standard error, as etcdctl has it.
fn health(endpoints: &[EndpointHealth]) -> Printed {
    let mut printed = Printed::default();
    for EndpointHealth { endpoint, took, error } in endpoints {
        match error {
            None => printed.stdout.extend(
                format!(
                    "{endpoint} is healthy: successfully committed proposal: took = {}\n",
                    duration(*took)
                )
                .bytes(),
            ),
            Some(error) => printed.stderr.extend(
                format!("{endpoint} is unhealthy: failed to commit proposal: {error}\n").bytes(),
            ),
        }
    }
    printed
}

fn comma_separated(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join(", ") + "\n").collect()
}
