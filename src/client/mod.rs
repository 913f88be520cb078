//! A client of the etcd v3 API, for `kvd` and for etcd.
//!
//! Each endpoint has its own channel, which connects on first use. A request goes to the endpoint that
//! answered last, at first to the first one. The client tries another endpoint only if the request
//! certainly was not sent, or is a read. A write with an unknown outcome fails with
//! [`ClientError::Lost`] or [`ClientError::TimedOut`]; the client never repeats it.
//!
//! A service that is registered for as long as its lease, and a watch on all services:
//!
//! ```no_run
//! use std::time::Duration;
//! use ordinal::client::{Client, Compare, Keys, Put, Txn, Watch};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoints = vec!["127.0.0.1:2379".parse()?, "127.0.0.1:2381".parse()?];
//! let client = Client::new(endpoints, Default::default());
//!
//! let lease = client.lease_grant(Duration::from_secs(10)).await?.id;
//! let mut keeper = client.lease_keep_alive(lease).await?;
//! let name = Txn::new()
//!     .when(Compare::version("services/web/1").equals(0))
//!     .then(Put::new("services/web/1", "10.0.0.1:80").lease(lease));
//! assert!(client.txn(name).await?.succeeded, "the name is taken");
//!
//! let services = client.range(Keys::prefix("services/")).await?;
//! let next = services.header.unwrap_or_default().revision + 1;
//! let mut changes = client.watch(Watch::new(Keys::prefix("services/")).from_revision(next)).await?;
//! tokio::select! {
//!     batch = changes.next() => println!("{:?}", batch?.events),
//!     end = keeper.ended() => return Err(end.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod channel;
mod core;
mod endpoint;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod keys;
mod lease;
mod members;
mod requests;
#[cfg(test)]
pub(crate) mod scripted;
mod session;
#[cfg(test)]
mod tests;
mod watch;

pub use self::core::{Client, Timeouts};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, RequestKind, Unreachable};
pub use keys::Keys;
pub(crate) use lease::RenewalStream;
pub use lease::{LeaseEnd, LeaseKeeper};
pub use requests::{Compare, CompareBuilder, Delete, Get, Operation, Put, Txn};
pub use session::Session;
pub(crate) use watch::WatchStream;
pub use watch::{EventBatch, Watch, WatchError, WatchUpdate, Watcher};
