//! `-w simple`: keys and values on lines of their own, as they are.

use super::{Answer, Printed, Style, out, table};
use crate::{
    ctl::{endpoint::EndpointHealth, gotext::duration},
    proto::{
        etcdserverpb::{
            DeleteRangeResponse, PutResponse, TxnResponse, response_op::Response as Op,
        },
        mvccpb::KeyValue,
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
        Answer::Status(endpoints) => out(comma_separated(&table::status(endpoints).rows)),
        Answer::Hash(endpoints) => out(comma_separated(&table::hash(endpoints).rows)),
        Answer::Health(endpoints) => health(endpoints),
    }
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
