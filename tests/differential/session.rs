//! A client of one server, which does what a script says and tells what was answered.
//!
//! Requests are those of [`grammar`]. Besides there are:
//!
//! | | |
//! |---|---|
//! | `define NAME [if=] [then=] [else=]` | a transaction to be nested |
//! | `compact N [physical]`, `hashkv N` | |
//! | `grant TTL [id=ID] [as=NAME]`, `revoke ID`, `ttl ID [keys]`, `leases` | `as` names a lease whose id the server chooses |
//! | `keepalive ID ...` | one stream of as many requests |
//! | `await-end KEY` | waits until a lease has taken the key |
//! | `watch KEY [end=\|from] [rev=N] [id=N] [prev_kv] [noput] [nodelete] [filter=N] [progress] [fragment]` | |
//! | `cancel ID`, `progress`, `nothing` | on the same stream |
//! | `events` | what the stream's watches were told since |
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

use crate::{
    grammar::{self, Names, Parsed, Words},
    said::{self, Answer},
    watching::Watching,
};

/// An answer that is not there by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a key that is to end.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Session {
    runtime: Rc<Runtime>,
    channel: Channel,
    names: Names,
    streams: BTreeMap<String, Watching>,
    /// Commands that were answered.
    pub(crate) answered: usize,
}

/// `NotFound: etcdserver: requested lease not found`
pub(crate) fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl Session {
    pub(crate) fn with(url: String) -> Session {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(url).unwrap();
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let (names, streams) = (Names::default(), BTreeMap::new());
        Session { runtime: Rc::new(runtime), channel, names, streams, answered: 0 }
    }

    /// Forgets streams and names, as the next script has its own.
    pub(crate) fn forget(&mut self) {
        self.streams.clear();
        self.names = Names { revision: self.names.revision, ..Names::default() };
    }

    async fn command(&mut self, line: &Command, stream: &str) -> Parsed<String> {
        // A copy: answers change what names mean.
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
            "put" => self.tell(kv.put(grammar::put(words)?).await),
            "get" => self.tell(kv.range(grammar::range(words)?).await),
            "del" => self.tell(kv.delete_range(grammar::delete(words)?).await),
            "txn" => self.tell(kv.txn(grammar::txn(words)?).await),
            "define" => {
                let name = words.next()?;
                self.names.txns.insert(name, grammar::txn(words)?);
                String::new()
            }
            "compact" => {
                let physical = words.flag("physical");
                let request = CompactionRequest { revision: words.next_number()?, physical };
                words.end()?;
                self.tell(kv.compact(request).await)
            }
            "hashkv" => {
                let request = HashKvRequest { revision: words.next_number()? };
                words.end()?;
                let mut maintenance = MaintenanceClient::new(self.channel.clone());
                self.tell(maintenance.hash_kv(request).await)
            }
            "await-end" => {
                let (key, range_end) = words.keys()?;
                words.end()?;
                let request = RangeRequest { key, range_end, ..RangeRequest::default() };
                let start = Instant::now();
                loop {
                    let answer = kv.range(request.clone()).await;
                    let ended = answer.as_ref().is_ok_and(|answer| answer.get_ref().count == 0);
                    if ended || start.elapsed() > PATIENCE {
                        break self.tell(answer);
                    }
                    sleep(LOOK).await;
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
                self.tell(answer)
            }
            "revoke" => {
                let request = LeaseRevokeRequest { id: words.next_number()? };
                words.end()?;
                self.tell(lease.lease_revoke(request).await)
            }
            "ttl" => {
                let keys = words.flag("keys");
                let request = LeaseTimeToLiveRequest { id: words.next_number()?, keys };
                words.end()?;
                self.tell(lease.lease_time_to_live(request).await)
            }
            "leases" => {
                words.end()?;
                self.tell(lease.lease_leases(LeaseLeasesRequest {}).await)
            }
            "keepalive" => {
                let mut requests = Vec::new();
                while let Ok(id) = words.next_number() {
                    requests.push(LeaseKeepAliveRequest { id });
                }
                words.end()?;
                match lease.lease_keep_alive(tokio_stream::iter(requests)).await {
                    Ok(answers) => self.tell_all(answers.into_inner()).await,
                    Err(status) => refusal(&status),
                }
            }
            _ => return Ok(None),
        }))
    }

    async fn watch(&mut self, name: &str, mut words: Words<'_>, stream: &str) -> Parsed<String> {
        if !self.streams.contains_key(stream) {
            let watching = Watching::start(self.channel.clone());
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

    /// An answer as text. What it says of the newest revision is remembered.
    fn tell<A: Answer>(&mut self, answer: Result<Response<A>, Status>) -> String {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                let revision = answer.header().map_or(0, |header| header.revision);
                self.names.revision = self.names.revision.max(revision);
                said::answer(&answer, &self.names)
            }
            Err(status) => refusal(&status),
        }
    }

    async fn tell_all<A: Answer>(&mut self, mut answers: Streaming<A>) -> String {
        let mut text = String::new();
        loop {
            match answers.message().await {
                Ok(Some(answer)) => text.push_str(&self.tell(Ok(Response::new(answer)))),
                Ok(None) => return text,
                Err(status) => return text + &refusal(&status),
            }
        }
    }
}

/// Commands of a script, one after the other.
impl Runner for Session {
    type Command = Command;

    fn run(&mut self, line: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let runtime = self.runtime.clone();
        let stream = context.prefix.as_deref().unwrap_or_default();
        let answer =
            runtime.block_on(async { timeout(2 * PATIENCE, self.command(line, stream)).await });
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
