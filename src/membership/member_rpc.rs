//! The calls between members that are not Raft's. `peer` implements them.

use std::{future::Future, time::Duration};

use crate::{
    proto::peer,
    types::{MemberRef, Ordinal},
};

/// Calls to other members. A volume that is no member yet uses [`BootstrapRpc`](super::BootstrapRpc).
pub trait MemberRpc: Send + Sync {
    /// Asks whether the caller still is a member.
    fn member_status(
        &self,
        to: Ordinal,
        request: peer::StandingRequest,
    ) -> impl Future<Output = Result<peer::StandingReply, String>> + Send;

    /// Asks the leader for a permit to stop.
    fn may_stop(
        &self,
        to: MemberRef,
    ) -> impl Future<Output = Result<peer::MayStopReply, String>> + Send;

    /// Asks the leader to change the membership. Fails after `limit`.
    fn change_members(
        &self,
        to: MemberRef,
        change: peer::change_members_request::Change,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::ChangeMembersReply, String>> + Send;

    /// The ordinal with this `host:port`; otherwise a description of the known addresses.
    fn ordinal_at(&self, address: &str) -> Result<Ordinal, String>;
}
