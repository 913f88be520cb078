//! Watching: whoever asks hears of every change of some keys, from some revision on.
//!
//! ```text
//! state ─▶ feed ─▶ watch lane: hub ─▶ outbox ─▶ stream (a task each, in `api`)
//!   ▲                  │    ▲
//!   ╰──── history lane ◀────╯   for those that are behind
//! ```
//!
//! One lane owns all watches and needs no lock for them. A watch is *synced*: it hears of changes as
//! the state publishes them; or it is *slow*: it starts in the past, or its client did not read and
//! its stream ran full. A slow one reads the history, several together where they are close, until
//! it has come as far as the lane; so a client that stops reading costs a bounded queue and nobody
//! else anything. If what it needs is compacted meanwhile, it is cut off, and the log names it.
//!
//! What always holds, for each watch:
//! - it hears of every event on its keys from its start on, once, in order of revisions, with all of
//!   a revision in one message (or in one run of fragments, if it allows that);
//! - a revision in the header of events or of progress is one that it has heard all of;
//! - when it is told that it was created, everything after that message's revision will be told.
//!
//! Everything is bounded: see [`Limits`].

mod before;
mod counters;
mod events;
mod feed;
mod handed_out;
mod history;
mod hub;
mod limits;
mod outbox;
mod ranges;
mod recent;
mod registry;
mod response;
mod slab;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

pub use counters::{Counter, Counters};
pub use events::Wants;
pub use feed::Feed;
pub use limits::Limits;
pub use response::{Kind, Refusal, Response};
pub use stream::{NewWatch, WatchStream};

use hub::{Command, Hub};
use outbox::Outbox;
use stream::StreamId;

use crate::{
    fault::Fault,
    lane::{Lane, Lanes},
    state::View,
};

/// What can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A watch that allows it gets larger revisions in fragments of this size.
    pub fragment_bytes: usize,
    pub limits: Limits,
    pub lanes: Lanes,
}

/// All watches of this member. Clones are the same.
#[derive(Debug, Clone)]
pub struct Watches {
    lane: mpsc::WeakUnboundedSender<Command>,
    limits: Limits,
    counters: Arc<Counters>,
    opened: Arc<AtomicU64>,
}

/// What [`Watches::start`] made and somebody must join.
#[derive(Debug)]
pub struct WatchLanes {
    watch: Lane,
    history: Lane,
    inbox: mpsc::UnboundedSender<Command>,
}

impl Watches {
    /// Follows the state that `feed` is told of and `view` shows. A feed is followed once.
    pub fn start(
        options: Options,
        feed: &Arc<Feed>,
        view: View,
        fault: Fault,
    ) -> io::Result<(Watches, WatchLanes)> {
        let (inbox, commands) = mpsc::unbounded_channel();
        let lane = inbox.downgrade();
        feed.connect(lane.clone());
        let (jobs, todo) = mpsc::unbounded_channel();
        let mut reader = history::Reader::new(view.clone(), options, lane.clone());
        let history =
            options.lanes.start("watch-history", todo, move |jobs| reader.handle(jobs))?;
        let counters = Arc::new(Counters::default());
        let mut hub = Hub::new(options, feed.clone(), view, jobs, counters.clone(), fault);
        let watch = options.lanes.start("watch", commands, move |commands| hub.handle(commands))?;
        let watches = Watches { lane, limits: options.limits, counters, opened: Arc::default() };
        Ok((watches, WatchLanes { watch, history, inbox }))
    }

    /// Opens a stream for the client at `peer`, which is named where a watch is cut off.
    pub fn open(&self, peer: String) -> WatchStream {
        let id = StreamId(self.opened.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(self.limits, self.counters.clone()));
        let told = self
            .lane
            .upgrade()
            .is_some_and(|lane| lane.send(Command::Open(id, outbox.clone(), peer.into())).is_ok());
        if !told {
            outbox.close();
        }
        WatchStream { id, outbox, lane: self.lane.clone() }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl WatchLanes {
    /// Ends all watches; streams end once they have sent what they have.
    pub async fn stop(self) {
        drop(self.inbox);
        self.watch.join().await;
        self.history.join().await;
    }
}
