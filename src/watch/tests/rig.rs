//! A state machine, watches of it, and streams that are read when a test says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use prost::Message as _;
use tokio::runtime::{Builder, Runtime};

use crate::{
    fault::Fault,
    lane::Lanes,
    proto::{etcdserverpb::WatchResponse, mvccpb::Event},
    state::{EventSink, Machine, MemoryStorage, Pruning, Published, Record},
    types::*,
    watch::{Feed, Kind, Limits, NewWatch, Options, Response, WatchLanes, WatchStream, Watches},
};

/// Passes on what the state tells; while it is late, not before it is on time again: readers see
/// changes before the watch lane hears of them.
#[derive(Debug)]
struct Late {
    feed: Arc<Feed>,
    held: Mutex<Option<Vec<Told>>>,
}

#[derive(Debug)]
enum Told {
    Published { revision: Revision, compacted: Revision, records: Vec<Arc<Record>> },
    Replaced { revision: Revision, compacted: Revision },
}

impl Late {
    fn tell(&self, told: Told) {
        match &mut *self.held.lock().unwrap() {
            Some(held) => held.push(told),
            None => self.pass_on(told),
        }
    }

    fn pass_on(&self, told: Told) {
        match told {
            Told::Published { revision, compacted, records } => {
                let (records, leases) = (&*records, &[][..]);
                self.feed.published(&Published { revision, compacted, records, leases });
            }
            Told::Replaced { revision, compacted } => self.feed.replaced(revision, compacted),
        }
    }
}

impl EventSink for Late {
    fn published(&self, changes: &Published<'_>) {
        let Published { revision, compacted, records, .. } = *changes;
        self.tell(Told::Published { revision, compacted, records: records.to_vec() });
    }

    fn replaced(&self, revision: Revision, compacted: Revision) {
        self.tell(Told::Replaced { revision, compacted });
    }
}

pub(super) struct Rig {
    runtime: Runtime,
    storage: Arc<MemoryStorage>,
    pub(super) machine: Machine,
    pub(super) watches: Watches,
    pub(super) fault: Fault,
    lanes: Option<WatchLanes>,
    sink: Arc<Late>,
    streams: BTreeMap<String, WatchStream>,
    entries: u64,
}

impl Rig {
    pub(super) fn new(limits: Limits, fragment_bytes: usize) -> Rig {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let storage = Arc::new(MemoryStorage::default());
        let feed = Feed::new(&limits);
        let machine = Machine::recover(storage.clone(), None, [], []).unwrap();
        let sink = Arc::new(Late { feed: feed.clone(), held: Mutex::new(None) });
        let machine = machine.followed_by(vec![sink.clone()]);
        let (view, fault) = (machine.view(), Fault::default());
        let options = Options { fragment_bytes, limits, lanes: Lanes::Tasks };
        let started =
            runtime.block_on(async { Watches::start(options, &feed, view, fault.clone()) });
        let (watches, lanes) = started.unwrap();
        let (lanes, streams) = (Some(lanes), BTreeMap::new());
        Rig { runtime, storage, machine, watches, fault, lanes, sink, streams, entries: 0 }
    }

    /// Applies an entry. Readers and watches do not see it before [`Rig::publish`].
    pub(super) fn apply(&mut self, command: Command) -> Result<Reply, CommandError> {
        let position = LogPosition { term: Term(1), index: self.entries };
        self.entries += 1;
        self.machine.apply(position, [command]).unwrap().remove(0)
    }

    pub(super) fn publish(&mut self) {
        self.machine.publish();
    }

    /// Lets the watch lane hear of changes only once it is not late any more.
    pub(super) fn set_late(&mut self, late: bool) {
        if late {
            self.sink.held.lock().unwrap().get_or_insert_default();
        } else {
            let held = self.sink.held.lock().unwrap().take();
            held.into_iter().flatten().for_each(|told| self.sink.pass_on(told));
        }
    }

    pub(super) fn prune(&mut self) -> Pruning {
        let pruning = self.machine.compact_step(usize::MAX);
        self.machine.publish();
        pruning
    }

    /// What is applied comes back as a snapshot that another member took.
    pub(super) fn install_snapshot(&mut self, also: Vec<Command>) {
        let storage = Arc::new(self.storage.copied());
        let from = storage.contents();
        let mut ahead =
            Machine::recover(storage.clone(), from.position, from.tables, from.records).unwrap();
        for command in also {
            let position = LogPosition { term: Term(1), index: self.entries };
            self.entries += 1;
            ahead.apply(position, [command]).unwrap()[0].as_ref().unwrap();
        }
        ahead.publish();
        while ahead.compact_step(usize::MAX) == Pruning::More {}
        ahead.publish();
        let from = storage.contents();
        let installed =
            Machine::recover(storage.clone(), from.position, from.tables, from.records).unwrap();
        self.machine.replace(installed);
        self.storage = storage;
    }

    /// From now on every read of a value is one of the disk.
    pub(super) fn chill(&self) {
        self.storage.chill();
    }

    /// Lets the lanes do all that they can.
    pub(super) fn settle(&self) {
        self.step(500);
    }

    /// Lets them do a little.
    pub(super) fn step(&self, turns: usize) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
    }

    pub(super) fn open(&mut self, name: &str) {
        self.streams.insert(name.into(), self.watches.open(format!("client-{name}")));
    }

    pub(super) fn close(&mut self, name: &str) {
        self.streams.remove(name).expect("the stream is open");
    }

    pub(super) fn stream(&self, name: &str) -> &WatchStream {
        &self.streams[name]
    }

    pub(super) fn create(&self, stream: &str, watch: NewWatch) {
        self.streams[stream].create(watch);
    }

    /// Whether the stream takes another request.
    pub(super) fn may_ask(&self, stream: &str) -> bool {
        self.streams[stream].poll_ask(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The next message that the stream has. `Some(None)`: it has ended.
    pub(super) fn next(&mut self, stream: &str) -> Option<Option<Response>> {
        let stream = self.streams.get_mut(stream).expect("the stream is open");
        match stream.poll_next(1, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next.map(|mut next| next.remove(0))),
            Poll::Pending => None,
        }
    }

    /// Stops the lanes.
    pub(super) fn stop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            self.runtime.block_on(lanes.stop());
        }
    }
}

/// The events of a message.
pub(super) fn events(response: &Response) -> Vec<Event> {
    match &response.kind {
        Kind::Events { encoded, .. } => WatchResponse::decode(encoded.clone()).unwrap().events,
        _ => Vec::new(),
    }
}
