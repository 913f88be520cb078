//! One batch of a watch, as etcdctl prints it.

use crate::{
    ctl::print::{
        Answer, Rendered, ValueStyle,
        fields::Fields,
        json::{self, Object, array, key_value},
        simple::key_values,
    },
    proto::{
        etcdserverpb::ResponseHeader,
        mvccpb::{Event, event::EventType},
    },
};

#[derive(Debug, Clone)]
pub struct WatchAnswer {
    pub header: ResponseHeader,
    pub events: Vec<Event>,
    /// The watch has ended. Not 0: because history up to this revision is compacted.
    pub canceled: Option<i64>,
}

impl WatchAnswer {
    pub fn empty(header: ResponseHeader) -> WatchAnswer {
        WatchAnswer { header, events: vec![], canceled: None }
    }
}

impl Answer for WatchAnswer {
    fn simple(&self, style: ValueStyle) -> Rendered {
        let mut out = Vec::new();
        for event in &self.events {
            out.extend_from_slice(event_name(event).as_bytes());
            out.push(b'\n');
            out.extend(key_values(event.prev_kv.as_slice(), style));
            out.extend(key_values(event.kv.as_slice(), style));
        }
        Rendered::stdout(out)
    }

    fn json(&self, _: ValueStyle) -> String {
        let event = |event: &Event| {
            Object::new()
                .number("type", event.r#type.into())
                .optional("kv", event.kv.as_ref().map(key_value))
                .optional("prev_kv", event.prev_kv.as_ref().map(key_value))
                .end()
        };
        Object::new()
            .value("Header", json::header(&self.header, false))
            .value("Events", array(&self.events, event))
            .value("CompactRevision", self.canceled.unwrap_or_default().to_string())
            .value("Canceled", self.canceled.is_some().to_string())
            .value("Created", "false")
            .end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        fields.header(Some(self.header));
        for event in &self.events {
            fields.field("Type", event_name(event));
            event.prev_kv.iter().for_each(|kv| fields.key_value("Prev", kv));
            event.kv.iter().for_each(|kv| fields.key_value("", kv));
        }
        Some(fields.text())
    }
}

pub fn event_name(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}
