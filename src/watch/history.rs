//! Reads what slow watches missed, on a lane of its own: it may block on the disk.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Options,
    events::{Encoder, Events, Wants},
    hub::Command,
    topics::{Keys, Topics, by_topic},
};
use crate::{
    state::{ReadError, Record, StorageError, View},
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
        let past = self.view.past(job.from, job.to, self.options.limits.read_bytes)?;
        let previous = |key: &[u8], revision| past.previous(key, revision);
        let encoder = Encoder::new(&past.records, &previous, self.options.fragment_bytes);
        let events = find(&past.records, &job.interests, encoder)?;
        Ok(Found { next: past.next, events })
    }
}

/// What of `records` is for whom.
pub(super) fn find(
    records: &[Arc<Record>],
    interests: &[Interest],
    mut encoder: Encoder<'_>,
) -> Result<Vec<(usize, Events)>, StorageError> {
    let mut topics = Topics::default();
    let mut who: Vec<Vec<usize>> = Vec::new();
    for (at, interest) in interests.iter().enumerate() {
        match topics.get(&interest.keys) {
            Some(topic) => who[topic as usize].push(at),
            None => {
                topics.insert(interest.keys.clone(), who.len() as u32);
                who.push(vec![at]);
            }
        }
    }
    let mut found = BTreeMap::new();
    for (topic, which) in by_topic(&topics.matching(records)) {
        for at in &who[topic as usize] {
            let Interest { next, wants, .. } = interests[*at];
            if let Some(events) = encoder.encode(&which, next, wants)? {
                found.insert(*at, events);
            }
        }
    }
    Ok(found.into_iter().collect())
}
