//! Watches that survive the loss of connections and members.
//!
//! A [`Watcher`] returns each event of its keys once, in revision order, and never splits a revision. When
//! the connection breaks or the member has no leader, the watch resumes at the next endpoint from the
//! next revision. Only a refusal, or a compaction of that revision, ends it.

mod assembler;
mod request;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod update;
mod watcher;

pub use request::Watch;
pub use stream::WatchStream;
pub use update::{EventBatch, WatchError, WatchUpdate};
pub use watcher::Watcher;
