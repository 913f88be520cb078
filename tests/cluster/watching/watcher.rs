//! A watcher on the bare protocol that resumes after its last event.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use ordinal::proto::{
    etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_client::WatchClient, watch_create_request::FilterType, watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Duration, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Endpoint};

use crate::{
    cluster::harness::Cluster,
    support::{WAIT_TIMEOUT, retry::promise, rng::Rng},
};

const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Interval between progress requests.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// A watcher that receives no message for this long, not even progress, tries another member.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(8);

/// A watched range and its options.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    pub key: &'static str,
    /// As in etcd: empty for one key, `\0` for all keys from `key` on.
    pub end: &'static str,
    pub without: Option<FilterType>,
    pub prev_kv: bool,
    /// Reads slowly, so that it falls behind.
    pub slow: bool,
}

impl Watched {
    pub fn all_kinds() -> Vec<Watched> {
        let all = Watched { key: "\0", end: "\0", without: None, prev_kv: true, slow: false };
        vec![
            all,
            Watched { slow: true, ..all },
            Watched { prev_kv: false, ..all },
            Watched { key: "w/1", end: "w/2", ..all },
            Watched { key: "w/3", end: "", ..all },
            Watched { key: "w/", end: "w0", without: Some(FilterType::Noput), ..all },
            Watched {
                key: "w/",
                end: "w0",
                without: Some(FilterType::Nodelete),
                slow: true,
                ..all
            },
            Watched { key: "l/", end: "l0", ..all },
        ]
    }

    pub fn covers(&self, key: &[u8]) -> bool {
        match self.end {
            "" => key == self.key.as_bytes(),
            "\0" => key >= self.key.as_bytes(),
            end => key >= self.key.as_bytes() && key < end.as_bytes(),
        }
    }
}

/// The events of a watcher, in order of arrival.
#[derive(Debug)]
pub struct Seen {
    pub what: Watched,
    pub events: Vec<Event>,
    /// How often the watcher resumed on another stream.
    pub resumed: usize,
}

/// A running watcher.
pub struct Watcher {
    /// The watcher stops after this revision.
    end: Arc<AtomicI64>,
    task: JoinHandle<Seen>,
}

impl Watcher {
    pub fn start(cluster: &Cluster, what: Watched, rng: &mut Rng) -> Watcher {
        let first = rng.below(cluster.members.len());
        Watcher::start_at(cluster, first, what, rng)
    }

    /// Starts on this member.
    pub fn start_at(cluster: &Cluster, first: usize, what: Watched, rng: &mut Rng) -> Watcher {
        let end = Arc::new(AtomicI64::new(i64::MAX));
        let members = cluster.members.iter().map(|member| member.endpoint()).collect();
        let (seen, rng) = (Seen { what, events: Vec::new(), resumed: 0 }, rng.split());
        let run = Run { members, end: end.clone(), seen, complete: 0, rng };
        Watcher { end, task: tokio::spawn(run.run(first)) }
    }

    /// Waits until the watcher has seen everything up to this revision.
    pub async fn until(self, revision: i64) -> Seen {
        self.end.store(revision, Ordering::Relaxed);
        timeout(WAIT_TIMEOUT, self.task).await.expect("a watcher does not come to its end").unwrap()
    }
}

struct Run {
    members: Vec<String>,
    end: Arc<AtomicI64>,
    seen: Seen,
    /// The watcher has seen everything up to this revision, and nothing beyond.
    complete: i64,
    rng: Rng,
}

impl Run {
    async fn run(mut self, first: usize) -> Seen {
        let mut at = first;
        // Streams may break; only the events seen in the end count.
        while self.watch(at).await.is_err() {
            at = (at + 1) % self.members.len();
            self.seen.resumed += 1;
            sleep(RETRY_DELAY).await;
        }
        self.seen
    }

    /// Watches on one member; `Ok` at the end of the history.
    async fn watch(&mut self, member: usize) -> Result<(), Status> {
        let unreachable = |e: tonic::transport::Error| Status::unavailable(e.to_string());
        let url = format!("http://{}", self.members[member]);
        let endpoint = Endpoint::from_shared(url).unwrap().connect_timeout(DIAL_TIMEOUT);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, sent) = mpsc::channel(4);
        // The channel has room: this is the first request.
        requests.try_send(request(self.create())).unwrap();
        let opened = timeout(SILENCE_TIMEOUT, client.watch(ReceiverStream::new(sent))).await;
        let mut answers = opened.map_err(|_| silent())??.into_inner();
        let mut progress_timer = interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                _ = progress_timer.tick() => {
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // Full: earlier progress requests are still unanswered.
                    let _ = requests.try_send(request(progress));
                }
                answer = timeout(SILENCE_TIMEOUT, answers.message()) => {
                    let answer = answer.map_err(|_| silent())??;
                    let answer = answer.ok_or_else(|| Status::unavailable("the stream ended"))?;
                    self.take(answer)?;
                    if self.complete >= self.end.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if self.seen.what.slow {
                        sleep(Duration::from_millis(self.rng.below(40) as u64)).await;
                    }
                }
            }
        }
    }

    fn create(&self) -> RequestUnion {
        let Watched { key, end, without, prev_kv, .. } = self.seen.what;
        RequestUnion::CreateRequest(WatchCreateRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
            start_revision: self.complete + 1,
            filters: without.map(i32::from).into_iter().collect(),
            prev_kv,
            ..Default::default()
        })
    }

    /// Records an answer. The server cancels a watch only without a leader.
    fn take(&mut self, answer: WatchResponse) -> Result<(), Status> {
        assert_eq!(answer.compact_revision, 0, "nothing was compacted");
        if answer.canceled {
            return Err(Status::unavailable(answer.cancel_reason));
        }
        let revision = answer.header.unwrap().revision;
        let Some((first, last)) = ends(&answer.events) else {
            // Only an answer to a progress request says that no event is missing.
            if answer.watch_id == -1 {
                promise(|| assert!(revision >= self.complete, "progress goes back to {revision}"));
                self.complete = revision;
            }
            return Ok(());
        };
        promise(|| {
            assert!(
                first > self.complete,
                "revision {first} arrives after everything up to {} was seen: {:?}",
                self.complete,
                self.seen.what
            );
            assert!(revision >= last, "the header says {revision}, an event {last}");
        });
        self.complete = last;
        self.seen.events.extend(answer.events);
        Ok(())
    }
}

fn ends(events: &[Event]) -> Option<(i64, i64)> {
    let revision = |event: &Event| event.kv.as_ref().unwrap().mod_revision;
    Some((revision(events.first()?), revision(events.last()?)))
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

fn silent() -> Status {
    Status::deadline_exceeded("the member is silent")
}
