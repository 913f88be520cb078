//! Bad input, at the level of a real running member: a real `kvd` is started, and people, clients,
//! peers and disks do to it what they should not.
//!
//! What always holds: the answer is an error that says what is wrong, nothing panics, nothing that
//! was acknowledged is lost, memory stays bounded, and everybody else is served meanwhile.

#![expect(clippy::disallowed_methods, reason = "prepares data directories as an operator would")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod command_line;
mod data_dir;
mod full_disk;
mod garbage;
mod http2;
mod kvd;
mod peers;
mod process;
mod quota;
mod requests;
mod slow_reader;
