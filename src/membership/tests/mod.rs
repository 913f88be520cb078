//! Tests of the bootstrap on simulated disks, with and without Kubernetes, and of the archive.

mod archive;
mod bootstrap_record;
mod founders;
mod pods;
mod running_record;
