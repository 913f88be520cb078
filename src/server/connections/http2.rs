//! HTTP/2 on one connection, and the bounds of its memory.
//!
//! HTTP/2 bounds counts, not bytes. So the memory that one client connection can hold follows from several
//! bounds together:
//!
//! | a client | bound | memory at most |
//! |---|---|---|
//! | keeps streams open | [`CLIENT_STREAMS_MAX`] | about 10 KiB each: 100 MiB |
//! | sends headers with each of them | `HEADER_BYTES_MAX` in `grpc::request_memory` | 16 MiB of headers, 48 MiB in memory |
//! | sends incomplete requests, or more than are handled at once | `PARTIAL_MESSAGE_BYTES_MAX` in `grpc::request_memory` | 64 MiB |
//! | sends small messages faster than the services read them | [`CLIENT_WINDOW_BYTES`] | 8 MiB |
//! | starts and cancels calls | [`READ_BUDGET_BYTES`] | 30 MiB, until the calls have started |
//! | does not read its responses | `UNREAD_RESPONSE_BYTES_MAX` in `grpc::response_memory` | 3 × 16 MiB, and one response for each thread |
//!
//! Not bounded yet: the memory of other responses before they are encoded, such as a put with `prev_kv` or
//! the keys of a lease. A client that reads nothing can hold one of them for each open stream.
//!
//! `tests/wire` reaches all bounds at once and holds the sum to 320 MiB. A client that shapes its frames so
//! that each one pins its read buffer can reach twice that.
//!
//! **Cancelled calls.** Cancelling is normal: a client that ends its watches resets thousands of streams.
//! A call that is started and reset costs a task and its headers until the task has run. The read budget
//! bounds the number of such calls. The bound on resets is above the number that fits into one budget, so
//! a client that merely cancels never reaches it.

use std::{error::Error, future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use http_body::Body;
use hyper::{rt::Executor, server::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;

use super::{
    read_budget::{READ_BUDGET_BYTES, ReadBudget},
    service::ConnectionService,
    stream::ConnectionStream,
};
use crate::shutdown::ShutdownSignal;

/// Open streams of one client's connection; the client holds further ones back, as the protocol says.
/// (etcd has no bound. Some clients open a stream for each watch.)
const CLIENT_STREAMS_MAX: u32 = 10_000;
/// The headers of one request, as HTTP/2 counts them: names, values, and 32 bytes for each field.
const CLIENT_HEADERS_MAX: u32 = 1 << 20;
/// Flow-control window of one client connection. h2 treats unread small DATA frames as an attack, and ends
/// the connection, once they fill more than half of the window at 256 bytes each. So the window must
/// hold one on every stream, as when a client opens all its watches at once.
const CLIENT_WINDOW_BYTES: u32 = 8 << 20;
const _: () = assert!(CLIENT_WINDOW_BYTES / 2 > CLIENT_STREAMS_MAX * 256);
/// Streams of one peer's connection, of which a handful are in use.
const PEER_STREAMS_MAX: u32 = 32;
const PEER_HEADERS_MAX: u32 = 16 << 10;
/// Calls reset before their task has run: more than fit into one read budget.
const RESET_CALLS_MAX: usize = READ_BUDGET_BYTES / CANCELLED_CALL_BYTES;
/// The shortest HEADERS frame of a call, and a RST_STREAM frame.
const CANCELLED_CALL_BYTES: usize = (9 + 4) + (9 + 4);
/// Streams reset because the client sent data after their end, over the life of a connection. The rest of
/// a refused request, which is in flight already, counts as that.
const ERROR_RESETS_MAX: usize = 1 << 16;
/// Encoded bytes of one stream that wait for the client's window or the socket, at most.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// An idle connection is pinged after this time, and closed if twice this time passes without an answer: a
/// dead one is gone within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    streams_max: u32,
    header_bytes_max: u32,
    stream_window_bytes: u32,
    connection_window_bytes: u32,
}

/// Limits of client connections.
pub const CLIENT_LIMITS: Http2Limits = Http2Limits {
    streams_max: CLIENT_STREAMS_MAX,
    header_bytes_max: CLIENT_HEADERS_MAX,
    stream_window_bytes: 1 << 20,
    connection_window_bytes: CLIENT_WINDOW_BYTES,
};

/// Limits of connections of other members, which send much over few streams.
pub const PEER_LIMITS: Http2Limits = Http2Limits {
    streams_max: PEER_STREAMS_MAX,
    header_bytes_max: PEER_HEADERS_MAX,
    stream_window_bytes: 4 << 20,
    connection_window_bytes: 16 << 20,
};

impl Http2Limits {
    /// Serves one connection until the client ends it, an error does, or after `shutdown` its last
    /// request has been answered.
    pub async fn serve<S, B>(
        self,
        mut stream: ConnectionStream,
        service: S,
        tasks: RequestTasks,
        mut shutdown: ShutdownSignal,
    ) where
        S: ConnectionService<B>,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let budget = stream.start_http2();
        let executor = RequestExecutor { tasks, budget: budget.clone() };
        let served = self.builder(executor).serve_connection(TokioIo::new(stream), service);
        let (mut served, mut draining) = (pin!(served), false);
        let ended = loop {
            let serve_within_budget = poll_fn(|cx| {
                budget.refill();
                served.as_mut().poll(cx)
            });
            tokio::select! {
                ended = serve_within_budget => break ended,
                () = shutdown.wait(), if !draining => {
                    // A client that has sent nothing has no request in flight.
                    if !budget.has_greeted() {
                        return;
                    }
                    served.as_mut().graceful_shutdown();
                    draining = true;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn Error, "connection failed");
        }
    }

    fn builder(self, executor: RequestExecutor) -> http2::Builder<RequestExecutor> {
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(self.header_bytes_max)
            .max_pending_accept_reset_streams(RESET_CALLS_MAX)
            .max_local_error_reset_streams(ERROR_RESETS_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_INTERVAL * 2)
            // gRPC does not use the header.
            .auto_date_header(false);
        builder
    }
}

/// The tasks that serve requests: one for each stream. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct RequestTasks(TaskTracker);

/// Spawns the request tasks of one connection.
#[derive(Debug, Clone)]
struct RequestExecutor {
    tasks: RequestTasks,
    budget: ReadBudget,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for RequestExecutor {
    fn execute(&self, call: F) {
        let mut starting = Some(self.budget.start_call());
        self.tasks.0.spawn(async move {
            let mut call = pin!(call);
            poll_fn(|cx| {
                let polled = call.as_mut().poll(cx);
                starting.take();
                polled
            })
            .await
        });
    }
}

impl RequestTasks {
    /// Resolves when all have ended. A call ends with its connection at the latest.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
