//! The answers about leases, as etcdctl prints them.

use crate::{
    ctl::print::{
        Answer, Rendered, ValueStyle,
        fields::Fields,
        json::{Object, array, base64, text},
    },
    proto::etcdserverpb::{
        LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveResponse, ResponseHeader,
    },
};

impl Answer for LeaseGrantResponse {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(format!("lease {:016x} granted with TTL({}s)\n", self.id, self.ttl))
    }

    fn json(&self, _: ValueStyle) -> String {
        ttl_json(self.header, self.id, self.ttl).value("Error", text(&self.error)).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        Some(ttl_fields(style, self.header, self.id, self.ttl).text())
    }
}

impl Answer for LeaseKeepAliveResponse {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(format!("lease {:016x} keepalived with TTL({})\n", self.id, self.ttl))
    }

    fn json(&self, _: ValueStyle) -> String {
        ttl_json(self.header, self.id, self.ttl).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        Some(ttl_fields(style, self.header, self.id, self.ttl).text())
    }
}

#[derive(Debug, Clone)]
pub struct Revoked {
    pub id: i64,
    pub response: LeaseRevokeResponse,
}

impl Answer for Revoked {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(format!("lease {:016x} revoked\n", self.id))
    }

    fn json(&self, _: ValueStyle) -> String {
        Object::new().header(self.response.header).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.response.header);
        Some(fields.text())
    }
}

#[derive(Debug, Clone)]
pub struct TimeToLive {
    pub response: LeaseTimeToLiveResponse,
    /// `--keys` was given.
    pub keys: bool,
}

impl Answer for TimeToLive {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = &self.response;
        if *granted_ttl == 0 && *ttl == -1 {
            return Rendered::stdout(format!("lease {id:016x} already expired\n"));
        }
        let text = format!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)");
        let mut out = text.into_bytes();
        if self.keys {
            out.extend_from_slice(b", attached keys([");
            out.extend(keys.join(&b' '));
            out.extend_from_slice(b"])");
        }
        out.push(b'\n');
        Rendered::stdout(out)
    }

    fn json(&self, _: ValueStyle) -> String {
        let response = &self.response;
        let keys = match &response.keys[..] {
            [] => "null".into(),
            keys => array(keys, |key| format!("\"{}\"", base64(key))),
        };
        Object::new()
            .fields_of(response.header)
            .value("id", response.id.to_string())
            .value("ttl", response.ttl.to_string())
            .value("granted-ttl", response.granted_ttl.to_string())
            .value("keys", keys)
            .end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let response = &self.response;
        let mut fields = ttl_fields(style, response.header, response.id, response.ttl);
        fields.field("GrantedTTL", response.granted_ttl);
        response.keys.iter().for_each(|key| fields.quoted("Key", key));
        Some(fields.text())
    }
}

impl Answer for LeaseLeasesResponse {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let ids = self.leases.iter().map(|lease| format!("{:016x}\n", lease.id));
        let text = format!("found {} leases\n", self.leases.len()) + &ids.collect::<String>();
        Rendered::stdout(text)
    }

    fn json(&self, _: ValueStyle) -> String {
        let lease = |lease: &LeaseStatus| Object::new().value("id", lease.id.to_string()).end();
        Object::new().fields_of(self.header).value("leases", array(&self.leases, lease)).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.header);
        self.leases.iter().for_each(|lease| fields.lease_id("ID", lease.id));
        Some(fields.text())
    }
}

/// etcdctl has the header's fields among the answer's own.
fn ttl_json(header: Option<ResponseHeader>, id: i64, ttl: i64) -> Object {
    Object::new().fields_of(header).value("ID", id.to_string()).value("TTL", ttl.to_string())
}

fn ttl_fields(style: ValueStyle, header: Option<ResponseHeader>, id: i64, ttl: i64) -> Fields {
    let mut fields = Fields::new(style);
    fields.header(header);
    fields.lease_id("ID", id);
    fields.field("TTL", ttl);
    fields
}
