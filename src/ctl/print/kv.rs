//! The answers of `get`, `put`, `del` and `txn`.

use super::{
    Answer, Rendered, ValueStyle,
    fields::Fields,
    json::{Object, key_value},
    simple::key_values,
};
use crate::proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse,
    response_op::Response as Op,
};

impl Answer for RangeResponse {
    fn simple(&self, style: ValueStyle) -> Rendered {
        Rendered::stdout(key_values(&self.kvs, style))
    }

    fn json(&self, _: ValueStyle) -> String {
        Object::new()
            .header(self.header)
            .list("kvs", &self.kvs, key_value)
            .flag("more", self.more)
            .number("count", self.count)
            .end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.header);
        self.kvs.iter().for_each(|kv| fields.key_value("", kv));
        fields.field("More", self.more);
        fields.field("Count", self.count);
        Some(fields.text())
    }
}

impl Answer for PutResponse {
    fn simple(&self, style: ValueStyle) -> Rendered {
        let mut out = b"OK\n".to_vec();
        out.extend(key_values(self.prev_kv.as_slice(), style));
        Rendered::stdout(out)
    }

    fn json(&self, _: ValueStyle) -> String {
        let prev_kv = self.prev_kv.as_ref().map(key_value);
        Object::new().header(self.header).optional("prev_kv", prev_kv).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.header);
        self.prev_kv.iter().for_each(|kv| fields.key_value("Prev", kv));
        Some(fields.text())
    }
}

impl Answer for DeleteRangeResponse {
    fn simple(&self, style: ValueStyle) -> Rendered {
        let mut out = format!("{}\n", self.deleted).into_bytes();
        out.extend(key_values(&self.prev_kvs, style));
        Rendered::stdout(out)
    }

    fn json(&self, _: ValueStyle) -> String {
        Object::new()
            .header(self.header)
            .number("deleted", self.deleted)
            .list("prev_kvs", &self.prev_kvs, key_value)
            .end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.header);
        fields.field("Deleted", self.deleted);
        self.prev_kvs.iter().for_each(|kv| fields.key_value("Prev", kv));
        Some(fields.text())
    }
}

impl Answer for TxnResponse {
    fn simple(&self, style: ValueStyle) -> Rendered {
        let mut out = if self.succeeded { b"SUCCESS\n".to_vec() } else { b"FAILURE\n".to_vec() };
        for op in &self.responses {
            out.push(b'\n');
            if let Some((_, response)) = response(op) {
                out.extend(response.simple(style).stdout);
            }
        }
        Rendered::stdout(out)
    }

    fn json(&self, style: ValueStyle) -> String {
        Object::new()
            .header(self.header)
            .flag("succeeded", self.succeeded)
            .list("responses", &self.responses, |op| operation_json(op, style))
            .end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(self.header);
        fields.field("Succeeded", self.succeeded);
        let responses = self.responses.iter().filter_map(response);
        let nested = responses.filter_map(|(_, response)| response.fields(style));
        Some(fields.text() + &nested.collect::<String>())
    }
}

/// The response to one operation of a transaction, with its name in JSON.
fn response(op: &ResponseOp) -> Option<(&'static str, &dyn Answer)> {
    Some(match op.response.as_ref()? {
        Op::ResponseRange(response) => ("response_range", response),
        Op::ResponsePut(response) => ("response_put", response),
        Op::ResponseDeleteRange(response) => ("response_delete_range", response),
        Op::ResponseTxn(response) => ("response_txn", response),
    })
}

/// Go wraps a `oneof` in an object of its own.
fn operation_json(op: &ResponseOp, style: ValueStyle) -> String {
    let response =
        response(op).map(|(name, response)| Object::new().value(name, response.json(style)).end());
    Object::new().value("Response", response.unwrap_or_else(|| "null".into())).end()
}
