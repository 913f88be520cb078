//! How a member asks others about the membership beside Raft. `peer` implements it.

use std::{future::Future, time::Duration};

use crate::{
    proto::peer,
    types::{Ordinal, PeerPlace},
};

/// The other members. Who is none yet asks [`Peers`](super::Peers).
pub trait Fellows: Send + Sync {
    fn standing(
        &self,
        to: Ordinal,
        request: peer::StandingRequest,
    ) -> impl Future<Output = Result<peer::StandingReply, String>> + Send;

    fn may_stop(
        &self,
        to: PeerPlace,
    ) -> impl Future<Output = Result<peer::MayStopReply, String>> + Send;

    /// Waits `limit` for the answer.
    fn change_members(
        &self,
        to: PeerPlace,
        change: peer::change_members_request::Change,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::ChangeMembersReply, String>> + Send;

    /// Which ordinal is dialled at this `host:port`; else what is known, in words.
    fn ordinal_at(&self, address: &str) -> Result<Ordinal, String>;
}
