//! One call over a connection of its own, and the frames of its answer as one line of text.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Request, Response};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to a member. Its task ends with it.
pub struct Connection {
    send: SendRequest<Bytes>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A gRPC message in a body, not compressed.
pub fn message(payload: &[u8]) -> Bytes {
    flagged(0, payload)
}

/// A message with this flag before its length.
pub fn flagged(flag: u8, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(5 + payload.len());
    body.extend_from_slice(&[flag]);
    body.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    body.extend_from_slice(payload);
    body.freeze()
}

/// A POST of a gRPC client.
pub fn request(path: &str) -> Request<()> {
    let request = Request::post(format!("http://member{path}")).header("te", "trailers");
    request.header("content-type", "application/grpc").body(()).unwrap()
}

pub fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

impl Connection {
    pub async fn to(member: SocketAddr) -> Connection {
        let tcp = TcpStream::connect(member).await.unwrap();
        let mut builder = client::Builder::new();
        // The connection's window stays as small as HTTP/2 makes it.
        builder.initial_window_size(1 << 20).data_frame_budget(64 << 20);
        let (send, connection) = builder.handshake(tcp).await.unwrap();
        let task = tokio::spawn(async move {
            // Calls report a broken connection.
            let _ = connection.await;
        });
        Connection { send, task }
    }

    /// Opens a call, once the member allows another stream.
    pub async fn open(&self, request: Request<()>) -> (Answer, SendStream<Bytes>) {
        let mut send = timeout(ANSWER_TIMEOUT, self.send.clone().ready()).await.unwrap().unwrap();
        let (answer, body) = send.send_request(request, false).unwrap();
        (Answer(answer), body)
    }

    /// A whole call: one request with this body.
    pub async fn call(&self, request: Request<()>, body: Bytes) -> String {
        let (answer, mut send) = self.open(request).await;
        // The member may have answered and reset the stream already.
        let _ = send.send_data(body, true);
        answer.frames().await
    }
}

pub struct Answer(client::ResponseFuture);

impl Answer {
    pub async fn head(self) -> Response<RecvStream> {
        timeout(ANSWER_TIMEOUT, self.0).await.expect("no answer").unwrap()
    }

    /// All frames, up to the end of the stream: `HEADERS DATA TRAILERS(0)` or `REFUSAL(3 text)`.
    pub async fn frames(self) -> String {
        match timeout(ANSWER_TIMEOUT, self.0).await.expect("no answer") {
            Ok(response) => frames(response).await,
            Err(error) => error.reason().map_or(error.to_string(), |reason| format!("{reason:?}")),
        }
    }
}

/// The head of an answer, and its body.
pub async fn frames(response: Response<RecvStream>) -> String {
    let (head, mut body) = response.into_parts();
    let http = head.status.as_u16();
    if body.is_end_stream() {
        let http = if http == 200 { String::new() } else { format!("{http} ") };
        return format!("REFUSAL({http}{})", status(&head.headers));
    }
    assert!(!head.headers.contains_key("grpc-status"), "a status, and the stream goes on");
    assert_eq!(head.headers["content-type"], "application/grpc");
    let mut frames = "HEADERS".to_owned();
    let mut data_bytes = None;
    while let Some(data) = timeout(ANSWER_TIMEOUT, body.data()).await.expect("no frame") {
        let Ok(data) = data else { return frames + " RESET" };
        body.flow_control().release_capacity(data.len()).unwrap();
        *data_bytes.get_or_insert(0) += data.len();
        if data.is_empty() {
            frames.push_str(" EMPTY-DATA");
        }
    }
    if data_bytes.is_some() {
        frames.push_str(" DATA");
    }
    match timeout(ANSWER_TIMEOUT, body.trailers()).await.expect("no trailers") {
        Ok(Some(trailers)) => write!(frames, " TRAILERS({})", status(&trailers)).unwrap(),
        Ok(None) => frames.push_str(" END"),
        Err(_) => frames.push_str(" RESET"),
    }
    frames
}

/// The code, followed by the message, if any.
fn status(headers: &HeaderMap) -> String {
    let field = |name| headers.get(name).map_or("", |value| value.to_str().unwrap());
    format!("{} {}", field("grpc-status"), field("grpc-message")).trim_end().to_owned()
}
