//! The task of a watch: forwards updates, and resumes at another member when a stream breaks.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, mpsc},
    time::timeout,
};

use super::{
    super::{
        backoff::Backoff,
        core::Client,
        error::{ClientError, RequestKind},
    },
    assembler::BatchAssembler,
    request::Watch,
    stream::WatchStream,
    update::{EventBatch, WatchError, WatchUpdate},
};
use crate::proto::etcdserverpb::{ResponseHeader, WatchResponse};

/// Between two rounds through all endpoints.
const ROUND_WAIT_MAX: Duration = Duration::from_secs(2);
/// The watch ID of a response that concerns all watches of a stream.
const ALL_WATCHES: i64 = -1;

pub type UpdateResult = Result<WatchUpdate, WatchError>;

/// A running watch. Ends when the receiver of `updates` is dropped, or after sending an error.
#[derive(Debug)]
pub struct WatchTask {
    client: Client,
    watch: Watch,
    assembler: BatchAssembler,
    /// The position of the current endpoint.
    at: usize,
    updates: mpsc::Sender<UpdateResult>,
    progress_request: Arc<Notify>,
}

/// Why a stream delivers no more events.
enum StreamEnd {
    /// Another member may resume the watch.
    Broken(ClientError),
    Failed(WatchError),
    /// The watcher was dropped.
    Dropped,
}

impl From<WatchError> for StreamEnd {
    fn from(error: WatchError) -> StreamEnd {
        StreamEnd::Failed(error)
    }
}

impl WatchTask {
    /// Creates the watch at the first endpoint that accepts it, trying each once.
    pub async fn start(
        client: Client,
        watch: Watch,
        updates: mpsc::Sender<UpdateResult>,
        progress_request: Arc<Notify>,
    ) -> Result<(WatchTask, WatchStream, ResponseHeader), WatchError> {
        let at = client.preferred();
        let assembler = BatchAssembler::starting_at(watch.start_revision());
        let mut task = WatchTask { client, watch, assembler, at, updates, progress_request };
        let (stream, header) = match task.try_endpoints().await? {
            Ok(opened) => opened,
            Err(error) => return Err(error.into()),
        };
        // The watch covers all events from here on, even if the stream breaks before the first one.
        if task.watch.start_revision() == 0 {
            task.assembler = BatchAssembler::starting_at(header.revision + 1);
        }
        Ok((task, stream, header))
    }

    pub async fn run(mut self, mut stream: WatchStream) {
        let mut backoff = Backoff::up_to(ROUND_WAIT_MAX);
        loop {
            let error = match self.forward(&mut stream, &mut backoff).await {
                StreamEnd::Broken(error) => error,
                StreamEnd::Failed(error) => return self.fail(error).await,
                StreamEnd::Dropped => return,
            };
            self.assembler.discard_partial();
            let from = self.assembler.next();
            if self.updates.send(Ok(WatchUpdate::Interrupted { error, from })).await.is_err() {
                return;
            }
            let updates = self.updates.clone();
            let resumed = select! {
                resumed = self.resume(&mut backoff) => resumed,
                () = updates.closed() => return,
            };
            stream = match resumed {
                Ok(stream) => stream,
                Err(error) => return self.fail(error).await,
            };
            let endpoint = stream.endpoint.clone();
            if self.updates.send(Ok(WatchUpdate::Resumed { endpoint })).await.is_err() {
                return;
            }
        }
    }

    async fn fail(self, error: WatchError) {
        // Fails only if the watcher was dropped.
        let _ = self.updates.send(Err(error)).await;
    }

    /// Forwards all updates of a stream until the stream ends.
    async fn forward(&mut self, stream: &mut WatchStream, backoff: &mut Backoff) -> StreamEnd {
        loop {
            let response = select! {
                response = stream.response() => response,
                () = self.progress_request.notified() => {
                    stream.request_progress();
                    continue;
                }
                () = self.updates.closed() => return StreamEnd::Dropped,
            };
            let update = match response {
                Err(error) => return classify(error),
                Ok(response) => {
                    backoff.reset();
                    match self.interpret(response) {
                        Ok(update) => update,
                        Err(error) => return StreamEnd::Failed(error),
                    }
                }
            };
            if let Some(update) = update
                && self.updates.send(Ok(update)).await.is_err()
            {
                return StreamEnd::Dropped;
            }
        }
    }

    fn interpret(
        &mut self,
        mut response: WatchResponse,
    ) -> Result<Option<WatchUpdate>, WatchError> {
        if response.canceled {
            return Err(WatchError::of_canceled(response, self.assembler.next()));
        }
        let header = response.header.unwrap_or_default();
        self.client.observe(Some(&header));
        if response.events.is_empty() && !response.created && !response.fragment {
            // On etcd before 3.5.8, a response about all watches may be ahead of this watch.
            if response.watch_id != ALL_WATCHES {
                self.assembler.advance_to(header.revision);
            }
            return Ok(Some(WatchUpdate::Progress(header)));
        }
        let events = self.assembler.take(&mut response);
        let batch = (!events.is_empty()).then_some(EventBatch { header, events });
        Ok(batch.map(WatchUpdate::Events))
    }

    /// Tries all endpoints, round by round, starting after the one that failed.
    async fn resume(&mut self, backoff: &mut Backoff) -> Result<WatchStream, WatchError> {
        self.at += 1;
        self.watch = self.watch.clone().from_revision(self.assembler.next());
        loop {
            // The wait comes first: a member may accept the watch and drop it at once, again and again.
            backoff.wait().await;
            if let Ok((stream, _)) = self.try_endpoints().await? {
                return Ok(stream);
            }
        }
    }

    /// Tries each endpoint once. The outer error ends the watch. The inner error is that of the last
    /// reachable endpoint.
    async fn try_endpoints(
        &mut self,
    ) -> Result<Result<(WatchStream, ResponseHeader), ClientError>, WatchError> {
        let mut unreachable = Vec::new();
        let mut failure = None;
        for _ in 0..self.client.endpoints().len() {
            match self.open().await {
                Ok(opened) => return Ok(Ok(opened)),
                Err(StreamEnd::Broken(ClientError::Unreachable(more))) => unreachable.extend(more),
                Err(StreamEnd::Broken(error)) => failure = Some(error),
                Err(StreamEnd::Failed(error)) => return Err(error),
                Err(StreamEnd::Dropped) => break,
            }
            self.at += 1;
        }
        Ok(Err(failure.unwrap_or(ClientError::Unreachable(unreachable))))
    }

    /// Creates the watch at the current endpoint.
    async fn open(&mut self) -> Result<(WatchStream, ResponseHeader), StreamEnd> {
        let endpoints = self.client.endpoints();
        self.at %= endpoints.len();
        let opened = self.client.watch_stream(&endpoints[self.at], self.watch.create()).await;
        let mut stream = opened.map_err(classify)?;
        let response = match timeout(self.client.timeouts().command, stream.response()).await {
            Ok(response) => response.map_err(classify)?,
            Err(_) => {
                let error = self.client.timed_out(stream.endpoint, RequestKind::Read);
                return Err(StreamEnd::Broken(error));
            }
        };
        // A refused watch is created and canceled in one response, or only canceled.
        if response.canceled {
            return Err(WatchError::of_canceled(response, self.watch.start_revision()).into());
        }
        Ok((stream, response.header.unwrap_or_default()))
    }
}

fn classify(error: ClientError) -> StreamEnd {
    if is_final(&error) { StreamEnd::Failed(error.into()) } else { StreamEnd::Broken(error) }
}

/// Whether every member would refuse as well.
fn is_final(error: &ClientError) -> bool {
    use tonic::Code;
    let ClientError::Refused { code, .. } = error else { return false };
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}
