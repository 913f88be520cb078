//! Watch events. They are encoded apart from the responses, because many responses carry the same
//! events.

use prost::encoding;

use crate::{
    proto::mvccpb::{self, event::EventType},
    types::KeyValue,
};

/// The field number of `WatchResponse.events`. Fields appended to an encoded message are part of it.
const EVENTS: u32 = 11;

/// An event, encoded as a field of a `WatchResponse`. In a deletion, `kv` has only the key and the
/// revision.
pub fn encode_event(deleted: bool, kv: KeyValue, previous: Option<KeyValue>) -> Vec<u8> {
    let event = mvccpb::Event {
        r#type: if deleted { EventType::Delete } else { EventType::Put } as i32,
        kv: Some(kv.into()),
        prev_kv: previous.map(Into::into),
    };
    let mut encoded = Vec::with_capacity(encoding::message::encoded_len(EVENTS, &event));
    encoding::message::encode(EVENTS, &event, &mut encoded);
    encoded
}
