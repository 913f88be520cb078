//! Formation on simulated disks, with and without Kubernetes; and what is left of the dead.

mod archive;
mod claim;
mod founders;
mod pods;
