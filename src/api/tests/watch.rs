//! Watches over a real connection, of a store that changes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{fake::FakeNode, members::FakeMembers};
use crate::{
    api::{Options, routes},
    fault::Fault,
    lane::Lanes,
    proto::{
        etcdserverpb::{
            ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
            WatchRequest, WatchResponse, watch_client::WatchClient, watch_request::RequestUnion,
        },
        mvccpb::event::EventType,
    },
    shutdown::Shutdown,
    state::{MemoryStorage, StateMachine},
    types::*,
    watch::{self, Counters, Feed, Limits, WatchLanes, Watches},
};

/// Long enough for every message that comes.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// A server, and the store that its clients watch.
struct World {
    machine: StateMachine,
    watches: Watches,
    _lanes: WatchLanes,
    node: FakeNode,
    shutdown: Shutdown,
    url: String,
    entries: u64,
}

impl World {
    async fn start(options: Options) -> World {
        World::limited(options, Limits::default()).await
    }

    async fn limited(options: Options, limits: Limits) -> World {
        let (node, shutdown) = (FakeNode::new(), Shutdown::default());
        let feed = Feed::new(&limits);
        let machine =
            StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], []).unwrap();
        let machine = machine.with_sinks(vec![feed.clone()]);
        let watching = watch::Options { fragment_bytes: 1 << 20, limits, lanes: Lanes::Tasks };
        let (watches, lanes) =
            Watches::start(watching, &feed, machine.view(), Fault::default()).unwrap();
        let members = FakeMembers(node.clone());
        let routes = routes(node.clone(), members, watches.clone(), options, shutdown.signal());
        let routes = super::as_served(routes);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
        World { machine, watches, _lanes: lanes, node, shutdown, url, entries: 0 }
    }

    /// Puts all keys in one revision.
    fn put(&mut self, keys: &[&str], value_bytes: usize) {
        let put = |key: &&str| {
            let (key, value) = (Bytes::from(key.to_string()), vec![b'v'; value_bytes].into());
            TxnOp::Put(Put { key, value, ..Put::default() })
        };
        self.apply(Command::Txn(Txn { success: keys.iter().map(put).collect(), ..Txn::default() }));
    }

    fn apply(&mut self, command: Command) {
        let position = LogPosition { term: Term(1), index: self.entries };
        self.entries += 1;
        self.machine.apply(position, [command]).unwrap()[0].as_ref().unwrap();
        self.machine.publish();
    }

    /// Waits until the watches' counters fulfil a condition.
    async fn until(&self, condition: impl Fn(&Counters) -> bool) {
        let wait = async {
            while !condition(self.watches.counters()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(MESSAGE_TIMEOUT, wait).await.expect("the counters never fulfil the condition");
    }

    /// A stream on a connection of its own.
    async fn open(&self) -> Client {
        self.try_open(false).await.unwrap()
    }

    async fn try_open(&self, has_leader: bool) -> Result<Client, Status> {
        // The default of most clients. Ours would buffer megabytes without reading them.
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        let channel: Channel = endpoint.initial_stream_window_size(65_535).connect_lazy();
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, inbox) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(inbox));
        if has_leader {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let responses = client.watch(request).await?.into_inner();
        Ok(Client { requests: Some(requests), responses })
    }
}

struct Client {
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
    responses: Streaming<WatchResponse>,
}

impl Client {
    fn send(&self, union: RequestUnion) {
        let request = WatchRequest { request_union: Some(union) };
        self.requests.as_ref().expect("the client has closed its side").send(request).unwrap();
    }

    fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request));
    }

    async fn watch(&mut self, key: &str) -> WatchResponse {
        self.create(key_request(key));
        self.next().await
    }

    async fn try_next(&mut self) -> Result<Option<WatchResponse>, Status> {
        timeout(MESSAGE_TIMEOUT, self.responses.message()).await.expect("nothing came")
    }

    async fn next(&mut self) -> WatchResponse {
        self.try_next().await.unwrap().expect("the stream goes on")
    }

    async fn end(&mut self) -> Status {
        loop {
            match self.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    }
}

fn key_request(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// The fake node's header, with this revision.
fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 0xc1, member_id: 0xe2, revision, raft_term: 4 })
}

#[test]
fn messages_are_etcds() {
    run(async {
        let mut world = World::start(Options::default()).await;
        world.put(&["a"], 1);
        let mut client = world.open().await;
        let header_at = header;
        let response = WatchResponse { header: header_at(2), ..WatchResponse::default() };
        let created = WatchResponse { created: true, ..response.clone() };
        let past = WatchCreateRequest { start_revision: 2, ..key_request("a") };
        client.create(past.clone());
        assert_eq!(client.next().await, created);
        let event = client.next().await;
        assert_eq!(event.header, header_at(2));
        let kv = event.events[0].kv.clone().unwrap();
        assert_eq!((event.events[0].r#type, &*kv.key), (EventType::Put as i32, &b"a"[..]));
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 2, 1));

        client.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        assert_eq!(client.next().await, WatchResponse { watch_id: -1, ..response.clone() });

        client.create(WatchCreateRequest {
            watch_id: 7,
            range_end: "a".into(),
            ..key_request("b")
        });
        let refused = WatchResponse { watch_id: -1, canceled: true, ..created.clone() };
        let cancel_reason = "mvcc: watcher range is empty".to_string();
        assert_eq!(client.next().await, WatchResponse { cancel_reason, ..refused });

        client.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
        assert_eq!(client.next().await, WatchResponse { canceled: true, ..response.clone() });

        world.put(&["a"], 1);
        world.apply(Command::Compact(Revision(3)));
        client.create(past);
        let watch_id = 1;
        let header = header_at(3);
        assert_eq!(client.next().await, WatchResponse { header, watch_id, ..created });
        let canceled = WatchResponse { canceled: true, compact_revision: 3, watch_id, ..response };
        assert_eq!(client.next().await, WatchResponse { header: header_at(0), ..canceled });
    });
}

#[test]
fn an_empty_key_is_the_first_and_a_zero_end_is_none() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        client.watch("").await;
        client
            .create(WatchCreateRequest { range_end: Bytes::from_static(&[0]), ..key_request("") });
        client
            .create(WatchCreateRequest { range_end: Bytes::from_static(&[0]), ..key_request("b") });
        client.next().await;
        client.next().await;
        world.put(&["a"], 1);
        assert_eq!(client.next().await.watch_id, 1);
        world.put(&["\0"], 1);
        let received = [client.next().await.watch_id, client.next().await.watch_id];
        assert_eq!(received, [0, 1]);
        world.put(&["c"], 1);
        let received = [client.next().await.watch_id, client.next().await.watch_id];
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn a_thousand_watches_live_on_one_stream() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        for number in 0..1000 {
            // Two watches on each key.
            client.create(key_request(&format!("key-{}", number % 500)));
        }
        for number in 0..1000 {
            assert_eq!(client.next().await.watch_id, number);
        }
        world.put(&["key-3", "key-499"], 10);
        let mut received = Vec::new();
        for _ in 0..4 {
            received.push(client.next().await.watch_id);
        }
        received.sort_unstable();
        assert_eq!(received, [3, 499, 503, 999]);
        assert_eq!(world.watches.counters().watchers.get(), 1000);
        drop(client);
        world.until(|counters| counters.streams.get() == 0).await;
        assert_eq!(world.watches.counters().watchers.get(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_delays_no_other_and_misses_nothing() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let (mut stalled, mut reader) = (world.open().await, world.open().await);
        stalled.watch("k").await;
        reader.watch("k").await;
        for revision in 2..102 {
            world.put(&["k"], 100_000);
            assert_eq!(reader.next().await.events[0].kv.as_ref().unwrap().mod_revision, revision);
        }
        let counters = world.watches.counters();
        assert!(counters.queued_bytes.get() < 2 << 20, "{} bytes", counters.queued_bytes.get());
        assert_eq!(counters.slow_watchers.get(), 1);
        let mut received = Vec::new();
        while received.len() < 100 {
            let events = stalled.next().await.events;
            received.extend(events.into_iter().map(|event| event.kv.unwrap().mod_revision));
        }
        assert!(received.into_iter().eq(2..102));
        world.put(&["k"], 1);
        assert_eq!(stalled.next().await.header.unwrap().revision, 102);
    });
}

#[test]
fn bytes_in_the_transport_count_until_they_are_sent() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        client.watch("k").await;
        world.until(|counters| counters.queued_bytes.get() == 0).await;
        world.put(&["k"], 300_000);
        // The event has left our queue, and the client has not read it.
        world.until(|counters| counters.events_total.get() == 1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!(world.watches.counters().queued_bytes.get() >= 300_000);
        }
        assert_eq!(client.next().await.events[0].kv.as_ref().unwrap().value.len(), 300_000);
        // An idle stream holds no buffer.
        world.until(|counters| counters.queued_bytes.get() == 0).await;
    });
}

#[test]
fn clients_that_do_not_read_share_a_bound_and_miss_nothing() {
    run(async {
        let limits = Limits { all_streams_bytes: 1 << 20, ..Limits::default() };
        let mut world = World::limited(Options::default(), limits).await;
        let mut reader = world.open().await;
        reader.watch("k").await;
        let mut stalled = Vec::new();
        for _ in 0..20 {
            stalled.push(world.open().await);
            stalled.last_mut().unwrap().watch("k").await;
        }
        for revision in 2..202 {
            world.put(&["k"], 10_000);
            assert_eq!(reader.next().await.events[0].kv.as_ref().unwrap().mod_revision, revision);
            // Beyond the bound, each stream may have one delivery in the queue and one in the transport.
            let queued = world.watches.counters().queued_bytes.get();
            assert!(queued < (1 << 20) + 21 * 2 * 11_000, "{queued} bytes");
        }
        for client in &mut stalled {
            let mut received = Vec::new();
            while received.len() < 200 {
                let events = client.next().await.events;
                received.extend(events.into_iter().map(|event| event.kv.unwrap().mod_revision));
            }
            assert!(received.into_iter().eq(2..202));
        }
        world.until(|counters| counters.queued_bytes.get() == 0).await;
    });
}

#[test]
fn messages_of_any_size_are_whole_wherever_frames_end() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        client.watch("k").await;
        client.watch("k").await;
        let sizes = [0, 1, 1000, 16_000, 16_250, 16_384, 7, 65_536, 70_000, 5000, 5000, 200_000, 3];
        for size in sizes {
            world.put(&["k"], size);
        }
        let mut received = [Vec::new(), Vec::new()];
        while received.iter().any(|received| received.len() < sizes.len()) {
            let message = client.next().await;
            let values = message.events.into_iter().map(|event| event.kv.unwrap().value.len());
            received[message.watch_id as usize].extend(values);
        }
        assert_eq!(received, [sizes, sizes]);
    });
}

#[test]
fn a_large_revision_comes_in_fragments_if_allowed() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        let (key, range_end) = ("k".into(), "l".into());
        client.create(WatchCreateRequest {
            key,
            range_end,
            fragment: true,
            ..WatchCreateRequest::default()
        });
        client.next().await;
        let keys: Vec<String> = (0..40).map(|at| format!("k{at:02}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        world.put(&keys, 100_000);
        let (mut received, mut fragments) = (Vec::new(), Vec::new());
        while fragments.last() != Some(&false) {
            let message = client.next().await;
            fragments.push(message.fragment);
            received.extend(message.events.into_iter().map(|event| event.kv.unwrap().key));
        }
        assert_eq!(received, keys);
        assert_eq!(fragments, [true, true, true, false]);
    });
}

#[test]
fn a_started_message_is_completed_before_the_stream_ends() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        client.watch("k").await;
        world.put(&["k"], 1_000_000);
        world.until(|counters| counters.events_total.get() == 1).await;
        world.shutdown.trigger();
        assert_eq!(client.next().await.events[0].kv.as_ref().unwrap().value.len(), 1_000_000);
        let status = client.end().await;
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "etcdserver: server stopped");
    });
}

#[test]
fn a_client_that_floods_requests_and_reads_nothing_is_held_back() {
    run(async {
        let world = World::start(Options::default()).await;
        let flooder = world.open().await;
        for _ in 0..40_000 {
            flooder.create(key_request("k"));
        }
        let mut other = world.open().await;
        for _ in 0..50 {
            assert!(other.watch("k").await.created);
        }
        // Only as many requests as fit into the buffers of the transport and our queue.
        let watchers = world.watches.counters().watchers.get();
        assert!(watchers < 20_000, "{watchers} watches of a client that reads nothing");
    });
}

#[test]
fn streams_end_at_once_when_the_member_stops() {
    run(async {
        let world = World::start(Options::default()).await;
        let mut clients = vec![world.open().await, world.open().await, world.open().await];
        clients[0].watch("k").await;
        world.shutdown.trigger();
        for client in &mut clients {
            let status = client.end().await;
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.message(), "etcdserver: server stopped");
        }
    });
}

#[test]
fn a_stream_with_hasleader_ends_without_a_leader() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut content = world.open().await;
        let mut demanding = world.try_open(true).await.unwrap();
        content.watch("k").await;
        demanding.watch("k").await;
        world.node.table().status.leader = None;
        world.put(&["k"], 1);
        assert_eq!(demanding.next().await.events.len(), 1, "the leader is not lost for long");
        world.node.table().leader_lost.send_replace(true);
        let status = demanding.end().await;
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
        let refused = world.try_open(true).await.err().expect("no leader");
        assert_eq!(refused.message(), "etcdserver: no leader");
        assert_eq!(content.next().await.events.len(), 1);
        world.put(&["k"], 1);
        assert_eq!(content.next().await.events.len(), 1, "the stream has no hasleader");
    });
}

#[test]
fn watches_continue_when_the_client_closes_its_side() {
    run(async {
        let mut world = World::start(Options::default()).await;
        let mut client = world.open().await;
        client.watch("k").await;
        client.requests = None;
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.put(&["k"], 1);
        assert_eq!(client.next().await.events.len(), 1);
    });
}

#[test]
fn idle_watches_send_progress() {
    run(async {
        let watch_progress_interval = Duration::from_millis(20);
        let options = Options { watch_progress_interval, ..Options::default() };
        let mut world = World::start(options).await;
        let mut client = world.open().await;
        client.watch("quiet").await;
        client.create(WatchCreateRequest { progress_notify: true, ..key_request("k") });
        assert!(client.next().await.created);
        world.put(&["other"], 1);
        let progress = loop {
            let progress = client.next().await;
            assert_eq!((progress.watch_id, progress.events.len()), (1, 0));
            if progress.header.as_ref().unwrap().revision == 2 {
                break progress;
            }
        };
        assert!(!progress.created && !progress.canceled);
    });
}
