//! Watches stream every event on a key range, starting at a given revision.
//!
//! ```text
//! state ─▶ feed ─▶ watch lane: hub ─▶ outbox ─▶ stream (one task each, in `api`)
//!   ▲                  │    ▲
//!   ╰──── history lane ◀────╯   for watches that are behind
//! ```
//!
//! One lane, the hub, owns all watches, so watches need no lock. As in etcd, each watch is in one of
//! three states:
//! - *synced*: the hub delivers each change as the state publishes it;
//! - *unsynced*: the watch starts in the past or fell behind. It reads the history, in batches with
//!   others that are close, until it reaches the hub's position;
//! - *victim*: the queue of its stream is full. Once the queue is empty, the watch is unsynced.
//!
//! A client that stops reading therefore costs one bounded queue and delays no other client. When a
//! compaction removes revisions that a watch still needs, the hub cancels the watch and logs it.
//!
//! Invariants of each watch:
//! - It delivers every event on its keys from its start revision on, once, in revision order. All events
//!   of a revision are in one message, or in one run of fragments if the client allows fragments.
//! - The header revision of an event or progress message covers all events up to that revision.
//! - It delivers every event after the revision of its created message.
//!
//! All memory is bounded: see [`Limits`].

mod counters;
mod events;
mod feed;
mod groups;
mod history;
mod hub;
mod inflight_bytes;
mod interval_tree;
mod messages;
mod open_streams;
mod options;
mod outbox;
mod prev_kv;
mod recent_records;
mod registry;
mod response;
mod slab;
mod stream;
#[cfg(test)]
mod tests;
mod watch_index;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

pub use counters::Counters;
pub use events::EventOptions;
pub use feed::Feed;
pub use messages::NewWatch;
pub use options::{Limits, Options};
pub use response::{Response, ResponseKind};
pub use stream::WatchStream;

use hub::Hub;
use messages::{HubMessage, StreamId};
use outbox::Outbox;

use crate::{fault::Fault, lane::Lane, state::View};

/// Handle to all watches of this member. Clones share them.
#[derive(Debug, Clone)]
pub struct Watches {
    hub: mpsc::WeakUnboundedSender<HubMessage>,
    limits: Limits,
    counters: Arc<Counters>,
    opened_streams: Arc<AtomicU64>,
}

/// The lanes that [`Watches::start`] started. The caller must [stop](WatchLanes::stop) them.
#[derive(Debug)]
pub struct WatchLanes {
    watch: Lane,
    history: Lane,
    hub: mpsc::UnboundedSender<HubMessage>,
}

impl Watches {
    /// Watches the state that publishes to `feed` and that `view` reads. A feed has one watch lane.
    pub fn start(
        options: Options,
        feed: &Arc<Feed>,
        view: View,
        fault: Fault,
    ) -> io::Result<(Watches, WatchLanes)> {
        let (hub_sender, messages) = mpsc::unbounded_channel();
        let hub = hub_sender.downgrade();
        feed.connect(hub.clone());
        let (history_sender, jobs) = mpsc::unbounded_channel();
        let mut reader = history::HistoryReader::new(view.clone(), options, hub.clone());
        let history =
            options.lanes.start("watch-history", jobs, move |jobs| reader.handle(jobs))?;
        let counters = Arc::new(Counters::default());
        let mut hub_lane =
            Hub::new(options, feed.clone(), view, history_sender, counters.clone(), fault);
        let watch =
            options.lanes.start("watch", messages, move |messages| hub_lane.handle(messages))?;
        let limits = options.limits;
        let watches = Watches { hub, limits, counters, opened_streams: Arc::default() };
        Ok((watches, WatchLanes { watch, history, hub: hub_sender }))
    }

    /// Opens a stream for the client at `peer`. The log names `peer` when a watch is canceled.
    pub fn open(&self, peer: String) -> WatchStream {
        let id = StreamId(self.opened_streams.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(self.limits, self.counters.clone()));
        let sent = self
            .hub
            .upgrade()
            .is_some_and(|hub| hub.send(HubMessage::Open(id, outbox.clone(), peer.into())).is_ok());
        if !sent {
            outbox.close();
        }
        WatchStream { id, outbox, hub: self.hub.clone() }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl WatchLanes {
    /// Ends all watches. Each stream ends once it has sent its queued messages.
    pub async fn stop(self) {
        drop(self.hub);
        self.watch.join().await;
        self.history.join().await;
    }
}
