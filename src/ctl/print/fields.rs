//! `-w fields`: one `"Name" : value` a line, with all numbers.

use std::fmt::Display;

use super::ValueStyle;
use crate::{
    ctl::gotext::quote,
    proto::{etcdserverpb::ResponseHeader, mvccpb::KeyValue},
};

/// Lines in the order in which they are added.
pub struct Fields {
    text: String,
    /// Ids in hexadecimal.
    hex: bool,
}

impl Fields {
    pub fn new(style: ValueStyle) -> Fields {
        Fields { text: String::new(), hex: style.hex }
    }

    pub fn text(self) -> String {
        self.text
    }

    pub fn field(&mut self, name: &str, value: impl Display) {
        self.text += &format!("\"{name}\" : {value}\n");
    }

    pub fn id(&mut self, name: &str, id: u64) {
        if self.hex { self.field(name, format_args!("{id:x}")) } else { self.field(name, id) }
    }

    pub fn lease_id(&mut self, name: &str, id: i64) {
        if self.hex { self.field(name, format_args!("{id:016x}")) } else { self.field(name, id) }
    }

    pub fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.field(name, quote(value.as_ref()));
    }

    pub fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A header that is missing has zeros, as in Go.
    pub fn header(&mut self, header: Option<ResponseHeader>) {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        self.field("Revision", header.revision);
        self.field("RaftTerm", header.raft_term);
    }

    pub fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.lease_id(&format!("{prefix}Lease"), kv.lease);
    }
}
