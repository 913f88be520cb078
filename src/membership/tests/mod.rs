//! Formation on simulated disks: with and without Kubernetes.

mod claim;
mod founders;
