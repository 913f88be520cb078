//! Reads what slow watches missed, on a lane of its own: it may block on the disk.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Options, before,
    events::{Encoder, Events, Wants},
    hub::Command,
    topics::{Keys, Topics, by_topic},
};
use crate::{
    state::{ReadError, Record, View},
    types::Revision,
};

/// Watches that need the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) keys: Keys,
    pub(super) wants: Wants,
    /// The first revision they have not heard of.
    pub(super) next: Revision,
}

/// What is to be read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) from: Revision,
    /// As far as the hub has come. The state may show more already: that comes through the feed, and
    /// would come twice.
    pub(super) to: Revision,
    pub(super) interests: Arc<[Interest]>,
}

/// What there was for each interest, in order of the interests, from the job's revision up to `next`.
/// An interest that begins within gets what is left for it; one beyond, nothing.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: Revision,
    pub(super) events: Vec<(usize, Events)>,
}

/// The lane's state.
#[derive(Debug)]
pub(super) struct Reader {
    view: View,
    options: Options,
    answers: mpsc::WeakUnboundedSender<Command>,
}

impl Reader {
    pub(super) fn new(
        view: View,
        options: Options,
        answers: mpsc::WeakUnboundedSender<Command>,
    ) -> Reader {
        Reader { view, options, answers }
    }

    pub(super) fn handle(&mut self, jobs: &mut Vec<Job>) {
        for job in jobs.drain(..) {
            let found = self.read(&job);
            if let Some(answers) = self.answers.upgrade() {
                // The hub is gone, and those who waited for this.
                let _ = answers.send(Command::Read(found));
            }
        }
    }

    fn read(&self, job: &Job) -> Result<Found, ReadError> {
        let bytes_max = self.options.limits.read_bytes;
        let mut past = self.view.past(job.from, job.to, bytes_max)?;
        let before = before::read(&mut past, &job.interests, bytes_max)?;
        let previous = |at: usize| Ok::<_, Infallible>(before[at].clone());
        let encoder = Encoder::new(&past.records, &previous, self.options.fragment_bytes);
        let Ok(events) = find(&past.records, &job.interests, encoder);
        Ok(Found { next: past.next, events })
    }
}

/// Who of some interests hears of which keys.
pub(super) struct Audience {
    topics: Topics,
    /// Places of interests, by topic.
    who: Vec<Vec<usize>>,
}

impl Audience {
    pub(super) fn of(interests: &[Interest]) -> Audience {
        let mut audience = Audience { topics: Topics::default(), who: Vec::new() };
        for (at, interest) in interests.iter().enumerate() {
            match audience.topics.get(&interest.keys) {
                Some(topic) => audience.who[topic as usize].push(at),
                None => {
                    audience.topics.insert(interest.keys.clone(), audience.who.len() as u32);
                    audience.who.push(vec![at]);
                }
            }
        }
        audience
    }

    /// Interests that watch the same keys, and the places of the records that are of these.
    pub(super) fn hearing(&self, records: &[Arc<Record>]) -> Vec<(&[usize], Vec<u32>)> {
        // Bounded: a job has few interests in ranges.
        let (matching, _) = self.topics.matching(records, usize::MAX);
        let who = |(topic, which)| (&*self.who[topic as usize], which);
        by_topic(&matching).map(who).collect()
    }
}

/// What of `records` is for whom.
pub(super) fn find<E>(
    records: &[Arc<Record>],
    interests: &[Interest],
    mut encoder: Encoder<'_, E>,
) -> Result<Vec<(usize, Events)>, E> {
    let mut found = BTreeMap::new();
    for (who, which) in Audience::of(interests).hearing(records) {
        for at in who {
            let Interest { next, wants, .. } = interests[*at];
            if let Some(events) = encoder.encode(&which, next, wants)? {
                found.insert(*at, events);
            }
        }
    }
    Ok(found.into_iter().collect())
}
