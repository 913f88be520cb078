//! Bad input to a real member: wrong command lines, client requests, peers and disks.
//!
//! Invariants: the answer is an error that names the problem, nothing panics, no acknowledged write
//! is lost, memory stays bounded, and other clients are served meanwhile.

mod command_line;
mod data_dir;
mod full_disk;
mod garbage;
mod peers;
mod quota;
mod requests;
mod slow_reader;
