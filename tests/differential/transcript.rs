//! Answers as text: every field, except the values that a server chooses.
//!
//! The text omits the ids of cluster and member and the term, and checks only their presence. A
//! lease with a name in the script appears under that name.

use std::fmt::Write as _;

use ordinal::proto::{
    etcdserverpb::{
        CompactionResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse,
        LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
        PutResponse, RangeResponse, ResponseHeader, TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};

use crate::differential::grammar::Names;

/// Longer values are truncated.
const VALUE_BYTES: usize = 40;

/// An answer that can be rendered.
pub trait Answer {
    fn header(&self) -> Option<&ResponseHeader>;
    /// Everything except the header. Each line begins with the indent and ends in a newline.
    fn render(&self, text: &mut String, indent: &str, names: &Names);
}

/// The header, then the rest.
pub fn answer(answer: &impl Answer, names: &Names) -> String {
    let mut text = format!("{}\n", header(answer.header()));
    answer.render(&mut text, "", names);
    text
}

/// `rev 3`, and which of the other fields are absent.
pub fn header(header: Option<&ResponseHeader>) -> String {
    let Some(ResponseHeader { cluster_id, member_id, revision, raft_term }) = header else {
        return "no header".into();
    };
    let mut text = format!("rev {revision}");
    match (*cluster_id != 0, *member_id != 0, *raft_term != 0) {
        (true, true, true) => {}
        (false, false, false) => text.push_str(" alone"),
        (cluster, member, term) => {
            write!(text, " with cluster: {cluster}, member: {member}, term: {term}").unwrap();
        }
    }
    text
}

/// `a = "1" (create 2, mod 3, version 2)`
pub fn key_value(kv: &KeyValue, names: &Names) -> String {
    let KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    let mut text = format!("{} = {}", key.escape_ascii(), self::value(value));
    write!(text, " (create {create_revision}, mod {mod_revision}, version {version}").unwrap();
    if *lease != 0 {
        write!(text, ", lease {}", lease_id(*lease, names)).unwrap();
    }
    text + ")"
}

fn value(value: &[u8]) -> String {
    if value.len() <= VALUE_BYTES {
        return format!("\"{}\"", value.escape_ascii());
    }
    format!("\"{}...\" of {} bytes", value[..8].escape_ascii(), value.len())
}

fn lease_id(id: i64, names: &Names) -> String {
    let named = names.leases.iter().find(|(_, lease)| **lease == id);
    named.map_or_else(|| id.to_string(), |(name, _)| name.clone())
}

/// The remaining TTL, or `all` for the range that is right so soon after a grant or renewal.
fn remaining(ttl: i64, granted: i64) -> String {
    /// Bound on the time that a script takes from a renewal to the request for the TTL.
    const SCRIPT_SECONDS: i64 = 30;
    if granted > SCRIPT_SECONDS && (granted - SCRIPT_SECONDS..=granted).contains(&ttl) {
        "all".into()
    } else {
        ttl.to_string()
    }
}

impl Answer for PutResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let PutResponse { header: _, prev_kv } = self;
        if let Some(kv) = prev_kv {
            writeln!(text, "{indent}was {}", key_value(kv, names)).unwrap();
        }
    }
}

impl Answer for RangeResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let RangeResponse { header: _, kvs, more, count } = self;
        for kv in kvs {
            writeln!(text, "{indent}{}", key_value(kv, names)).unwrap();
        }
        let more = if *more { ", more" } else { "" };
        writeln!(text, "{indent}count {count}{more}").unwrap();
    }
}

impl Answer for DeleteRangeResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let DeleteRangeResponse { header: _, deleted, prev_kvs } = self;
        for kv in prev_kvs {
            writeln!(text, "{indent}was {}", key_value(kv, names)).unwrap();
        }
        writeln!(text, "{indent}{deleted} deleted").unwrap();
    }
}

impl Answer for TxnResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let TxnResponse { header: _, succeeded, responses } = self;
        writeln!(text, "{indent}{}", if *succeeded { "then" } else { "else" }).unwrap();
        let deeper = format!("{indent}  ");
        for response in responses {
            let mut op = |name: &str, answer: Option<&ResponseHeader>| {
                writeln!(text, "{deeper}{name}, {}", header(answer)).unwrap();
            };
            match &response.response {
                Some(Response::ResponseRange(range)) => {
                    op("got", range.header.as_ref());
                    range.render(text, &deeper, names);
                }
                Some(Response::ResponsePut(put)) => {
                    op("put", put.header.as_ref());
                    put.render(text, &deeper, names);
                }
                Some(Response::ResponseDeleteRange(delete)) => {
                    op("deleted", delete.header.as_ref());
                    delete.render(text, &deeper, names);
                }
                Some(Response::ResponseTxn(txn)) => {
                    op("did", txn.header.as_ref());
                    txn.render(text, &deeper, names);
                }
                None => writeln!(text, "{deeper}nothing").unwrap(),
            }
        }
    }
}

impl Answer for CompactionResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, _: &mut String, _: &str, _: &Names) {
        let CompactionResponse { header: _ } = self;
    }
}

/// Each server has its own hash.
impl Answer for HashKvResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, _: &Names) {
        let HashKvResponse { header: _, hash: _, compact_revision, hash_revision } = self;
        writeln!(text, "{indent}compacted {compact_revision}, hashed {hash_revision}").unwrap();
    }
}

impl Answer for LeaseGrantResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let LeaseGrantResponse { header: _, id, ttl, error } = self;
        writeln!(text, "{indent}lease {}, TTL {ttl}", lease_id(*id, names)).unwrap();
        if !error.is_empty() {
            writeln!(text, "{indent}error {error:?}").unwrap();
        }
    }
}

impl Answer for LeaseRevokeResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, _: &mut String, _: &str, _: &Names) {
        let LeaseRevokeResponse { header: _ } = self;
    }
}

impl Answer for LeaseKeepAliveResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let LeaseKeepAliveResponse { header: _, id, ttl } = self;
        writeln!(text, "{indent}lease {}, TTL {ttl}", lease_id(*id, names)).unwrap();
    }
}

/// etcd lists the keys in no particular order, so they are sorted here.
impl Answer for LeaseTimeToLiveResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let LeaseTimeToLiveResponse { header: _, id, ttl, granted_ttl, keys } = self;
        let (id, ttl) = (lease_id(*id, names), remaining(*ttl, *granted_ttl));
        write!(text, "{indent}lease {id}, TTL {ttl} of {granted_ttl}, keys [").unwrap();
        let mut keys: Vec<_> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
        keys.sort();
        writeln!(text, "{}]", keys.join(" ")).unwrap();
    }
}

/// etcd's leader lists leases by remaining TTL, other members in no particular order, so they are
/// sorted here.
impl Answer for LeaseLeasesResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    fn render(&self, text: &mut String, indent: &str, names: &Names) {
        let LeaseLeasesResponse { header: _, leases } = self;
        let mut leases: Vec<_> = leases.iter().map(|lease| lease_id(lease.id, names)).collect();
        leases.sort();
        writeln!(text, "{indent}leases [{}]", leases.join(" ")).unwrap();
    }
}
