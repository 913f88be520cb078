//! A client of one server that runs the commands of a script and renders the answers.
//!
//! The requests are those of [`grammar`]. Further commands:
//!
//! | | |
//! |---|---|
//! | `define NAME [if=] [then=] [else=]` | a transaction to be nested |
//! | `compact N [physical]`, `hashkv N` | |
//! | `grant TTL [id=ID] [as=NAME]`, `revoke ID`, `ttl ID [keys]`, `leases` | `as` names a lease whose id the server chooses |
//! | `keepalive ID ...` | one stream with a request for each |
//! | `await-end KEY` | waits until the key has expired with its lease |
//! | `watch KEY [end=\|from] [rev=N] [id=N] [prev_kv] [noput] [nodelete] [filter=N] [progress] [fragment]` | |
//! | `cancel ID`, `progress`, `nothing` | on the same stream |
//! | `events` | the events of the stream's watches since the last time |
//!
//! A prefix names a watch stream: `other: watch a`.

use std::{collections::BTreeMap, error::Error, rc::Rc, time::Duration};

use goldenscript::{Command, Context, Runner};
use ordinal::proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest, WatchCreateRequest,
    kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
    watch_create_request::FilterType,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::differential::{
    grammar::{self, Names, Parsed, Words},
    transcript::{self, Answer},
    watching::WatchStream,
};

/// Bound on the wait for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval between reads of a key that is about to expire.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub struct Session {
    runtime: Rc<Runtime>,
    channel: Channel,
    names: Names,
    streams: BTreeMap<String, WatchStream>,
    /// Commands that were answered.
    pub answered: usize,
}

/// `NotFound: etcdserver: requested lease not found`
pub fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl Session {
    pub fn with(url: String) -> Session {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(url).unwrap();
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let (names, streams) = (Names::default(), BTreeMap::new());
        Session { runtime: Rc::new(runtime), channel, names, streams, answered: 0 }
    }

    /// Drops streams and names: the next script defines its own.
    pub fn reset(&mut self) {
        self.streams.clear();
        self.names = Names { revision: self.names.revision, ..Names::default() };
    }

    async fn command(&mut self, line: &Command, stream: &str) -> Parsed<String> {
        // A copy: answers change the meaning of names.
        let names = self.names.clone();
        let words = Words::of(&names, &line.args);
        if let Some(answer) = self.key_value(&line.name, words).await? {
            return Ok(answer);
        }
        let words = Words::of(&names, &line.args);
        if let Some(answer) = self.lease(&line.name, words).await? {
            return Ok(answer);
        }
        let words = Words::of(&names, &line.args);
        self.watch(&line.name, words, stream).await
    }

    async fn key_value(&mut self, name: &str, mut words: Words<'_>) -> Parsed<Option<String>> {
        let mut kv = KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        Ok(Some(match name {
            "put" => self.render(kv.put(grammar::put(words)?).await),
            "get" => self.render(kv.range(grammar::range(words)?).await),
            "del" => self.render(kv.delete_range(grammar::delete(words)?).await),
            "txn" => self.render(kv.txn(grammar::txn(words)?).await),
            "define" => {
                let name = words.next()?;
                self.names.txns.insert(name, grammar::txn(words)?);
                String::new()
            }
            "compact" => {
                let physical = words.flag("physical");
                let request = CompactionRequest { revision: words.next_number()?, physical };
                words.end()?;
                self.render(kv.compact(request).await)
            }
            "hashkv" => {
                let request = HashKvRequest { revision: words.next_number()? };
                words.end()?;
                let mut maintenance = MaintenanceClient::new(self.channel.clone());
                self.render(maintenance.hash_kv(request).await)
            }
            "await-end" => {
                let (key, range_end) = words.keys()?;
                words.end()?;
                let request = RangeRequest { key, range_end, ..RangeRequest::default() };
                let start = Instant::now();
                loop {
                    let answer = kv.range(request.clone()).await;
                    let ended = answer.as_ref().is_ok_and(|answer| answer.get_ref().count == 0);
                    if ended || start.elapsed() > ANSWER_TIMEOUT {
                        break self.render(answer);
                    }
                    sleep(POLL_INTERVAL).await;
                }
            }
            _ => return Ok(None),
        }))
    }

    async fn lease(&mut self, name: &str, mut words: Words<'_>) -> Parsed<Option<String>> {
        let mut lease = LeaseClient::new(self.channel.clone());
        Ok(Some(match name {
            "grant" => {
                let request =
                    LeaseGrantRequest { id: words.number("id")?, ttl: words.next_number()? };
                let named = words.pair("as");
                words.end()?;
                let answer = lease.lease_grant(request).await;
                if let (Some(name), Ok(granted)) = (named, &answer) {
                    self.names.leases.insert(name, granted.get_ref().id);
                }
                self.render(answer)
            }
            "revoke" => {
                let request = LeaseRevokeRequest { id: words.next_number()? };
                words.end()?;
                self.render(lease.lease_revoke(request).await)
            }
            "ttl" => {
                let keys = words.flag("keys");
                let request = LeaseTimeToLiveRequest { id: words.next_number()?, keys };
                words.end()?;
                self.render(lease.lease_time_to_live(request).await)
            }
            "leases" => {
                words.end()?;
                self.render(lease.lease_leases(LeaseLeasesRequest {}).await)
            }
            "keepalive" => {
                let mut requests = Vec::new();
                while let Ok(id) = words.next_number() {
                    requests.push(LeaseKeepAliveRequest { id });
                }
                words.end()?;
                match lease.lease_keep_alive(tokio_stream::iter(requests)).await {
                    Ok(answers) => self.render_all(answers.into_inner()).await,
                    Err(status) => refusal(&status),
                }
            }
            _ => return Ok(None),
        }))
    }

    async fn watch(&mut self, name: &str, mut words: Words<'_>, stream: &str) -> Parsed<String> {
        if !self.streams.contains_key(stream) {
            let watching = WatchStream::start(self.channel.clone());
            self.streams.insert(stream.into(), watching);
        }
        let watching = self.streams.get_mut(stream).ok_or("it was just inserted")?;
        let answer = match name {
            "watch" => watching.create(watch(words)?, &self.names).await,
            "cancel" => {
                let id = words.next_number()?;
                words.end()?;
                watching.cancel(id, &self.names).await
            }
            name => {
                words.end()?;
                match name {
                    "events" => watching.events(&self.names).await,
                    "progress" => watching.progress(&self.names).await,
                    "nothing" => watching.nothing().await,
                    _ => return Err(format!("no such command: {name}").into()),
                }
            }
        };
        Ok(answer)
    }

    /// Renders an answer, and records its revision as `now`.
    fn render<A: Answer>(&mut self, answer: Result<Response<A>, Status>) -> String {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                let revision = answer.header().map_or(0, |header| header.revision);
                self.names.revision = self.names.revision.max(revision);
                transcript::answer(&answer, &self.names)
            }
            Err(status) => refusal(&status),
        }
    }

    async fn render_all<A: Answer>(&mut self, mut answers: Streaming<A>) -> String {
        let mut text = String::new();
        loop {
            match answers.message().await {
                Ok(Some(answer)) => text.push_str(&self.render(Ok(Response::new(answer)))),
                Ok(None) => return text,
                Err(status) => return text + &refusal(&status),
            }
        }
    }
}

/// The commands of a script, in order.
impl Runner for Session {
    type Command = Command;

    fn run(&mut self, line: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let runtime = self.runtime.clone();
        let stream = context.prefix.as_deref().unwrap_or_default();
        let answer = runtime
            .block_on(async { timeout(2 * ANSWER_TIMEOUT, self.command(line, stream)).await });
        self.answered += 1;
        answer.unwrap_or_else(|_| Ok("no answer".into()))
    }
}

fn watch(mut words: Words<'_>) -> Parsed<WatchCreateRequest> {
    let mut filters = Vec::new();
    let named = [("noput", FilterType::Noput), ("nodelete", FilterType::Nodelete)];
    for (name, filter) in named {
        if words.flag(name) {
            filters.push(filter.into());
        }
    }
    while let Some(filter) = words.pair("filter") {
        filters.push(filter.parse()?);
    }
    let request = WatchCreateRequest {
        start_revision: words.number("rev")?,
        watch_id: words.number("id")?,
        prev_kv: words.flag("prev_kv"),
        progress_notify: words.flag("progress"),
        fragment: words.flag("fragment"),
        filters,
        ..WatchCreateRequest::default()
    };
    let (key, range_end) = words.keys()?;
    words.end()?;
    Ok(WatchCreateRequest { key, range_end, ..request })
}
