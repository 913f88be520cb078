//! `-w json`: one line, with the names and the order of the protobuf fields. Fields that are zero or
//! empty are left out; bytes are base64.

use crate::proto::{etcdserverpb::ResponseHeader, mvccpb::KeyValue};

pub fn key_value(kv: &KeyValue) -> String {
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

pub fn header(header: &ResponseHeader, hex: bool) -> String {
    Object::new().header_fields(header, hex).end()
}

/// A JSON object under construction: fields in the order in which they are added, without those that
/// are zero or empty.
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object("{".into())
    }

    pub fn value(mut self, name: &str, json: impl AsRef<str>) -> Object {
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

    pub fn optional(self, name: &str, json: Option<String>) -> Object {
        match json {
            Some(json) => self.value(name, json),
            None => self,
        }
    }

    pub fn number(self, name: &str, number: i64) -> Object {
        self.unless(number == 0, name, || number.to_string())
    }

    pub fn id(self, name: &str, id: u64, hex: bool) -> Object {
        self.unless(id == 0, name, || if hex { format!("\"{id:x}\"") } else { id.to_string() })
    }

    pub fn flag(self, name: &str, flag: bool) -> Object {
        self.unless(!flag, name, || "true".into())
    }

    pub fn text(self, name: &str, value: &str) -> Object {
        self.unless(value.is_empty(), name, || text(value))
    }

    pub fn bytes(self, name: &str, bytes: &[u8]) -> Object {
        self.unless(bytes.is_empty(), name, || format!("\"{}\"", base64(bytes)))
    }

    pub fn list<T>(self, name: &str, items: &[T], json: impl Fn(&T) -> String) -> Object {
        self.unless(items.is_empty(), name, || array(items, json))
    }

    pub fn header(self, h: Option<ResponseHeader>) -> Object {
        self.optional("header", h.map(|h| header(&h, false)))
    }

    /// The header's fields among this object's own.
    pub fn fields_of(self, header: Option<ResponseHeader>) -> Object {
        self.header_fields(&header.unwrap_or_default(), false)
    }

    fn header_fields(self, header: &ResponseHeader, hex: bool) -> Object {
        self.id("cluster_id", header.cluster_id, hex)
            .id("member_id", header.member_id, hex)
            .number("revision", header.revision)
            .id("raft_term", header.raft_term, false)
    }

    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub fn array<T>(items: &[T], json: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(","))
}

/// A string. Go also escapes characters that could end a script in a web page.
pub fn text(value: &str) -> String {
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

pub fn base64(bytes: &[u8]) -> String {
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
