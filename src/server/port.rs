//! A port that is open: accepts connections for as long as the process can, and cuts them when it
//! must.
//!
//! What always holds: a connection that does not greet is closed after [`GREETING`]; once the port is
//! cut, every connection ends, whatever its requests wait for; and accepting goes on after an error.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, future::BoxFuture, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::answers::Answers;
use crate::stop::Stopping;

/// Open connections, at most; more wait in the kernel until one closes.
const CONNECTIONS_MAX: usize = 8192;
/// Who connects has so long to say the first words. (An HTTP/2 client says them at once.)
const GREETING: Duration = Duration::from_secs(10);
/// The first words: at least the line of an HTTP/1 request, or most of an HTTP/2 preface.
const GREETING_BYTES: usize = 16;
/// After an accept that failed: the process is out of file descriptors, and may be for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
#[derive(Debug)]
pub(super) struct Port {
    listener: TcpListener,
    room: Arc<Semaphore>,
    cut: Stopping,
}

impl Port {
    /// `cut` ends all its connections.
    pub(super) fn new(listener: TcpListener, cut: Stopping) -> Port {
        Port { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)), cut }
    }

    async fn next(&mut self) -> (Connection, SocketAddr) {
        let Ok(place) = self.room.clone().acquire_owned().await else {
            unreachable!("nobody closes the semaphore")
        };
        loop {
            match self.listener.accept().await {
                Ok((tcp, from)) => return (Connection::new(tcp, from, &self.cut, place), from),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The connections, as tonic takes them.
    pub(super) fn connections(self) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold(self, async |mut port| {
            let (connection, _) = port.next().await;
            Some((Ok(connection), port))
        })
    }
}

/// As axum takes them.
impl axum::serve::Listener for Port {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An accepted connection.
pub(super) struct Connection {
    tcp: TcpStream,
    answers: Answers,
    cut: BoxFuture<'static, ()>,
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

/// What is still missing of the first words, and until when.
struct Greeting {
    missing: usize,
    limit: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(
        tcp: TcpStream,
        from: SocketAddr,
        cut: &Stopping,
        place: OwnedSemaphorePermit,
    ) -> Connection {
        // Small messages must not wait for company. Refused by a connection that is gone already.
        let _ = tcp.set_nodelay(true);
        let mut cut = cut.clone();
        Connection {
            tcp,
            answers: Answers::to(from),
            cut: Box::pin(async move { cut.wait().await }),
            greeting: Some(Greeting { missing: GREETING_BYTES, limit: Box::pin(sleep(GREETING)) }),
            _place: place,
        }
    }

    /// Ready once the connection is to end, with why. Reading and writing happen in one task, so it is
    /// enough that the last who asked is woken.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cut.as_mut().poll(cx).is_ready() {
            // It must not be asked again; nor need it: from now on the answer is the same.
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(greeting) = &mut self.greeting else { return Poll::Pending };
        ready!(greeting.limit.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn note_read(&mut self, bytes: usize) {
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(bytes);
            if greeting.missing == 0 {
                self.greeting = None;
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, buf));
        self.note_read(buf.filled().len() - before);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Every request of a connection carries its bound on unread answers.
impl Connected for Connection {
    type ConnectInfo = Answers;

    fn connect_info(&self) -> Answers {
        self.answers.clone()
    }
}
