//! Whatever a client asks, `kvd` answers what a real etcd answers: the same fields, the same gRPC
//! codes, the same texts, in the same order.
//!
//! - [`scripts`]: written scripts, one behaviour a file. Their expected answers are etcd's, recorded,
//!   so that they mean something where there is no etcd; where there is one, it is asked again.
//! - [`random`]: sequences of random requests, to an etcd and a `kvd` that both saw the same before.
//!
//! A script (see [`session`] for its commands) runs on servers that hold nothing, so revisions are
//! compared as they are. [`said`] has what is not compared: ids of the cluster and its members, terms,
//! the value of a hash, and how much of a second a lease has left.

#![expect(clippy::disallowed_methods, reason = "starts servers, reads scripts")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod etcd;
mod grammar;
#[path = "../input/process.rs"]
mod process;
mod random;
mod requests;
mod said;
mod scripts;
mod servers;
mod session;
mod watching;
