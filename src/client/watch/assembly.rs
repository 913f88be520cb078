//! Answers of a stream become batches of whole revisions, each event once.

use crate::proto::{etcdserverpb::WatchResponse, mvccpb::Event};

/// What has come of a watch, and from where it goes on.
///
/// - No batch splits a revision: what one transaction did comes at once, also if the member sends
///   it in fragments. Of a fragmented answer only the last revision waits for the rest.
/// - No batch has an event of a revision before [`next`](Self::next), and each moves it on.
#[derive(Debug)]
pub(super) struct Assembly {
    next: i64,
    /// The events of a revision whose end has not come yet.
    held: Vec<Event>,
}

impl Assembly {
    /// Nothing before this revision is wanted.
    pub(super) fn starting_at(next: i64) -> Assembly {
        Assembly { next, held: Vec::new() }
    }

    /// The revision to resume from: all before it were delivered, or do not concern the watch.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// The stream broke: half a revision will come again as a whole.
    pub(super) fn forget_half(&mut self) {
        self.held.clear();
    }

    /// A member says that nothing is outstanding up to this revision.
    pub(super) fn progressed_to(&mut self, revision: i64) {
        if self.held.is_empty() {
            self.next = self.next.max(revision + 1);
        }
    }

    /// Takes an answer's events, and gives those that are whole.
    pub(super) fn take(&mut self, answer: &mut WatchResponse) -> Vec<Event> {
        let next = self.next;
        let events = std::mem::take(&mut answer.events);
        self.held.extend(events.into_iter().filter(|event| revision(event) >= next));
        let Some(last) = self.held.last().map(revision) else { return Vec::new() };
        let whole = match answer.fragment {
            true => self.held.partition_point(|event| revision(event) < last),
            false => self.held.len(),
        };
        let rest = self.held.split_off(whole);
        let batch = std::mem::replace(&mut self.held, rest);
        if let Some(last) = batch.last() {
            self.next = revision(last) + 1;
        }
        batch
    }
}

/// When it happened; the key that a deletion tells of has the deletion's revision.
fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mvccpb::KeyValue;

    fn answer(revisions: &[i64], fragment: bool) -> WatchResponse {
        let event = |&mod_revision| Event {
            kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let events = revisions.iter().map(event).collect();
        WatchResponse { events, fragment, ..WatchResponse::default() }
    }

    fn take(assembly: &mut Assembly, revisions: &[i64], fragment: bool) -> Vec<i64> {
        assembly.take(&mut answer(revisions, fragment)).iter().map(revision).collect()
    }

    #[test]
    fn a_fragmented_revision_is_delivered_whole() {
        let mut assembly = Assembly::starting_at(5);
        assert_eq!(take(&mut assembly, &[5, 6, 6], true), [5]);
        assert!(take(&mut assembly, &[6], true).is_empty());
        assert_eq!(assembly.next(), 6);
        assert_eq!(take(&mut assembly, &[6, 7], false), [6, 6, 6, 6, 7]);
        assert_eq!(assembly.next(), 8);
    }

    #[test]
    fn half_a_revision_is_not_delivered_twice_when_the_stream_breaks() {
        let mut assembly = Assembly::starting_at(5);
        assert_eq!(take(&mut assembly, &[5, 6], true), [5]);
        assembly.progressed_to(9);
        assert_eq!(assembly.next(), 6, "no progress beyond what is held back");
        assembly.forget_half();
        assert_eq!(take(&mut assembly, &[6, 6], false), [6, 6]);
    }

    #[test]
    fn what_was_delivered_already_is_dropped() {
        let mut assembly = Assembly::starting_at(1);
        assert_eq!(take(&mut assembly, &[3, 4], false), [3, 4]);
        assert_eq!(take(&mut assembly, &[4, 5], false), [5]);
        assembly.progressed_to(2);
        assert_eq!(assembly.next(), 6, "progress never goes back");
    }

    proptest! {
        /// However the events are cut into answers, and wherever streams break: all come once, in
        /// order, and no revision is split.
        #[test]
        fn any_cutting_delivers_every_event_once(
            sizes in prop::collection::vec(1_usize..4, 1..12),
            cuts in prop::collection::vec((1_usize..4, any::<bool>()), 1..60),
        ) {
            let log: Vec<i64> = (1..).zip(&sizes).flat_map(|(r, n)| vec![r; *n]).collect();
            let mut assembly = Assembly::starting_at(1);
            let (mut delivered, mut sent) = (Vec::new(), 0);
            let mut send = |assembly: &mut Assembly, sent: usize, cut: usize| {
                let to = (sent + cut).min(log.len());
                // A whole answer ends where a revision does.
                let whole = to == log.len() || log[to] != log[to - 1];
                let batch = take(assembly, &log[sent..to], !whole);
                if let (Some(last), Some(next)) = (delivered.last(), batch.first()) {
                    assert!(last < next, "a revision was split");
                }
                delivered.extend(batch);
                to
            };
            for (cut, breaks) in cuts {
                if sent == log.len() { break }
                sent = send(&mut assembly, sent, cut);
                if breaks {
                    assembly.forget_half();
                    sent = log.partition_point(|r| *r < assembly.next());
                }
            }
            if sent < log.len() {
                send(&mut assembly, sent, log.len());
            }
            prop_assert_eq!(delivered, log);
        }
    }
}
