//! `kvd` answers every request as a real etcd does: the same fields, the same gRPC codes, the same
//! texts, in the same order.
//!
//! - [`scripts`]: written scripts, one behaviour a file. The expected answers are recorded from etcd, so
//!   they hold without one; if there is an etcd, it runs the scripts again.
//! - [`random`]: sequences of random requests, sent to an etcd and a `kvd` with the same history.
//!
//! A script (see [`session`] for its commands) runs on empty servers, so revisions are compared as
//! they are. [`transcript`] omits the values that a server chooses: ids of the cluster and its
//! members, terms, the value of a hash, and the fraction of a second that a lease has left.

mod etcd;
mod grammar;
mod random;
mod requests;
mod scripts;
mod servers;
mod session;
mod transcript;
mod watching;
