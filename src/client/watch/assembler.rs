//! Assembles the responses of a stream into batches of whole revisions, each event once.

use crate::proto::{etcdserverpb::WatchResponse, mvccpb::Event};

/// The next revision of a watch, and its incomplete events.
///
/// - No batch splits a revision, even if the member sends the revision in fragments. Of a fragmented
///   response, only the last revision waits for the rest.
/// - No batch has an event of a revision before [`next`](Self::next), and each batch advances it.
#[derive(Debug)]
pub struct BatchAssembler {
    next: i64,
    /// The events of a revision that is not complete yet.
    partial: Vec<Event>,
}

impl BatchAssembler {
    /// Drops all events before this revision.
    pub fn starting_at(next: i64) -> BatchAssembler {
        BatchAssembler { next, partial: Vec::new() }
    }

    /// The revision to resume from: the watch has returned all earlier events.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The stream broke: the incomplete revision will come again as a whole.
    pub fn discard_partial(&mut self) {
        self.partial.clear();
    }

    /// A progress message: no events are outstanding up to this revision.
    pub fn advance_to(&mut self, revision: i64) {
        if self.partial.is_empty() {
            self.next = self.next.max(revision + 1);
        }
    }

    /// Takes the events of a response. Returns those of complete revisions.
    pub fn take(&mut self, response: &mut WatchResponse) -> Vec<Event> {
        let next = self.next;
        let events = std::mem::take(&mut response.events);
        self.partial.extend(events.into_iter().filter(|event| revision(event) >= next));
        let Some(last) = self.partial.last().map(revision) else { return Vec::new() };
        let whole = match response.fragment {
            true => self.partial.partition_point(|event| revision(event) < last),
            false => self.partial.len(),
        };
        let rest = self.partial.split_off(whole);
        let batch = std::mem::replace(&mut self.partial, rest);
        if let Some(last) = batch.last() {
            self.next = revision(last) + 1;
        }
        batch
    }
}

/// The revision of an event. In a deletion, `mod_revision` is the deletion's revision.
fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mvccpb::KeyValue;

    fn response(revisions: &[i64], fragment: bool) -> WatchResponse {
        let event = |&mod_revision| Event {
            kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let events = revisions.iter().map(event).collect();
        WatchResponse { events, fragment, ..WatchResponse::default() }
    }

    fn take(assembler: &mut BatchAssembler, revisions: &[i64], fragment: bool) -> Vec<i64> {
        assembler.take(&mut response(revisions, fragment)).iter().map(revision).collect()
    }

    #[test]
    fn a_fragmented_revision_is_delivered_whole() {
        let mut assembler = BatchAssembler::starting_at(5);
        assert_eq!(take(&mut assembler, &[5, 6, 6], true), [5]);
        assert!(take(&mut assembler, &[6], true).is_empty());
        assert_eq!(assembler.next(), 6);
        assert_eq!(take(&mut assembler, &[6, 7], false), [6, 6, 6, 6, 7]);
        assert_eq!(assembler.next(), 8);
    }

    #[test]
    fn a_partial_revision_is_not_delivered_twice_when_the_stream_breaks() {
        let mut assembler = BatchAssembler::starting_at(5);
        assert_eq!(take(&mut assembler, &[5, 6], true), [5]);
        assembler.advance_to(9);
        assert_eq!(assembler.next(), 6, "no progress beyond a partial revision");
        assembler.discard_partial();
        assert_eq!(take(&mut assembler, &[6, 6], false), [6, 6]);
    }

    #[test]
    fn delivered_events_are_dropped() {
        let mut assembler = BatchAssembler::starting_at(1);
        assert_eq!(take(&mut assembler, &[3, 4], false), [3, 4]);
        assert_eq!(take(&mut assembler, &[4, 5], false), [5]);
        assembler.advance_to(2);
        assert_eq!(assembler.next(), 6, "progress never goes back");
    }

    proptest! {
        /// All events come once, in order, without a split revision: for any cutting of events into
        /// responses and any breaks of the stream.
        #[test]
        fn any_cutting_delivers_every_event_once(
            sizes in prop::collection::vec(1_usize..4, 1..12),
            cuts in prop::collection::vec((1_usize..4, any::<bool>()), 1..60),
        ) {
            let log: Vec<i64> = (1..).zip(&sizes).flat_map(|(r, n)| vec![r; *n]).collect();
            let mut assembler = BatchAssembler::starting_at(1);
            let (mut delivered, mut sent) = (Vec::new(), 0);
            let mut send = |assembler: &mut BatchAssembler, sent: usize, cut: usize| {
                let to = (sent + cut).min(log.len());
                // A response that is no fragment ends with a revision.
                let whole = to == log.len() || log[to] != log[to - 1];
                let batch = take(assembler, &log[sent..to], !whole);
                if let (Some(last), Some(next)) = (delivered.last(), batch.first()) {
                    assert!(last < next, "a revision was split");
                }
                delivered.extend(batch);
                to
            };
            for (cut, breaks) in cuts {
                if sent == log.len() { break }
                sent = send(&mut assembler, sent, cut);
                if breaks {
                    assembler.discard_partial();
                    sent = log.partition_point(|r| *r < assembler.next());
                }
            }
            if sent < log.len() {
                send(&mut assembler, sent, log.len());
            }
            prop_assert_eq!(delivered, log);
        }
    }
}
