//! `-w json`: one line, with the names and the order of the protobuf fields. What is zero or empty
//! is left out; bytes are base64.

use super::{Answer, Style, WatchAnswer, role};
use crate::{
    ctl::{
        doctor::{Finding, Report},
        endpoint::{EndpointHash, EndpointHealth, EndpointStatus},
        gotext::duration,
        member::MemberAnswer,
    },
    proto::{
        etcdserverpb::{
            DeleteRangeResponse, HashKvResponse, LeaseLeasesResponse, LeaseStatus,
            LeaseTimeToLiveResponse, Member, MemberListResponse, PutResponse, RangeResponse,
            ResponseHeader, ResponseOp, StatusResponse, TxnResponse, response_op::Response as Op,
        },
        mvccpb::{Event, KeyValue},
        own::{ClusterMember, ClusterReply},
    },
};

pub(crate) fn render(answer: &Answer, style: Style) -> String {
    let mut line = match answer {
        Answer::Get(response) => get(response),
        Answer::Put(response) => put(response),
        Answer::Del(response) => del(response),
        Answer::Txn(response) => txn(response),
        Answer::Compacted(revision) => Object::new().number("compact_revision", *revision).end(),
        // Only here has etcdctl hexadecimal ids.
        Answer::Members(response) => members(response, style.hex),
        Answer::Member(answer) => changed(answer),
        Answer::Cluster(reply) => cluster(reply),
        Answer::Recovering(id) => Object::new().value("cluster_id", id.to_string()).end(),
        Answer::Report(found) => report(found),
        Answer::Status(endpoints) => array(endpoints, |EndpointStatus { endpoint, status: s }| {
            Object::new().text("Endpoint", endpoint).value("Status", status(s)).end()
        }),
        Answer::Health(endpoints) => array(endpoints, health),
        Answer::Granted(r) => renewal(r.header, r.id, r.ttl).value("Error", text(&r.error)).end(),
        Answer::Revoked(_, response) => Object::new().header(response.header).end(),
        Answer::KeptAlive(r) => renewal(r.header, r.id, r.ttl).end(),
        Answer::TimeToLive { left, .. } => time_to_live(left),
        Answer::Leases(response) => leases(response),
        Answer::Watch(answer) => watch(answer),
        Answer::Hash(endpoints) => array(endpoints, |EndpointHash { endpoint, hash: h }| {
            Object::new().text("Endpoint", endpoint).value("HashKV", hash(h)).end()
        }),
    };
    line.push('\n');
    line
}

fn get(response: &RangeResponse) -> String {
    Object::new()
        .header(response.header)
        .list("kvs", &response.kvs, key_value)
        .flag("more", response.more)
        .number("count", response.count)
        .end()
}

fn put(response: &PutResponse) -> String {
    let prev_kv = response.prev_kv.as_ref().map(key_value);
    Object::new().header(response.header).optional("prev_kv", prev_kv).end()
}

fn del(response: &DeleteRangeResponse) -> String {
    Object::new()
        .header(response.header)
        .number("deleted", response.deleted)
        .list("prev_kvs", &response.prev_kvs, key_value)
        .end()
}

fn txn(response: &TxnResponse) -> String {
    Object::new()
        .header(response.header)
        .flag("succeeded", response.succeeded)
        .list("responses", &response.responses, operation)
        .end()
}

/// Go wraps what is one of several in an object of its own.
fn operation(op: &ResponseOp) -> String {
    let response = op.response.as_ref().map(|response| {
        let (name, value) = match response {
            Op::ResponseRange(response) => ("response_range", get(response)),
            Op::ResponsePut(response) => ("response_put", put(response)),
            Op::ResponseDeleteRange(response) => ("response_delete_range", del(response)),
            Op::ResponseTxn(response) => ("response_txn", txn(response)),
        };
        Object::new().value(name, value).end()
    });
    Object::new().value("Response", response.unwrap_or_else(|| "null".into())).end()
}

fn key_value(kv: &KeyValue) -> String {
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

fn watch(answer: &WatchAnswer) -> String {
    let event = |event: &Event| {
        Object::new()
            .number("type", event.r#type.into())
            .optional("kv", event.kv.as_ref().map(key_value))
            .optional("prev_kv", event.prev_kv.as_ref().map(key_value))
            .end()
    };
    Object::new()
        .value("Header", header(&answer.header, false))
        .value("Events", array(&answer.events, event))
        .value("CompactRevision", answer.canceled.unwrap_or_default().to_string())
        .value("Canceled", answer.canceled.is_some().to_string())
        .value("Created", "false")
        .end()
}

/// etcdctl has these headers' fields among the answer's own.
fn renewal(header: Option<ResponseHeader>, id: i64, ttl: i64) -> Object {
    Object::new().fields_of(header).value("ID", id.to_string()).value("TTL", ttl.to_string())
}

fn time_to_live(left: &LeaseTimeToLiveResponse) -> String {
    let keys = match &left.keys[..] {
        [] => "null".into(),
        keys => array(keys, |key| format!("\"{}\"", base64(key))),
    };
    Object::new()
        .fields_of(left.header)
        .value("id", left.id.to_string())
        .value("ttl", left.ttl.to_string())
        .value("granted-ttl", left.granted_ttl.to_string())
        .value("keys", keys)
        .end()
}

fn leases(response: &LeaseLeasesResponse) -> String {
    let lease = |lease: &LeaseStatus| Object::new().value("id", lease.id.to_string()).end();
    Object::new().fields_of(response.header).value("leases", array(&response.leases, lease)).end()
}

fn members(response: &MemberListResponse, hex: bool) -> String {
    let header = response.header.map(|h| header(&h, hex));
    let member = |one: &Member| member(one, hex);
    Object::new().optional("header", header).list("members", &response.members, member).end()
}

fn member(member: &Member, hex: bool) -> String {
    Object::new()
        .id("ID", member.id, hex)
        .text("name", &member.name)
        .list("peerURLs", &member.peer_ur_ls, |url| text(url))
        .list("clientURLs", &member.client_ur_ls, |url| text(url))
        .flag("isLearner", member.is_learner)
        .end()
}

fn changed(answer: &MemberAnswer) -> String {
    let list = |object: Object, members: &[Member]| {
        object.list("members", members, |one| member(one, false)).end()
    };
    let object = |header| Object::new().header(header);
    match answer {
        MemberAnswer::Added { response: r, .. } => {
            let added = r.member.as_ref().map(|added| member(added, false));
            list(object(r.header).optional("member", added), &r.members)
        }
        MemberAnswer::Removed(_, r) => list(object(r.header), &r.members),
        MemberAnswer::Updated(_, r) => list(object(r.header), &r.members),
        MemberAnswer::Promoted(_, r) => list(object(r.header), &r.members),
        MemberAnswer::LeaderMoved { response, .. } => object(response.header).end(),
    }
}

/// Ours: ids are hexadecimal text, as everywhere else where people read them; what is not known is
/// `null`.
fn cluster(reply: &ClusterReply) -> String {
    let known = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    let member = |member: &ClusterMember| {
        Object::new()
            .value("ordinal", member.ordinal.to_string())
            .value("member", text(&format!("{:x}", member.member_id)))
            .value("name", text(&member.name))
            .value("role", text(role(member, reply.leader)))
            .value("boot", member.boot.to_string())
            .value("in_contact", known(member.in_contact.map(|yes| yes.to_string())))
            .value("lag", known(member.lag.map(|lag| lag.to_string())))
            .value("client_urls", array(&member.client_urls, |url| text(url)))
            .end()
    };
    let desired = reply.desired.map(|desired| {
        Object::new()
            .value("start", desired.start.to_string())
            .value("replicas", desired.replicas.to_string())
            .value("generation", desired.generation.to_string())
            .end()
    });
    let leader = (reply.leader != 0).then(|| text(&format!("{:x}", reply.leader)));
    let leading = reply.leading.as_ref();
    let waits_for = leading.map(|l| &l.waits_for).filter(|why| !why.is_empty());
    let tolerates = leading.and_then(|l| l.tolerates);
    Object::new()
        .value("cluster", text(&format!("{:x}", reply.cluster_id)))
        .value("told_by", text(&format!("{:x}", reply.member_id)))
        .value("told_by_leader", leading.is_some().to_string())
        .value("leader", known(leader))
        .value("term", reply.term.to_string())
        .value("follows_pods", reply.follows_pods.to_string())
        .value("desired", known(desired))
        .value("tolerates", known(tolerates.map(|n| n.to_string())))
        .value("waits_for", known(waits_for.map(|why| text(why))))
        .value("members", array(&reply.members, member))
        .end()
}

fn report(found: &Report) -> String {
    let finding = |finding: &Finding| {
        Object::new()
            .value("check", text(finding.check))
            .value("problem", finding.problem.to_string())
            .value("what", text(&finding.what))
            .value("advice", text(&finding.advice))
            .end()
    };
    Object::new()
        .value("healthy", found.is_healthy().to_string())
        .value("summary", text(&found.summary))
        .value("findings", array(&found.findings, finding))
        .end()
}

fn status(status: &StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        Object::new()
            .flag("enabled", info.enabled)
            .text("targetVersion", &info.target_version)
            .end()
    });
    Object::new()
        .header(status.header)
        .text("version", &status.version)
        .number("dbSize", status.db_size)
        .id("leader", status.leader, false)
        .id("raftIndex", status.raft_index, false)
        .id("raftTerm", status.raft_term, false)
        .id("raftAppliedIndex", status.raft_applied_index, false)
        .list("errors", &status.errors, |error| text(error))
        .number("dbSizeInUse", status.db_size_in_use)
        .flag("isLearner", status.is_learner)
        .text("storageVersion", &status.storage_version)
        .number("dbSizeQuota", status.db_size_quota)
        .optional("downgradeInfo", downgrade)
        .end()
}

fn hash(hash: &HashKvResponse) -> String {
    Object::new()
        .header(hash.header)
        .number("hash", hash.hash.into())
        .number("compact_revision", hash.compact_revision)
        .number("hash_revision", hash.hash_revision)
        .end()
}

fn health(health: &EndpointHealth) -> String {
    Object::new()
        .text("endpoint", &health.endpoint)
        .value("health", health.error.is_none().to_string())
        .text("took", &duration(health.took))
        .text("error", health.error.as_deref().unwrap_or_default())
        .end()
}

fn header(header: &ResponseHeader, hex: bool) -> String {
    Object::new().header_fields(header, hex).end()
}

/// An object in the making: fields in the order they are added, but those that are zero or empty.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".into())
    }

    fn value(mut self, name: &str, json: impl AsRef<str>) -> Object {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0 += &text(name);
        self.0.push(':');
        self.0 += json.as_ref();
        self
    }

    fn unless(self, absent: bool, name: &str, json: impl FnOnce() -> String) -> Object {
        if absent { self } else { self.value(name, json()) }
    }

    fn optional(self, name: &str, json: Option<String>) -> Object {
        match json {
            Some(json) => self.value(name, json),
            None => self,
        }
    }

    fn number(self, name: &str, number: i64) -> Object {
        self.unless(number == 0, name, || number.to_string())
    }

    fn id(self, name: &str, id: u64, hex: bool) -> Object {
        self.unless(id == 0, name, || if hex { format!("\"{id:x}\"") } else { id.to_string() })
    }

    fn flag(self, name: &str, flag: bool) -> Object {
        self.unless(!flag, name, || "true".into())
    }

    fn text(self, name: &str, value: &str) -> Object {
        self.unless(value.is_empty(), name, || text(value))
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Object {
        self.unless(bytes.is_empty(), name, || format!("\"{}\"", base64(bytes)))
    }

    fn list<T>(self, name: &str, items: &[T], json: impl Fn(&T) -> String) -> Object {
        self.unless(items.is_empty(), name, || array(items, json))
    }

    fn header(self, h: Option<ResponseHeader>) -> Object {
        self.optional("header", h.map(|h| header(&h, false)))
    }

    /// The header's fields among this object's own.
    fn fields_of(self, header: Option<ResponseHeader>) -> Object {
        self.header_fields(&header.unwrap_or_default(), false)
    }

    fn header_fields(self, header: &ResponseHeader, hex: bool) -> Object {
        self.id("cluster_id", header.cluster_id, hex)
            .id("member_id", header.member_id, hex)
            .number("revision", header.revision)
            .id("raft_term", header.raft_term, false)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn array<T>(items: &[T], json: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(","))
}

/// A string. Go also escapes what could end a script in a web page.
fn text(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i| chunk.get(i).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // n bytes fill n + 1 digits; the rest is padding.
            out.push(match digit <= chunk.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_what_does_not_fill_three_bytes() {
        for (bytes, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        assert_eq!(text("a<b>&\"\u{2028}\n"), r#""a\u003cb\u003e\u0026\"\u2028\n""#);
    }
}
