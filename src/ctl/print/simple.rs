//! `-w simple`: keys and values on lines of their own, unescaped.

use super::ValueStyle;
use crate::proto::mvccpb::KeyValue;

pub fn key_values(kvs: &[KeyValue], style: ValueStyle) -> Vec<u8> {
    let mut out = Vec::new();
    for kv in kvs {
        if !style.value_only {
            line(&mut out, &kv.key, style);
        }
        line(&mut out, &kv.value, style);
    }
    out
}

fn line(out: &mut Vec<u8>, bytes: &[u8], style: ValueStyle) {
    if style.hex {
        bytes.iter().for_each(|byte| out.extend(format!("\\x{byte:02x}").bytes()));
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

/// The cells of a table, a line for each row.
pub fn comma_separated(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join(", ") + "\n").collect()
}
