//! One member as its services see it: propose, read linearizably, forward to the leader.

mod port;

pub use port::{Applied, Header, Member, NodeError, NodePort, RangeAt, Status};
