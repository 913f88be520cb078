//! Events of watches. They are encoded apart from the answers that carry them: many answers carry
//! the same ones.

use prost::encoding;

use crate::{
    proto::mvccpb::{self, event::EventType},
    types::KeyValue,
};

/// The number of `WatchResponse.events`. What is appended to an encoded message is part of it.
const EVENTS: u32 = 11;

/// An event, encoded as a field of a `WatchResponse`. Of a deletion, `kv` holds no more than the key
/// and the revision.
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
