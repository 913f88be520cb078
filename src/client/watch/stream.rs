//! A watch stream to one member.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::{
    channel::{EndpointChannel, require_leader, watch_service},
    core::Client,
    error::{ClientError, RequestKind},
};
use crate::proto::etcdserverpb::{
    WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};

/// Requests queued on a stream. Members read them at once, and requests are rare.
const QUEUED_REQUESTS_MAX: usize = 16;

/// A stream may carry several watches. Dropping it cancels them.
#[derive(Debug)]
pub struct WatchStream {
    pub endpoint: String,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// For a response to a request.
    timeout: Duration,
}

impl Client {
    /// Opens a stream to one member, and sends the first request. The caller must wait for the response.
    pub(super) async fn watch_stream(
        &self,
        endpoint: &EndpointChannel,
        first: WatchRequest,
    ) -> Result<WatchStream, ClientError> {
        let channel = endpoint.connect(self.timeouts().dial).await;
        let channel = channel.map_err(|error| ClientError::Unreachable(vec![error]))?;
        let endpoint = endpoint.endpoint.to_string();
        let (requests, outgoing) = mpsc::channel(QUEUED_REQUESTS_MAX);
        // etcd sends the headers of the stream only after the first request.
        requests.try_send(first).expect("a new queue has room");
        let request = self.with_token(require_leader(ReceiverStream::new(outgoing)));
        let command_timeout = self.timeouts().command;
        match timeout(command_timeout, watch_service(channel).watch(request)).await {
            Ok(Ok(response)) => {
                let responses = response.into_inner();
                Ok(WatchStream { endpoint, requests, responses, timeout: command_timeout })
            }
            Ok(Err(status)) => Err(ClientError::of_status(&endpoint, RequestKind::Read, &status)),
            Err(_) => Err(self.timed_out(endpoint, RequestKind::Read)),
        }
    }

    /// Opens a stream to which further watches may be added. It does not resume.
    pub(crate) async fn open_watch_stream(
        &self,
        first: WatchRequest,
    ) -> Result<WatchStream, ClientError> {
        let endpoints = self.endpoints();
        let endpoint = &endpoints[self.preferred() % endpoints.len()];
        let mut stream = self.watch_stream(endpoint, first).await?;
        stream.wait_until_created().await?;
        Ok(stream)
    }
}

impl WatchStream {
    /// The next response. Cancel-safe.
    pub async fn response(&mut self) -> Result<WatchResponse, ClientError> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(self.broken(&Status::unavailable("the member ended the stream"))),
            Err(status) => Err(self.broken(&status)),
        }
    }

    /// Adds a watch to the stream, and waits until the member has created it. Discards the events of the
    /// stream's other watches meanwhile.
    pub async fn add(&mut self, request: WatchRequest) -> Result<(), ClientError> {
        // If the stream has ended, the response below is the error.
        let _ = self.requests.send(request).await;
        self.wait_until_created().await
    }

    async fn wait_until_created(&mut self) -> Result<(), ClientError> {
        loop {
            let response = match timeout(self.timeout, self.response()).await {
                Ok(response) => response?,
                Err(_) => {
                    let (endpoint, timeout) = (self.endpoint.clone(), self.timeout);
                    let kind = RequestKind::Read;
                    return Err(ClientError::TimedOut { endpoint, timeout, kind });
                }
            };
            if response.canceled {
                let message = response.cancel_reason;
                return Err(ClientError::Refused { code: Code::FailedPrecondition, message });
            }
            if response.created {
                return Ok(());
            }
        }
    }

    /// Requests the progress of all watches of the stream.
    pub fn request_progress(&self) {
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        // A full queue contains such a request already.
        let _ = self.requests.try_send(WatchRequest { request_union: Some(progress) });
    }

    fn broken(&self, status: &Status) -> ClientError {
        ClientError::of_status(&self.endpoint, RequestKind::Read, status)
    }
}
