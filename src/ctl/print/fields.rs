//! `-w fields`: one `"Name" : value` a line, with all numbers.

use std::fmt::Display;

use super::{Answer, Style, WatchAnswer, event_name};
use crate::{
    ctl::{
        endpoint::{EndpointHash, EndpointHealth, EndpointStatus},
        gotext::{duration, quote},
        member::MemberAnswer,
    },
    proto::{
        etcdserverpb::{
            DeleteRangeResponse, Member, PutResponse, RangeResponse, ResponseHeader, TxnResponse,
            response_op::Response as Op,
        },
        mvccpb::KeyValue,
    },
};

pub(crate) fn render(answer: &Answer, style: Style) -> String {
    let mut fields = Fields { text: String::new(), hex: style.hex };
    match answer {
        Answer::Get(response) => fields.get(response),
        Answer::Put(response) => fields.put(response),
        Answer::Del(response) => fields.del(response),
        Answer::Txn(response) => fields.txn(response),
        Answer::Compacted(revision) => fields.field("CompactRevision", revision),
        Answer::Members(response) => {
            fields.header(response.header);
            response.members.iter().for_each(|member| fields.member(member));
        }
        Answer::Member(answer) => fields.members(answer),
        Answer::Cluster(_) | Answer::Recovering(_) | Answer::Report(_) => {}
        Answer::Status(endpoints) => endpoints.iter().for_each(|e| fields.status(e)),
        Answer::Health(endpoints) => endpoints.iter().for_each(|e| fields.health(e)),
        Answer::Hash(endpoints) => endpoints.iter().for_each(|e| fields.hash(e)),
        Answer::Granted(r) => fields.renewal(r.header, r.id, r.ttl),
        Answer::Revoked(_, response) => fields.header(response.header),
        Answer::KeptAlive(r) => fields.renewal(r.header, r.id, r.ttl),
        Answer::TimeToLive { left, .. } => {
            fields.renewal(left.header, left.id, left.ttl);
            fields.field("GrantedTTL", left.granted_ttl);
            left.keys.iter().for_each(|key| fields.quoted("Key", key));
        }
        Answer::Leases(response) => {
            fields.header(response.header);
            response.leases.iter().for_each(|lease| fields.lease("ID", lease.id));
        }
        Answer::Watch(answer) => fields.watch(answer),
    }
    fields.text
}

struct Fields {
    text: String,
    /// Ids in hexadecimal.
    hex: bool,
}

impl Fields {
    fn field(&mut self, name: &str, value: impl Display) {
        self.text += &format!("\"{name}\" : {value}\n");
    }

    fn id(&mut self, name: &str, id: u64) {
        if self.hex { self.field(name, format_args!("{id:x}")) } else { self.field(name, id) }
    }

    fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.field(name, quote(value.as_ref()));
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A header that is missing has zeros, as in Go.
    fn header(&mut self, header: Option<ResponseHeader>) {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        self.field("Revision", header.revision);
        self.field("RaftTerm", header.raft_term);
    }

    fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.lease(&format!("{prefix}Lease"), kv.lease);
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex { self.field(name, format_args!("{id:016x}")) } else { self.field(name, id) }
    }

    fn renewal(&mut self, header: Option<ResponseHeader>, id: i64, ttl: i64) {
        self.header(header);
        self.lease("ID", id);
        self.field("TTL", ttl);
    }

    fn watch(&mut self, answer: &WatchAnswer) {
        self.header(Some(answer.header));
        for event in &answer.events {
            self.field("Type", event_name(event));
            event.prev_kv.iter().for_each(|kv| self.key_value("Prev", kv));
            event.kv.iter().for_each(|kv| self.key_value("", kv));
        }
    }

    fn get(&mut self, response: &RangeResponse) {
        self.header(response.header);
        response.kvs.iter().for_each(|kv| self.key_value("", kv));
        self.field("More", response.more);
        self.field("Count", response.count);
    }

    fn put(&mut self, response: &PutResponse) {
        self.header(response.header);
        response.prev_kv.iter().for_each(|kv| self.key_value("Prev", kv));
    }

    fn del(&mut self, response: &DeleteRangeResponse) {
        self.header(response.header);
        self.field("Deleted", response.deleted);
        response.prev_kvs.iter().for_each(|kv| self.key_value("Prev", kv));
    }

    fn txn(&mut self, response: &TxnResponse) {
        self.header(response.header);
        self.field("Succeeded", response.succeeded);
        for op in &response.responses {
            match &op.response {
                Some(Op::ResponseRange(response)) => self.get(response),
                Some(Op::ResponsePut(response)) => self.put(response),
                Some(Op::ResponseDeleteRange(response)) => self.del(response),
                Some(Op::ResponseTxn(response)) => self.txn(response),
                None => {}
            }
        }
    }

    fn members(&mut self, answer: &MemberAnswer) {
        let (header, members) = match answer {
            MemberAnswer::Added { response, .. } => (response.header, &response.members),
            MemberAnswer::Removed(_, r) => (r.header, &r.members),
            MemberAnswer::Updated(_, r) => (r.header, &r.members),
            MemberAnswer::Promoted(_, r) => (r.header, &r.members),
            MemberAnswer::LeaderMoved { response, .. } => return self.header(response.header),
        };
        self.header(header);
        members.iter().for_each(|member| self.member(member));
    }

    fn member(&mut self, member: &Member) {
        self.id("ID", member.id);
        self.quoted("Name", &member.name);
        member.peer_ur_ls.iter().for_each(|url| self.quoted("PeerURL", url));
        member.client_ur_ls.iter().for_each(|url| self.quoted("ClientURL", url));
        self.field("IsLearner", member.is_learner);
        self.blank();
    }

    fn status(&mut self, EndpointStatus { endpoint, status }: &EndpointStatus) {
        self.header(status.header);
        self.quoted("Version", &status.version);
        self.field("DBSize", status.db_size);
        self.field("Leader", status.leader);
        self.field("IsLearner", status.is_learner);
        self.field("RaftIndex", status.raft_index);
        self.field("RaftTerm", status.raft_term);
        self.field("RaftAppliedIndex", status.raft_applied_index);
        self.field("Errors", format_args!("[{}]", status.errors.join(" ")));
        self.quoted("Endpoint", endpoint);
        self.blank();
    }

    fn health(&mut self, health: &EndpointHealth) {
        self.quoted("Endpoint", &health.endpoint);
        self.field("Health", health.error.is_none());
        self.field("Took", duration(health.took));
        self.field("Error", health.error.as_deref().unwrap_or_default());
        self.blank();
    }

    fn hash(&mut self, EndpointHash { endpoint, hash }: &EndpointHash) {
        self.header(hash.header);
        self.quoted("Endpoint", endpoint);
        self.field("Hash", hash.hash);
        self.blank();
    }
}
