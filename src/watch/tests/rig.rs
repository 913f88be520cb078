//! A test rig: a state machine, its watches, and streams that a test reads step by step.

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
    state::{EventSink, MemoryStorage, Pruning, Published, Record, StateMachine},
    types::*,
    watch::{
        Feed, Limits, NewWatch, Options, Response, ResponseKind, WatchLanes, WatchStream, Watches,
    },
};

/// Forwards the changes of the state machine to the feed. While paused, it holds them back: readers see
/// changes before the watch lane does.
#[derive(Debug)]
struct PausableFeed {
    feed: Arc<Feed>,
    held: Mutex<Option<Vec<Change>>>,
}

#[derive(Debug)]
enum Change {
    Published { revision: Revision, records: Vec<Arc<Record>> },
    Replaced { revision: Revision, compacted: Revision },
}

impl PausableFeed {
    fn accept(&self, change: Change) {
        match &mut *self.held.lock().unwrap() {
            Some(held) => held.push(change),
            None => self.forward(change),
        }
    }

    fn forward(&self, change: Change) {
        match change {
            Change::Published { revision, records } => {
                let (records, leases) = (&*records, &[][..]);
                self.feed.published(&Published { revision, records, leases });
            }
            Change::Replaced { revision, compacted } => self.feed.replaced(revision, compacted),
        }
    }
}

impl EventSink for PausableFeed {
    fn published(&self, changes: &Published<'_>) {
        let Published { revision, records, .. } = *changes;
        self.accept(Change::Published { revision, records: records.to_vec() });
    }

    fn replaced(&self, revision: Revision, compacted: Revision) {
        self.accept(Change::Replaced { revision, compacted });
    }
}

pub struct Rig {
    runtime: Runtime,
    storage: Arc<MemoryStorage>,
    pub machine: StateMachine,
    pub watches: Watches,
    pub fault: Fault,
    lanes: Option<WatchLanes>,
    sink: Arc<PausableFeed>,
    streams: BTreeMap<String, WatchStream>,
    entries: u64,
}

impl Rig {
    pub fn new(limits: Limits, fragment_bytes: usize) -> Rig {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let storage = Arc::new(MemoryStorage::default());
        let feed = Feed::new(&limits);
        let machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
        let sink = Arc::new(PausableFeed { feed: feed.clone(), held: Mutex::new(None) });
        let machine = machine.with_sinks(vec![sink.clone()]);
        let (view, fault) = (machine.view(), Fault::default());
        let options = Options { fragment_bytes, limits, lanes: Lanes::Tasks };
        let started =
            runtime.block_on(async { Watches::start(options, &feed, view, fault.clone()) });
        let (watches, lanes) = started.unwrap();
        let (lanes, streams) = (Some(lanes), BTreeMap::new());
        Rig { runtime, storage, machine, watches, fault, lanes, sink, streams, entries: 0 }
    }

    /// Applies an entry. Readers and watches see it after [`Rig::publish`].
    pub fn apply(&mut self, command: Command) -> Result<Reply, CommandError> {
        let position = LogPosition { term: Term(1), index: self.entries };
        self.entries += 1;
        self.machine.apply(position, [command]).unwrap().remove(0)
    }

    pub fn publish(&mut self) {
        self.machine.publish();
    }

    /// While paused, the watch lane receives no changes.
    pub fn set_paused(&mut self, paused: bool) {
        if paused {
            self.sink.held.lock().unwrap().get_or_insert_default();
        } else {
            let held = self.sink.held.lock().unwrap().take();
            held.into_iter().flatten().for_each(|change| self.sink.forward(change));
        }
    }

    pub fn prune(&mut self) -> Pruning {
        let pruning = self.machine.compact_step(usize::MAX);
        self.machine.publish();
        pruning
    }

    /// Installs a snapshot of the present state in which `more` commands are applied, as another member
    /// would send it.
    pub fn install_snapshot(&mut self, more: Vec<Command>) {
        let storage = Arc::new(self.storage.copied());
        let from = storage.contents();
        let mut ahead =
            StateMachine::recover(storage.clone(), from.position, from.tables, from.records)
                .unwrap();
        for command in more {
            let position = LogPosition { term: Term(1), index: self.entries };
            self.entries += 1;
            ahead.apply(position, [command]).unwrap()[0].as_ref().unwrap();
        }
        ahead.publish();
        while ahead.compact_step(usize::MAX) == Pruning::More {}
        ahead.publish();
        let from = storage.contents();
        let installed =
            StateMachine::recover(storage.clone(), from.position, from.tables, from.records)
                .unwrap();
        self.machine.replace(installed);
        self.storage = storage;
    }

    /// Evicts all values from memory: every later read of a value reads the disk.
    pub fn evict(&self) {
        self.storage.evict_cache();
    }

    /// Runs the lanes until they are idle.
    pub fn settle(&self) {
        self.step(500);
    }

    /// Runs the lanes for a few turns.
    pub fn step(&self, turns: usize) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
    }

    pub fn open(&mut self, name: &str) {
        self.streams.insert(name.into(), self.watches.open(format!("client-{name}")));
    }

    pub fn close(&mut self, name: &str) {
        self.streams.remove(name).expect("the stream is open");
    }

    pub fn stream(&self, name: &str) -> &WatchStream {
        &self.streams[name]
    }

    pub fn create(&self, stream: &str, watch: NewWatch) {
        self.streams[stream].create(watch);
    }

    /// Whether the stream accepts another request.
    pub fn is_ready(&self, stream: &str) -> bool {
        self.streams[stream].poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The next message of the stream. `Some(None)`: the stream has ended.
    pub fn next(&mut self, stream: &str) -> Option<Option<Response>> {
        let stream = self.streams.get_mut(stream).expect("the stream is open");
        match stream.poll_next(1, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next.map(|mut next| next.remove(0))),
            Poll::Pending => None,
        }
    }

    /// Stops the lanes.
    pub fn stop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            self.runtime.block_on(lanes.stop());
        }
    }
}

/// The events of a message.
pub fn events(response: &Response) -> Vec<Event> {
    match &response.kind {
        ResponseKind::Events { encoded, .. } => {
            WatchResponse::decode(encoded.clone()).unwrap().events
        }
        _ => Vec::new(),
    }
}
