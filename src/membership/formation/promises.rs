//! Formation without Kubernetes: every founder promises itself before one of them begins.
//!
//! The lowest ordinal mints the cluster and asks every founder to promise itself to it. It initializes
//! only after *all* have: a majority would do for Raft, but not for a founder that lost its disk in
//! between and begins anew.

use std::collections::BTreeMap;

use super::{Formation, FormationError, Formed, Peers, join::Found};
use crate::{
    membership::{
        datadir::DataDirError,
        identity::{Identity, Stage, place_from_wire, place_to_wire},
    },
    proto::peer::{self, promise_reply},
    types::{ClusterId, MemberId, Ordinal, PeerPlace},
};

impl Formation {
    /// Looks for a cluster to join; where there is none, the lowest ordinal begins one.
    pub(super) async fn pristine(&self, peers: &impl Peers) -> Result<(), FormationError> {
        match self.join_existing(peers, None).await? {
            Found::NoCluster => {}
            Found::Joined | Found::NoLeader => return Ok(()),
        }
        if self.config.ordinal != Ordinal(0) || self.identity().is_some() {
            return Ok(());
        }
        let place = |i: u32| PeerPlace { member: MemberId(u64::from(i) + 1), ordinal: Ordinal(i) };
        let cluster = ClusterId(self.rng.next_id());
        tracing::info!(%cluster, founders = self.config.founders, "founding a cluster");
        let founders = (0..self.config.founders).map(place).collect();
        let founder = self.identity_of(cluster, place(0).member, Stage::Promised, founders);
        // If it was promised away meanwhile, the next round sees that.
        self.adopt(founder, None)?;
        Ok(())
    }

    /// Founder: asks all; formed once every one of them has promised (or is a member already).
    pub(super) async fn collect_promises(
        &self,
        peers: &impl Peers,
        identity: Identity,
    ) -> Result<Option<Formed>, FormationError> {
        let others: Vec<PeerPlace> =
            identity.founders.iter().copied().filter(|p| p.ordinal != identity.ordinal).collect();
        let mut answers = self.ask_promises(peers, &identity, &others, false).await;
        let answered = answers.values().filter(|a| **a != Answer::Silent).count();
        let engaged = answers.values().any(|a| *a == Answer::Engaged);
        // Everybody answers, nobody has a log: the promise they gave was to a founder that is lost.
        if engaged && answered == others.len() && !answers.values().any(|a| *a == Answer::Other) {
            answers = self.ask_promises(peers, &identity, &others, true).await;
        }
        if answers.values().any(|a| *a == Answer::Other) {
            // There is a cluster without us: this volume was wiped. Ask to join it.
            tracing::warn!("the other members have a cluster already: asking to join it");
            return self.join_existing(peers, Some(&identity)).await.map(|_| None);
        }
        let all = answers.values().all(|a| *a == Answer::Ours);
        Ok(if all { self.settle(identity, true) } else { None })
    }

    async fn ask_promises(
        &self,
        peers: &impl Peers,
        identity: &Identity,
        others: &[PeerPlace],
        replace: bool,
    ) -> BTreeMap<Ordinal, Answer> {
        let request = peer::PromiseRequest {
            cluster_id: identity.cluster.0,
            home: identity.home.clone(),
            founders: identity.founders.iter().copied().map(place_to_wire).collect(),
            replace,
        };
        let ask = |place: PeerPlace| {
            let request = request.clone();
            async move {
                let reply = peers.promise(place.ordinal, request).await;
                (place.ordinal, answer(identity, place, reply))
            }
        };
        futures_util::future::join_all(others.iter().copied().map(ask)).await.into_iter().collect()
    }

    /// Answers a founder. Blocks on the disk: a promise is fsynced before it is given.
    pub fn handle_promise(
        &self,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, DataDirError> {
        let reply = |result| Ok(peer::PromiseReply { result: Some(result) });
        let refuse = |why: String| reply(promise_reply::Result::Refused(why));
        if request.home != self.config.home {
            return refuse(format!("this is {:?}, not {:?}", self.config.home, request.home));
        }
        let founders: Vec<PeerPlace> = request.founders.into_iter().map(place_from_wire).collect();
        let Some(me) = founders.iter().find(|p| p.ordinal == self.config.ordinal) else {
            return refuse(format!("ordinal {} is no founder", self.config.ordinal));
        };
        let cluster = ClusterId(request.cluster_id);
        let _deciding = self.deciding();
        let taken = self.state().settled || self.dir.has_log()?;
        let mut replaced_boot = 0;
        if let Some(own) = self.identity() {
            if taken || own.stage != Stage::Promised {
                return reply(promise_reply::Result::Taken(peer::Taken {
                    cluster_id: own.cluster.0,
                    member_id: own.member.0,
                }));
            }
            if own.cluster == cluster && own.member == me.member {
                return reply(promise_reply::Result::Promised(peer::Promised {}));
            }
            if !request.replace {
                let cluster_id = own.cluster.0;
                return reply(promise_reply::Result::Engaged(peer::Engaged { cluster_id }));
            }
            replaced_boot = own.boot;
        }
        self.store(Identity {
            cluster,
            member: me.member,
            ordinal: me.ordinal,
            home: self.config.home.clone(),
            boot: replaced_boot + 1,
            stage: Stage::Promised,
            founders,
        })?;
        reply(promise_reply::Result::Promised(peer::Promised {}))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Promised to us, or a member of our cluster.
    Ours,
    /// Promised to another cluster, and has no log.
    Engaged,
    /// A member of another cluster.
    Other,
    Silent,
}

fn answer(
    identity: &Identity,
    place: PeerPlace,
    reply: Result<peer::PromiseReply, String>,
) -> Answer {
    match reply.ok().and_then(|r| r.result) {
        Some(promise_reply::Result::Promised(_)) => Answer::Ours,
        Some(promise_reply::Result::Taken(taken))
            if taken.cluster_id == identity.cluster.0 && taken.member_id == place.member.0 =>
        {
            Answer::Ours
        }
        Some(promise_reply::Result::Taken(_)) => Answer::Other,
        Some(promise_reply::Result::Engaged(_)) => Answer::Engaged,
        Some(promise_reply::Result::Refused(why)) => {
            tracing::warn!(ordinal = %place.ordinal, why, "a founder refuses");
            Answer::Silent
        }
        None => Answer::Silent,
    }
}
