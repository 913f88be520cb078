//! One stream of watches to one member.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    client::{ANSWER_BYTES_MAX, Client, ClientError, Kind, Link, needs_leader},
    proto::etcdserverpb::{
        WatchProgressRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
};

/// Requests on their way. The member takes them at once, and nobody needs to ask often.
const ASKS_MAX: usize = 16;

/// What a member is asked on a stream, and what it says. It may carry several watches; dropping it
/// ends them.
#[derive(Debug)]
pub(crate) struct WatchStream {
    pub(crate) endpoint: String,
    asks: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// For an answer that is due.
    limit: Duration,
}

impl Client {
    /// Opens a stream to one member, and asks `first` on it. The answer is the caller's to wait for.
    pub(super) async fn watch_stream(
        &self,
        link: &Link,
        first: WatchRequest,
    ) -> Result<WatchStream, ClientError> {
        let channel = link.connect(self.timeouts().dial).await;
        let channel = channel.map_err(|error| ClientError::Unreachable(vec![error]))?;
        let endpoint = link.endpoint.to_string();
        let (asks, requests) = mpsc::channel(ASKS_MAX);
        // Members answer a stream only once something is asked on it.
        asks.try_send(first).expect("a new queue has room");
        let mut service = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let request = self.marked(needs_leader(ReceiverStream::new(requests)));
        match timeout(self.timeouts().command, service.watch(request)).await {
            Ok(Ok(answer)) => {
                let (answers, limit) = (answer.into_inner(), self.timeouts().command);
                Ok(WatchStream { endpoint, asks, answers, limit })
            }
            Ok(Err(status)) => Err(ClientError::of_status(&endpoint, Kind::Read, &status)),
            Err(_) => {
                let timeout = self.timeouts().command;
                Err(ClientError::TimedOut { endpoint, timeout, kind: Kind::Read })
            }
        }
    }
}

impl Client {
    /// Opens a stream that others than this watch may be added to. It is not resumed.
    pub(crate) async fn open_watch_stream(
        &self,
        first: WatchRequest,
    ) -> Result<WatchStream, ClientError> {
        let links = self.links();
        let mut stream = self.watch_stream(&links[self.preferred() % links.len()], first).await?;
        stream.until_created().await?;
        Ok(stream)
    }
}

impl WatchStream {
    /// The next answer. May be dropped while it waits, and called again.
    pub(crate) async fn answer(&mut self) -> Result<WatchResponse, ClientError> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.broken(&Status::unavailable("the member ended the stream"))),
            Err(status) => Err(self.broken(&status)),
        }
    }

    /// Makes another watch on the stream, and waits until the member has taken it. What other
    /// watches of the stream tell meanwhile is lost.
    pub(crate) async fn add(&mut self, request: WatchRequest) -> Result<(), ClientError> {
        // A stream that has ended says so when it is asked for its answer.
        let _ = self.asks.send(request).await;
        self.until_created().await
    }

    async fn until_created(&mut self) -> Result<(), ClientError> {
        loop {
            let answer = match timeout(self.limit, self.answer()).await {
                Ok(answer) => answer?,
                Err(_) => {
                    let (endpoint, timeout) = (self.endpoint.clone(), self.limit);
                    return Err(ClientError::TimedOut { endpoint, timeout, kind: Kind::Read });
                }
            };
            if answer.canceled {
                let message = answer.cancel_reason;
                return Err(ClientError::Refused { code: Code::FailedPrecondition, message });
            }
            if answer.created {
                return Ok(());
            }
        }
    }

    /// Asks how far all watches of the stream have come. Not twice at a time.
    pub(super) fn ask_progress(&self) {
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        // A full queue has this request in it already.
        let _ = self.asks.try_send(WatchRequest { request_union: Some(progress) });
    }

    fn broken(&self, status: &Status) -> ClientError {
        ClientError::of_status(&self.endpoint, Kind::Read, status)
    }
}
