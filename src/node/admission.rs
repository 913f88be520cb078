//! Admission of writes: the bounds that a command must meet before it is proposed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    port::NodeError,
    quota::{self, Quota},
};
use crate::{
    raft::Raft,
    types::{Command, CommandError},
};

/// Commands in flight from this member, at most (etcd: 5000 entries between commit and apply).
const INFLIGHT_COMMANDS_MAX: usize = 5000;
/// Their bytes, at most.
const INFLIGHT_BYTES_MAX: usize = 64 << 20;
/// Bytes of one permit of the byte semaphore.
const PERMIT_BYTES: usize = 1 << 10;

/// Decides whether a command may be proposed, and bounds the commands in flight.
#[derive(Debug)]
pub struct Admission {
    quota: Quota,
    max_request_bytes: usize,
    commands: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// One command in flight, and its bytes, until it is answered.
#[derive(Debug)]
pub struct InflightPermits {
    _command: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(quota_bytes: u64, max_request_bytes: usize) -> Admission {
        Admission {
            quota: Quota::new(quota_bytes),
            max_request_bytes,
            commands: Arc::new(Semaphore::new(INFLIGHT_COMMANDS_MAX)),
            bytes: Arc::new(Semaphore::new(INFLIGHT_BYTES_MAX / PERMIT_BYTES)),
        }
    }

    /// Refuses a command that exceeds the quota, or for whose log entry the volume has no room.
    pub fn check_space(&self, command: &Command, raft: &Raft) -> Result<(), NodeError> {
        let cost = quota::cost(command);
        let fits = self.quota.admits(cost, raft.view().size().live_bytes);
        if fits && (cost == 0 || !raft.is_log_space_low()) {
            Ok(())
        } else {
            Err(NodeError::Command(CommandError::NoSpace))
        }
    }

    /// Counts an encoded command as in flight, unless it is too large or too much is in flight.
    pub fn admit(&self, command_bytes: usize) -> Result<InflightPermits, NodeError> {
        if command_bytes > self.max_request_bytes {
            return Err(NodeError::RequestTooLarge);
        }
        let permits = u32::try_from(command_bytes / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let Ok(command) = self.commands.clone().try_acquire_owned() else {
            return Err(NodeError::TooManyRequests);
        };
        let Ok(bytes) = self.bytes.clone().try_acquire_many_owned(permits) else {
            return Err(NodeError::TooManyRequests);
        };
        Ok(InflightPermits { _command: command, _bytes: bytes })
    }

    /// Whether the NOSPACE alarm is raised: writes are refused because the quota or the volume is full.
    pub fn is_out_of_space(&self, raft: &Raft) -> bool {
        self.quota.is_exceeded(raft.view().size().live_bytes) || raft.is_log_space_low()
    }

    pub fn quota_bytes(&self) -> u64 {
        self.quota.bytes()
    }

    /// Commands in flight.
    pub fn inflight_commands(&self) -> usize {
        INFLIGHT_COMMANDS_MAX - self.commands.available_permits()
    }
}
