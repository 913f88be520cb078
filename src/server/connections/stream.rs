//! The bytes of one accepted connection.
//!
//! Invariants: a connection whose client does not send its greeting is closed after [`GREETING_TIMEOUT`], and
//! one whose client reads nothing after [`WRITE_STALL_TIMEOUT`]. Reads keep to the read budget. An abort
//! ends the connection at once, regardless of its requests.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{frame_scanner::FrameScanner, permit::ConnectionPermit, read_budget::ReadBudget};
use crate::shutdown::ShutdownSignal;

/// Limit from the accept to the client's first bytes. (An HTTP/2 client sends them at once.)
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// The first bytes: at least the line of an HTTP/1 request, or most of an HTTP/2 preface.
const GREETING_BYTES: usize = 16;
/// A client that reads nothing for this time counts as gone. A ping could not detect that: it would wait
/// behind the unread bytes.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// An accepted connection.
pub struct ConnectionStream {
    tcp: TcpStream,
    budget: ReadBudget,
    /// Present if the connection speaks HTTP/2.
    frames: Option<FrameScanner>,
    abort: BoxFuture<'static, ()>,
    greeting: Option<Greeting>,
    /// Present while written bytes wait for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    _permit: ConnectionPermit,
}

/// The rest of the first bytes, and their time limit.
struct Greeting {
    missing: usize,
    limit: Pin<Box<Sleep>>,
}

impl ConnectionStream {
    pub fn new(
        tcp: TcpStream,
        abort: &ShutdownSignal,
        permit: ConnectionPermit,
    ) -> ConnectionStream {
        // Small messages must not be delayed. The call fails on a connection that is gone already.
        let _ = tcp.set_nodelay(true);
        let mut abort = abort.clone();
        ConnectionStream {
            tcp,
            budget: ReadBudget::unbounded(),
            frames: None,
            abort: Box::pin(async move { abort.wait().await }),
            greeting: Some(Greeting {
                missing: GREETING_BYTES,
                limit: Box::pin(sleep(GREETING_TIMEOUT)),
            }),
            stalled: None,
            _permit: permit,
        }
    }

    /// Marks the connection as HTTP/2. The caller refills the returned budget.
    pub fn start_http2(&mut self) -> ReadBudget {
        self.frames = Some(FrameScanner::new());
        self.budget.clone()
    }

    /// Ready with an error once the connection must end. Reads and writes happen in one task, so one waker
    /// is enough.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.abort.as_mut().poll(cx).is_ready() {
            // A completed future must not be polled again; its replacement is always ready.
            self.abort = Box::pin(std::future::ready(()));
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(greeting) = &mut self.greeting else { return Poll::Pending };
        ready!(greeting.limit.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn note_read(&mut self, bytes: usize) {
        self.budget.note_read(bytes);
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(bytes);
            if greeting.missing == 0 {
                self.greeting = None;
                self.budget.note_greeted();
            }
        }
    }

    /// Passes a write's result on; an error once the write has waited too long.
    fn poll_stalled(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_TIMEOUT)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ConnectionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        if self.budget.is_exhausted(cx.waker()) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, buf));
        let new = &buf.filled()[before..];
        self.note_read(new.len());
        if let Some(frames) = &mut self.frames
            && frames.scan(new).is_err()
        {
            tracing::debug!("connection closed: request trailers");
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.poll_stalled(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.poll_stalled(written, cx)
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
