//! One watch stream: what is sent on it, and what came, told in an order that does not depend on
//! timing.
//!
//! A server may put the events of several revisions into one message or into several, and may
//! interleave its watches. So events are told watch by watch; what must hold however they are packed
//! is checked here: revisions ascend, the events of one are in one message unless it is fragmented,
//! and the header is as new as they are.

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

use crate::{
    grammar::Names,
    said::{header, key_value},
    session::{PATIENCE, refusal},
};

/// How often a server is asked how far it is: etcd does not answer while it catches up.
const ASK_AGAIN: Duration = Duration::from_millis(60);
/// Nobody answers a question about progress later than this. etcd catches up every 100 ms.
const NO_ANSWER: Duration = Duration::from_millis(350);
/// Of a server that should answer, and does not.
const LATE_ANSWER: Duration = Duration::from_secs(5);

pub(crate) struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: mpsc::UnboundedReceiver<Result<WatchResponse, Status>>,
    /// Came, and is not told yet.
    waiting: VecDeque<WatchResponse>,
    /// The watches that are open, and what was asked of each.
    open: BTreeMap<i64, WatchCreateRequest>,
    /// A watch was cut off by a compaction: etcd is then silent about the stream's progress for ever.
    cut_off: bool,
    ended: Option<Status>,
}

impl Watching {
    pub(crate) fn start(channel: Channel) -> Watching {
        // Scripts send one request at a time, and read all there is.
        let (requests, sent) = mpsc::channel(1);
        let (receive, answers) = mpsc::unbounded_channel();
        // A task, because etcd does not even begin its answer before it has something to say.
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
        Watching { requests, answers, waiting, open, cut_off: false, ended: None }
    }

    /// Asks for a watch, and waits for the answer to that.
    pub(crate) async fn create(&mut self, request: WatchCreateRequest, names: &Names) -> String {
        self.send(Some(RequestUnion::CreateRequest(request.clone()))).await;
        match self.next_that(|message| message.created, PATIENCE).await {
            Some(message) => {
                if !message.canceled {
                    self.open.insert(message.watch_id, request);
                }
                tell(&[message], false, names)
            }
            None => self.silence(),
        }
    }

    /// Asks for the end of a watch. Of one that there is not nothing is said.
    pub(crate) async fn cancel(&mut self, id: i64, names: &Names) -> String {
        self.send(Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }))).await;
        let known = self.open.remove(&id).is_some();
        let limit = if known { PATIENCE } else { NO_ANSWER };
        match self.next_that(|message| message.canceled && message.watch_id == id, limit).await {
            Some(message) => tell(&[message], false, names),
            None => self.silence(),
        }
    }

    /// Asks how far the stream is.
    pub(crate) async fn progress(&mut self, names: &Names) -> String {
        self.send(Some(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await;
        let limit = if self.answers(names.revision) { LATE_ANSWER } else { NO_ANSWER };
        match self.next_that(is_progress, limit).await {
            Some(message) => tell(&[message], false, names),
            None => self.silence(),
        }
    }

    /// A request that asks nothing.
    pub(crate) async fn nothing(&mut self) -> String {
        self.send(None).await;
        String::new()
    }

    /// Everything up to the present, which is `names.revision`.
    pub(crate) async fn events(&mut self, names: &Names) -> String {
        self.catch_up(names.revision).await;
        let mut watches: BTreeMap<i64, Vec<WatchResponse>> = BTreeMap::new();
        for message in self.waiting.drain(..) {
            watches.entry(message.watch_id).or_default().push(message);
        }
        let mut text = String::new();
        for (id, messages) in watches {
            let fragments = self.open.get(&id).is_some_and(|asked| asked.fragment);
            text.push_str(&tell(&messages, fragments, names));
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

    /// Waits until everything up to a revision has come: that is when the server says that it is so
    /// far, or when it has been silent for long.
    async fn catch_up(&mut self, revision: i64) {
        let answers = self.answers(revision);
        let silence = if answers { LATE_ANSWER } else { NO_ANSWER };
        let mut last = Instant::now();
        while last.elapsed() < silence && self.ended.is_none() {
            if answers {
                self.send(Some(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await;
            }
            let asked = Instant::now();
            while let Some(left) = ASK_AGAIN.checked_sub(asked.elapsed()) {
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

    /// Whether the server is to say how far it is, sooner or later: all watches are at the present.
    fn answers(&self, revision: i64) -> bool {
        !self.open.is_empty()
            && !self.cut_off
            && self.open.values().all(|asked| asked.start_revision <= revision)
    }

    async fn send(&mut self, request_union: Option<RequestUnion>) {
        if self.requests.send(WatchRequest { request_union }).await.is_err() {
            // Its end is read where answers are.
        }
    }

    /// The next message that is meant. What comes before it waits, but for progress: it may be the
    /// answer to an earlier question.
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

/// About the stream as a whole.
fn is_progress(message: &WatchResponse) -> bool {
    message.events.is_empty() && !message.created && !message.canceled
}

/// What one watch, or none, was sent, and what is wrong with that.
fn tell(messages: &[WatchResponse], fragments: bool, names: &Names) -> String {
    let mut told = Told { fragments, ..Told::default() };
    for message in messages {
        told.message(message, names);
    }
    if told.unfinished {
        told.wrong("more of a revision was to follow");
    }
    told.text
}

/// With room for one event as large as a request may be, and a request's overhead.
const FRAGMENT_BYTES: usize = 2 << 20;

/// What a watch has been told so far.
#[derive(Default)]
struct Told {
    text: String,
    /// It asked for large messages in pieces.
    fragments: bool,
    /// Of the last event.
    revision: i64,
    /// The message before said that more follows.
    unfinished: bool,
}

impl Told {
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
            for (is, what) in
                [(*created, "created"), (*canceled, "canceled"), (progress, "progress")]
            {
                if is {
                    write!(self.text, ", {what}").unwrap();
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
            self.wrong("a fragment that nobody asked for");
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

    /// Only where `may_go_on` is it one more of the same revision.
    fn event(&mut self, watch_id: i64, event: &Event, may_go_on: bool, names: &Names) {
        let what = match EventType::try_from(event.r#type) {
            Ok(EventType::Put) => "put",
            Ok(EventType::Delete) => "delete",
            Err(_) => return self.wrong("an event of no type"),
        };
        let Some(kv) = &event.kv else { return self.wrong("an event without a key") };
        write!(self.text, "watch {watch_id}: {what} {}", key_value(kv, names)).unwrap();
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

    fn wrong(&mut self, what: &str) {
        writeln!(self.text, "WRONG: {what}").unwrap();
    }
}
