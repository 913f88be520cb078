//! Founding without Kubernetes: every founder promises itself before one of them initializes Raft.
//!
//! The lowest ordinal creates the cluster id and asks every founder for a promise. It initializes Raft
//! only after *all* have promised. A majority would suffice for Raft, but a founder that lost its disk
//! in between could found a second cluster with the others.
//!
//! A founder breaks its promise only for another cluster that has a leader, and before it has a log.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    join::JoinOutcome,
    rpc::BootstrapRpc,
    state::{Bootstrap, BootstrapError, Bootstrapped},
};
use crate::{
    membership::{
        datadir::DataDirError,
        identity::{Identity, Stage, member_ref_from_wire, member_ref_to_wire},
    },
    proto::peer::{self, promise_reply},
    types::{ClusterId, MemberId, MemberRef, Ordinal},
};

impl Bootstrap {
    /// One round of a pristine volume: joins the existing cluster; otherwise ordinal 0 starts founding.
    pub async fn pristine(&self, peers: &impl BootstrapRpc) -> Result<(), BootstrapError> {
        match self.join_existing(peers, None).await? {
            JoinOutcome::NoCluster => {}
            JoinOutcome::Joined | JoinOutcome::NotNow => return Ok(()),
        }
        if self.config.ordinal != Ordinal(0) || self.identity().is_some() {
            return Ok(());
        }
        let founder =
            |i: u32| MemberRef { member: MemberId(u64::from(i) + 1), ordinal: Ordinal(i) };
        let cluster = ClusterId(self.rng.next_id());
        tracing::info!(%cluster, founders = self.config.founders, "founding a cluster");
        let founders = (0..self.config.founders).map(founder).collect();
        let founder = self.new_identity(cluster, founder(0).member, Stage::Promised, founders);
        // If the volume has given a promise meanwhile, the next round acts on that.
        self.replace_identity(None, founder)?;
        Ok(())
    }

    /// One round of the founder: asks all others, until each has promised or is a member already.
    pub async fn collect_promises(
        &self,
        peers: &impl BootstrapRpc,
        identity: Identity,
    ) -> Result<Option<Bootstrapped>, BootstrapError> {
        let others: Vec<MemberRef> =
            identity.founders.iter().copied().filter(|p| p.ordinal != identity.ordinal).collect();
        let mut answers = self.ask_promises(peers, &identity, &others, false).await;
        let answered = answers.values().filter(|a| **a != Answer::Silent).count();
        let engaged = answers.values().any(|a| *a == Answer::Engaged);
        // All answer, and none has a log: the founder that they are engaged to is lost.
        if engaged && answered == others.len() && !answers.values().any(|a| *a == Answer::Member) {
            answers = self.ask_promises(peers, &identity, &others, true).await;
        }
        if answers.values().any(|a| *a == Answer::Member) {
            // A cluster exists, so this volume was wiped.
            tracing::warn!("the other founders have formed a cluster, joining it");
            return self.join_existing(peers, Some(&identity)).await.map(|_| None);
        }
        let all = answers.values().all(|a| *a == Answer::Ours);
        Ok(if all { self.settle(identity, true) } else { None })
    }

    /// One round of a founder that has promised itself, and that no member of the promised cluster calls.
    /// After a while it joins another cluster: its founder may have joined that one, and no member would ever
    /// call this volume again.
    ///
    /// This breaks the promise, and is safe: no log exists under it, so this volume has cast no vote. And
    /// the other cluster has a leader, so a founder that is its member never promises itself.
    pub async fn reconsider_promise(
        &self,
        peers: &impl BootstrapRpc,
        identity: &Identity,
    ) -> Result<(), BootstrapError> {
        if self.promised_since(identity.cluster).elapsed() < self.config.takeover_timeout {
            return Ok(());
        }
        self.join_other(peers, identity).await?;
        Ok(())
    }

    /// The time since which this process knows of its promise to the cluster.
    fn promised_since(&self, cluster: ClusterId) -> Instant {
        let mut state = self.state();
        match state.promised_since {
            Some((to, since)) if to == cluster => since,
            _ => {
                let since = Instant::now();
                state.promised_since = Some((cluster, since));
                since
            }
        }
    }

    async fn ask_promises(
        &self,
        peers: &impl BootstrapRpc,
        identity: &Identity,
        others: &[MemberRef],
        replace: bool,
    ) -> BTreeMap<Ordinal, Answer> {
        let request = peer::PromiseRequest {
            cluster_id: identity.cluster.0,
            home: identity.home.clone(),
            founders: identity.founders.iter().copied().map(member_ref_to_wire).collect(),
            replace,
        };
        let ask = |member_ref: MemberRef| {
            let request = request.clone();
            async move {
                let reply = peers.promise(member_ref.ordinal, request).await;
                (member_ref.ordinal, answer(identity, member_ref, reply))
            }
        };
        futures_util::future::join_all(others.iter().copied().map(ask)).await.into_iter().collect()
    }

    /// Answers a founder. Blocks on the disk: a promise is durable before it is given.
    pub fn handle_promise(
        &self,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, DataDirError> {
        let reply = |result| Ok(peer::PromiseReply { result: Some(result) });
        let refuse = |why: String| reply(promise_reply::Result::Refused(why));
        if request.home != self.config.home {
            return refuse(format!("this is {:?}, not {:?}", self.config.home, request.home));
        }
        let founders: Vec<MemberRef> =
            request.founders.into_iter().map(member_ref_from_wire).collect();
        let Some(me) = founders.iter().find(|p| p.ordinal == self.config.ordinal) else {
            return refuse(format!("ordinal {} is not a founder", self.config.ordinal));
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
            recovered_from: None,
        })?;
        reply(promise_reply::Result::Promised(peer::Promised {}))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Promised to this cluster, or a member of it.
    Ours,
    /// Promised to another cluster, without a log.
    Engaged,
    /// A member of another cluster.
    Member,
    Silent,
}

fn answer(
    identity: &Identity,
    member_ref: MemberRef,
    reply: Result<peer::PromiseReply, String>,
) -> Answer {
    match reply.ok().and_then(|r| r.result) {
        Some(promise_reply::Result::Promised(_)) => Answer::Ours,
        Some(promise_reply::Result::Taken(taken))
            if taken.cluster_id == identity.cluster.0 && taken.member_id == member_ref.member.0 =>
        {
            Answer::Ours
        }
        Some(promise_reply::Result::Taken(_)) => Answer::Member,
        Some(promise_reply::Result::Engaged(_)) => Answer::Engaged,
        Some(promise_reply::Result::Refused(why)) => {
            tracing::warn!(ordinal = %member_ref.ordinal, why, "founder refused the promise");
            Answer::Silent
        }
        None => Answer::Silent,
    }
}
