//! One watch stream: requests, and a transcript of the messages whose order does not depend on
//! timing.
//!
//! A server may pack the events of several revisions into one message or several, and may
//! interleave its watches, so the transcript groups events by watch. The invariants of any packing
//! are checked here: revisions ascend, the events of one revision are in one message unless the
//! watch requested fragments, and the header is as new as the events.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    time::Duration,
};

use ordinal::proto::{
    etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, transport::Channel};

use crate::differential::{
    grammar::Names,
    session::{ANSWER_TIMEOUT, refusal},
    transcript::{header, key_value},
};

/// Interval between progress requests: etcd does not answer while it catches up.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(60);
/// Bound on the wait for progress from a server that need not answer. etcd catches up every 100 ms.
const SILENCE_LIMIT: Duration = Duration::from_millis(350);
/// Bound on the wait for progress from a server that must answer.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    answers: mpsc::UnboundedReceiver<Result<WatchResponse, Status>>,
    /// Received, and not rendered yet.
    waiting: VecDeque<WatchResponse>,
    /// The open watches, and the request of each.
    open: BTreeMap<i64, WatchCreateRequest>,
    /// A compaction cancelled a watch: etcd then never reports progress of the stream again.
    cut_off: bool,
    ended: Option<Status>,
}

impl WatchStream {
    pub fn start(channel: Channel) -> WatchStream {
        // Scripts send one request at a time, and read all answers.
        let (requests, sent) = mpsc::channel(1);
        let (receive, answers) = mpsc::unbounded_channel();
        // A task, because etcd starts its answer only with the first message.
        tokio::spawn(async move {
            let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
            let mut messages = match client.watch(ReceiverStream::new(sent)).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return drop(receive.send(Err(status))),
            };
            while let Some(message) = messages.next().await {
                if receive.send(message).is_err() {
                    break;
                }
            }
        });
        let (waiting, open) = (VecDeque::new(), BTreeMap::new());
        WatchStream { requests, answers, waiting, open, cut_off: false, ended: None }
    }

    /// Creates a watch, and waits for the confirmation.
    pub async fn create(&mut self, request: WatchCreateRequest, names: &Names) -> String {
        self.send(Some(RequestUnion::CreateRequest(request.clone()))).await;
        match self.next_that(|message| message.created, ANSWER_TIMEOUT).await {
            Some(message) => {
                if !message.canceled {
                    self.open.insert(message.watch_id, request);
                }
                render(&[message], false, names)
            }
            None => self.silence(),
        }
    }

    /// Cancels a watch. The server does not answer if there is no such watch.
    pub async fn cancel(&mut self, id: i64, names: &Names) -> String {
        self.send(Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }))).await;
        let known = self.open.remove(&id).is_some();
        let limit = if known { ANSWER_TIMEOUT } else { SILENCE_LIMIT };
        match self.next_that(|message| message.canceled && message.watch_id == id, limit).await {
            Some(message) => render(&[message], false, names),
            None => self.silence(),
        }
    }

    /// Requests the progress of the stream.
    pub async fn progress(&mut self, names: &Names) -> String {
        self.send(Some(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await;
        let limit = if self.answers(names.revision) { PROGRESS_TIMEOUT } else { SILENCE_LIMIT };
        match self.next_that(is_progress, limit).await {
            Some(message) => render(&[message], false, names),
            None => self.silence(),
        }
    }

    /// An empty request.
    pub async fn nothing(&mut self) -> String {
        self.send(None).await;
        String::new()
    }

    /// All events up to `names.revision`.
    pub async fn events(&mut self, names: &Names) -> String {
        self.catch_up(names.revision).await;
        let mut watches: BTreeMap<i64, Vec<WatchResponse>> = BTreeMap::new();
        for message in self.waiting.drain(..) {
            watches.entry(message.watch_id).or_default().push(message);
        }
        let mut text = String::new();
        for (id, messages) in watches {
            let fragments = self.open.get(&id).is_some_and(|request| request.fragment);
            text.push_str(&render(&messages, fragments, names));
            if let Some(last) = messages.iter().find(|message| message.canceled) {
                self.open.remove(&id);
                self.cut_off |= last.compact_revision != 0;
            }
        }
        if let Some(status) = &self.ended {
            writeln!(text, "ended: {}", refusal(status)).unwrap();
        }
        if text.is_empty() { "nothing".into() } else { text }
    }

    /// Waits for all events up to a revision: until the server reports that progress, or has been
    /// silent for long.
    async fn catch_up(&mut self, revision: i64) {
        let answers = self.answers(revision);
        let silence = if answers { PROGRESS_TIMEOUT } else { SILENCE_LIMIT };
        let mut last = Instant::now();
        while last.elapsed() < silence && self.ended.is_none() {
            if answers {
                self.send(Some(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await;
            }
            let sent = Instant::now();
            while let Some(left) = PROGRESS_INTERVAL.checked_sub(sent.elapsed()) {
                let Some(message) = self.next(left).await else { break };
                last = Instant::now();
                if !is_progress(&message) {
                    self.waiting.push_back(message);
                } else if answers && message.header.is_some_and(|h| h.revision >= revision) {
                    return;
                }
            }
        }
    }

    /// Whether the server must report progress sooner or later: no watch starts in the future.
    fn answers(&self, revision: i64) -> bool {
        !self.open.is_empty()
            && !self.cut_off
            && self.open.values().all(|request| request.start_revision <= revision)
    }

    async fn send(&mut self, request_union: Option<RequestUnion>) {
        if self.requests.send(WatchRequest { request_union }).await.is_err() {
            // The receiver of answers reports the end of the stream.
        }
    }

    /// The next message that satisfies the predicate. Earlier messages stay queued, except for
    /// progress, which may answer an earlier request.
    async fn next_that(
        &mut self,
        meant: impl Fn(&WatchResponse) -> bool,
        limit: Duration,
    ) -> Option<WatchResponse> {
        let start = Instant::now();
        loop {
            let message = self.next(limit.checked_sub(start.elapsed())?).await?;
            if meant(&message) {
                return Some(message);
            }
            if !is_progress(&message) {
                self.waiting.push_back(message);
            }
        }
    }

    async fn next(&mut self, limit: Duration) -> Option<WatchResponse> {
        match timeout(limit, self.answers.recv()).await.ok()? {
            Some(Ok(message)) => return Some(message),
            Some(Err(status)) => self.ended = Some(status),
            None => drop(self.ended.get_or_insert(Status::ok(""))),
        }
        None
    }

    fn silence(&self) -> String {
        match &self.ended {
            Some(status) => format!("ended: {}", refusal(status)),
            None => "no answer".into(),
        }
    }
}

/// Concerns the stream as a whole.
fn is_progress(message: &WatchResponse) -> bool {
    message.events.is_empty() && !message.created && !message.canceled
}

/// Renders the messages of one watch, or of none, and violations of the invariants.
fn render(messages: &[WatchResponse], fragments: bool, names: &Names) -> String {
    let mut transcript = Transcript { fragments, ..Transcript::default() };
    for message in messages {
        transcript.message(message, names);
    }
    if transcript.unfinished {
        transcript.wrong("more of a revision was to follow");
    }
    transcript.text
}

/// Room for the largest possible event, and the overhead of a request.
const FRAGMENT_BYTES: usize = 2 << 20;

/// The transcript of a watch so far.
#[derive(Default)]
struct Transcript {
    text: String,
    /// The watch requested large messages in fragments.
    fragments: bool,
    /// The revision of the last event.
    revision: i64,
    /// The previous message announced a further fragment.
    unfinished: bool,
}

impl Transcript {
    fn message(&mut self, message: &WatchResponse, names: &Names) {
        let WatchResponse {
            header: at,
            watch_id,
            created,
            canceled,
            compact_revision,
            cancel_reason,
            fragment,
            events,
        } = message;
        if events.is_empty() {
            write!(self.text, "watch {watch_id}: {}", header(at.as_ref())).unwrap();
            let progress = !created && !canceled;
            for (is, kind) in
                [(*created, "created"), (*canceled, "canceled"), (progress, "progress")]
            {
                if is {
                    write!(self.text, ", {kind}").unwrap();
                }
            }
            if *compact_revision != 0 {
                write!(self.text, ", compacted {compact_revision}").unwrap();
            }
            if !cancel_reason.is_empty() {
                write!(self.text, ", {cancel_reason:?}").unwrap();
            }
            self.text.push('\n');
        } else if *created || *canceled || *compact_revision != 0 || !cancel_reason.is_empty() {
            self.wrong("events in a message of another kind");
        }
        if *fragment && !self.fragments {
            self.wrong("a fragment without a request for fragments");
        }
        if self.fragments && events.len() > 1 && message.encoded_len() > FRAGMENT_BYTES {
            self.wrong("a large message, not in fragments");
        }
        let newest = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        if at.is_none_or(|at| newest.max().is_some_and(|newest| newest > at.revision)) {
            self.wrong("a header older than an event");
        }
        for (nth, event) in events.iter().enumerate() {
            let may_go_on = nth > 0 || self.unfinished;
            self.event(*watch_id, event, may_go_on, names);
        }
        self.unfinished = *fragment;
    }

    /// An event may repeat the revision of the last one only with `may_go_on`.
    fn event(&mut self, watch_id: i64, event: &Event, may_go_on: bool, names: &Names) {
        let kind = match EventType::try_from(event.r#type) {
            Ok(EventType::Put) => "put",
            Ok(EventType::Delete) => "delete",
            Err(_) => return self.wrong("an event of no type"),
        };
        let Some(kv) = &event.kv else { return self.wrong("an event without a key") };
        write!(self.text, "watch {watch_id}: {kind} {}", key_value(kv, names)).unwrap();
        if let Some(was) = &event.prev_kv {
            write!(self.text, ", was {}", key_value(was, names)).unwrap();
        }
        self.text.push('\n');
        if kv.mod_revision < self.revision {
            self.wrong("an event older than the one before");
        }
        if kv.mod_revision == self.revision && !may_go_on {
            self.wrong("a revision in two messages");
        }
        self.revision = kv.mod_revision;
    }

    fn wrong(&mut self, violation: &str) {
        writeln!(self.text, "WRONG: {violation}").unwrap();
    }
}
