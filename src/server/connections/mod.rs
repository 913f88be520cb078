//! The connection server: accepts connections and serves HTTP/2 on each of them.
//!
//! ```text
//! listener        accepts: bounds open connections; continues after an error
//! permit          the place of an open connection, and the counters of its port
//! stream          the bytes of one connection: timeouts, and the abort
//! read_budget     bounds the bytes that are read before their calls start
//! frame_scanner   rejects frames that the HTTP/2 library would accept
//! http2           the protocol: bounds open streams, and the memory of one connection
//! ```
//!
//! A connection passes accept → protocol → service; TLS will come between the first two. Each connection
//! has its own service, which may hold state that the requests of the connection share.
//!
//! Invariants: [`serve`] owns every connection and every task that serves a request, and returns only when
//! all of them have ended. After the shutdown signal it accepts no further connection; each open one
//! announces with GOAWAY that it takes no further requests, and ends with its last one.

mod frame_scanner;
mod http2;
mod listener;
mod permit;
mod read_budget;
mod service;
mod stream;

use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use http_body::Body;
use tokio::task::JoinSet;

use self::{http2::RequestTasks, service::ConnectionService};
pub use self::{
    http2::{CLIENT_LIMITS, Http2Limits, PEER_LIMITS},
    listener::ConnectionListener,
    permit::ConnectionCounters,
};
use crate::shutdown::ShutdownSignal;

/// Serves until `shutdown`, and then until the last connection has ended.
pub async fn serve<S, B>(
    mut listener: ConnectionListener,
    limits: Http2Limits,
    service: impl Fn(SocketAddr) -> S,
    mut shutdown: ShutdownSignal,
) where
    S: ConnectionService<B>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let protocol = shutdown.clone();
    let (tasks, mut connections) = (RequestTasks::default(), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            // Joins a connection that has ended. A panic would have ended the process.
            Some(_) = connections.join_next() => {}
            (stream, from) = listener.accept() => {
                let service = service(from);
                connections.spawn(limits.serve(stream, service, tasks.clone(), protocol.clone()));
            }
        }
    }
    // Closed first, so that a client that connects now is refused at once and tries another member.
    drop(listener);
    while connections.join_next().await.is_some() {}
    tasks.ended().await;
}
