//! etcd's Watch service: maps requests to [`Watches`](crate::watch::Watches), and their responses to
//! messages.
//!
//! A stream needs no task of its own: polling the body of the response also reads the requests. The
//! method is written by hand instead of generated, because only a body of our own can share the encoded
//! events between streams and count the bytes that HTTP/2 holds.
//!
//! ```text
//! service    opens a stream
//! requests   reads the requests, and decides when the stream ends
//! body       the body of the response: messages in frames
//! ```

mod body;
mod requests;
mod service;

pub use service::{ClientAddress, PATH, WatchService};
