//! The task of a watch: passes on what comes, and resumes on another member when a stream breaks.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, mpsc},
    time::timeout,
};

use super::{EventBatch, Notice, Watch, WatchError, assembly::Assembly, stream::WatchStream};
use crate::{
    client::{Client, ClientError, Kind, backoff::Backoff},
    proto::etcdserverpb::{ResponseHeader, WatchResponse},
};

/// Between two rounds through all endpoints.
const ROUND_WAIT_MAX: Duration = Duration::from_secs(2);
/// The watch id of an answer that is about all watches of a stream.
const ALL_WATCHES: i64 = -1;

pub(super) type Told = Result<Notice, WatchError>;

/// A watch while it lasts. It ends when nobody listens to `told`, or with an error that is told.
#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    watch: Watch,
    assembly: Assembly,
    /// The endpoint that is asked, by its place in the client's list.
    at: usize,
    told: mpsc::Sender<Told>,
    progress: Arc<Notify>,
}

/// Why a stream gives no more events.
enum End {
    /// Another member may go on.
    Broken(ClientError),
    Failed(WatchError),
    /// Nobody listens.
    Unwanted,
}

impl From<WatchError> for End {
    fn from(error: WatchError) -> End {
        End::Failed(error)
    }
}

impl Follower {
    /// Makes the watch: asks each endpoint once.
    pub(super) async fn begin(
        client: Client,
        watch: Watch,
        told: mpsc::Sender<Told>,
        progress: Arc<Notify>,
    ) -> Result<(Follower, WatchStream, ResponseHeader), WatchError> {
        let at = client.preferred();
        let assembly = Assembly::starting_at(watch.start_revision());
        let mut follower = Follower { client, watch, assembly, at, told, progress };
        let (stream, header) = match follower.round().await? {
            Ok(opened) => opened,
            Err(error) => return Err(error.into()),
        };
        // Whatever happens from here on belongs to the watch, also if the stream breaks before
        // anything did.
        if follower.watch.start_revision() == 0 {
            follower.assembly = Assembly::starting_at(header.revision + 1);
        }
        Ok((follower, stream, header))
    }

    pub(super) async fn run(mut self, mut stream: WatchStream) {
        let mut backoff = Backoff::up_to(ROUND_WAIT_MAX);
        loop {
            let error = match self.pass_on(&mut stream, &mut backoff).await {
                End::Broken(error) => error,
                End::Failed(error) => return self.end(error).await,
                End::Unwanted => return,
            };
            self.assembly.forget_half();
            let from = self.assembly.next();
            if self.told.send(Ok(Notice::Interrupted { error, from })).await.is_err() {
                return;
            }
            let told = self.told.clone();
            let resumed = select! {
                resumed = self.resume(&mut backoff) => resumed,
                () = told.closed() => return,
            };
            stream = match resumed {
                Ok(stream) => stream,
                Err(error) => return self.end(error).await,
            };
            let endpoint = stream.endpoint.clone();
            if self.told.send(Ok(Notice::Resumed { endpoint })).await.is_err() {
                return;
            }
        }
    }

    async fn end(self, error: WatchError) {
        // Nobody listens: nobody misses it.
        let _ = self.told.send(Err(error)).await;
    }

    /// Passes on all that a stream brings, until it brings no more.
    async fn pass_on(&mut self, stream: &mut WatchStream, backoff: &mut Backoff) -> End {
        loop {
            let answer = select! {
                answer = stream.answer() => answer,
                () = self.progress.notified() => {
                    stream.ask_progress();
                    continue;
                }
                () = self.told.closed() => return End::Unwanted,
            };
            let notice = match answer {
                Err(error) => return self.after(error),
                Ok(answer) => {
                    backoff.reset();
                    match self.judge(answer) {
                        Ok(notice) => notice,
                        Err(error) => return End::Failed(error),
                    }
                }
            };
            if let Some(notice) = notice
                && self.told.send(Ok(notice)).await.is_err()
            {
                return End::Unwanted;
            }
        }
    }

    /// What an answer means.
    fn judge(&mut self, mut answer: WatchResponse) -> Result<Option<Notice>, WatchError> {
        if answer.canceled {
            return Err(WatchError::of(answer, self.assembly.next()));
        }
        let header = answer.header.unwrap_or_default();
        self.client.saw(Some(&header));
        if answer.events.is_empty() && !answer.created && !answer.fragment {
            // An answer about all watches may, on etcd before 3.5.8, be ahead of this one.
            if answer.watch_id != ALL_WATCHES {
                self.assembly.progressed_to(header.revision);
            }
            return Ok(Some(Notice::Progress(header)));
        }
        let events = self.assembly.take(&mut answer);
        Ok((!events.is_empty()).then_some(Notice::Events(EventBatch { header, events })))
    }

    fn after(&self, error: ClientError) -> End {
        if is_final(&error) { End::Failed(error.into()) } else { End::Broken(error) }
    }

    /// Asks all endpoints, round by round, beginning after the one that failed.
    async fn resume(&mut self, backoff: &mut Backoff) -> Result<WatchStream, WatchError> {
        self.at += 1;
        self.watch = self.watch.clone().from_revision(self.assembly.next());
        loop {
            // The wait comes first: a member that takes a watch only to drop it is not asked
            // without end.
            backoff.wait().await;
            if let Ok((stream, _)) = self.round().await? {
                return Ok(stream);
            }
        }
    }

    /// Asks each endpoint once. The outer error is for ever; the inner one is that of the last
    /// endpoint that answered at all.
    async fn round(
        &mut self,
    ) -> Result<Result<(WatchStream, ResponseHeader), ClientError>, WatchError> {
        let mut unreachable = Vec::new();
        let mut answered = None;
        for _ in 0..self.client.links().len() {
            match self.open().await {
                Ok(opened) => return Ok(Ok(opened)),
                Err(End::Broken(ClientError::Unreachable(more))) => unreachable.extend(more),
                Err(End::Broken(error)) => answered = Some(error),
                Err(End::Failed(error)) => return Err(error),
                Err(End::Unwanted) => break,
            }
            self.at += 1;
        }
        Ok(Err(answered.unwrap_or(ClientError::Unreachable(unreachable))))
    }

    /// Makes the watch on the present endpoint.
    async fn open(&mut self) -> Result<(WatchStream, ResponseHeader), End> {
        let links = self.client.links();
        self.at %= links.len();
        let opened = self.client.watch_stream(&links[self.at], self.watch.create()).await;
        let mut stream = opened.map_err(|error| self.after(error))?;
        let limit = self.client.timeouts().command;
        let answer = match timeout(limit, stream.answer()).await {
            Ok(answer) => answer.map_err(|error| self.after(error))?,
            Err(_) => {
                let endpoint = stream.endpoint;
                let kind = Kind::Read;
                return Err(End::Broken(ClientError::TimedOut { endpoint, timeout: limit, kind }));
            }
        };
        // A watch that is refused is created and canceled at once, or canceled only.
        if answer.canceled {
            return Err(WatchError::of(answer, self.watch.start_revision()).into());
        }
        Ok((stream, answer.header.unwrap_or_default()))
    }
}

/// Whether every other member would say the same.
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
