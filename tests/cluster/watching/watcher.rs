//! One watcher on the bare protocol, which resumes where it was.

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

use crate::{cluster::Cluster, dice::Dice, process::PATIENCE};

const DIAL: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// How often a watcher asks how far it is.
const ASK: Duration = Duration::from_millis(200);
/// A watcher that hears nothing for so long, not even an answer to that, tries another member.
const SILENCE: Duration = Duration::from_secs(8);

/// What is watched, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    pub(super) key: &'static str,
    /// As in etcd: empty is one key, `\0` all from `key` on.
    pub(super) end: &'static str,
    pub(super) without: Option<FilterType>,
    pub(super) prev_kv: bool,
    /// Reads slowly, so that it falls behind.
    pub(super) slow: bool,
}

impl Watched {
    pub(super) fn of_every_kind() -> Vec<Watched> {
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

    pub(super) fn covers(&self, key: &[u8]) -> bool {
        match self.end {
            "" => key == self.key.as_bytes(),
            "\0" => key >= self.key.as_bytes(),
            end => key >= self.key.as_bytes() && key < end.as_bytes(),
        }
    }
}

/// What a watcher saw, in the order in which it came.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) what: Watched,
    pub(super) events: Vec<Event>,
    /// How often it went on with another stream.
    pub(super) resumed: usize,
}

/// A running watcher.
pub(super) struct Watcher {
    /// It ends when it has seen everything up to here.
    end: Arc<AtomicI64>,
    task: JoinHandle<Seen>,
}

impl Watcher {
    pub(super) fn start(cluster: &Cluster, what: Watched, dice: &mut Dice) -> Watcher {
        let first = dice.below(cluster.members.len());
        Watcher::start_at(cluster, first, what, dice)
    }

    /// Begins with this member.
    pub(super) fn start_at(
        cluster: &Cluster,
        first: usize,
        what: Watched,
        dice: &mut Dice,
    ) -> Watcher {
        let end = Arc::new(AtomicI64::new(i64::MAX));
        let members = cluster.members.iter().map(|member| member.endpoint()).collect();
        let (seen, dice) = (Seen { what, events: Vec::new(), resumed: 0 }, dice.split());
        let run = Run { members, end: end.clone(), seen, complete: 0, dice };
        Watcher { end, task: tokio::spawn(run.run(first)) }
    }

    /// Waits until it has seen everything up to this revision.
    pub(super) async fn until(self, revision: i64) -> Seen {
        self.end.store(revision, Ordering::Relaxed);
        timeout(PATIENCE, self.task).await.expect("a watcher does not come to its end").unwrap()
    }
}

struct Run {
    members: Vec<String>,
    end: Arc<AtomicI64>,
    seen: Seen,
    /// It has seen everything up to this revision, and nothing beyond.
    complete: i64,
    dice: Dice,
}

impl Run {
    async fn run(mut self, first: usize) -> Seen {
        let mut at = first;
        // A stream that breaks is the members' affair: what counts is what was seen in the end.
        while self.watch(at).await.is_err() {
            at = (at + 1) % self.members.len();
            self.seen.resumed += 1;
            sleep(PAUSE).await;
        }
        self.seen
    }

    /// Watches through one member. `Ok`: to the end.
    async fn watch(&mut self, member: usize) -> Result<(), Status> {
        let unreachable = |e: tonic::transport::Error| Status::unavailable(e.to_string());
        let url = format!("http://{}", self.members[member]);
        let endpoint = Endpoint::from_shared(url).unwrap().connect_timeout(DIAL);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, sent) = mpsc::channel(4);
        // There is room: nothing was sent before.
        requests.try_send(request(self.create())).unwrap();
        let opened = timeout(SILENCE, client.watch(ReceiverStream::new(sent))).await;
        let mut answers = opened.map_err(|_| silent())??.into_inner();
        let mut ask = interval(ASK);
        loop {
            tokio::select! {
                _ = ask.tick() => {
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // Full: the questions before are not answered yet.
                    let _ = requests.try_send(request(progress));
                }
                answer = timeout(SILENCE, answers.message()) => {
                    let answer = answer.map_err(|_| silent())??;
                    let answer = answer.ok_or_else(|| Status::unavailable("the stream ended"))?;
                    self.take(answer)?;
                    if self.complete >= self.end.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if self.seen.what.slow {
                        sleep(Duration::from_millis(self.dice.below(40) as u64)).await;
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

    /// Notes an answer. A watch that is cancelled here was cancelled for want of a leader.
    fn take(&mut self, answer: WatchResponse) -> Result<(), Status> {
        assert_eq!(answer.compact_revision, 0, "nothing was compacted");
        if answer.canceled {
            return Err(Status::unavailable(answer.cancel_reason));
        }
        let revision = answer.header.unwrap().revision;
        let Some((first, last)) = ends(&answer.events) else {
            // Only an answer that was asked for says that nothing is missing.
            if answer.watch_id == -1 {
                assert!(revision >= self.complete, "progress goes back to {revision}");
                self.complete = revision;
            }
            return Ok(());
        };
        assert!(
            first > self.complete,
            "revision {first} comes when everything up to {} was seen: {:?}",
            self.complete,
            self.seen.what
        );
        assert!(revision >= last, "the header says {revision}, an event {last}");
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
    Status::deadline_exceeded("the member says nothing")
}
