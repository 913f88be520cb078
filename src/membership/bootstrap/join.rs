//! The volume's side of joining: requests an id, stores it, and requests admission under it.
//!
//! The leader's side is the [`JoinService`](crate::membership::JoinService).

use std::collections::BTreeSet;

use super::{
    rpc::BootstrapRpc,
    state::{Bootstrap, BootstrapError},
};
use crate::{
    membership::{
        identity::{Identity, Stage},
        orchestrator::{Orchestrator, last_leader},
    },
    proto::peer::{self, join_reply},
    types::{ClusterId, MemberId, Ordinal},
};

/// Bounds the redirects to the leader in one round.
const REDIRECTS_MAX: u32 = 3;

impl Bootstrap {
    /// Requests an id from an existing cluster, and stores it in place of `expected`.
    pub async fn join_existing(
        &self,
        peers: &impl BootstrapRpc,
        expected: Option<&Identity>,
    ) -> Result<JoinOutcome, BootstrapError> {
        let joined = match self.send_join(peers, self.join_request(None)).await? {
            JoinAnswer::Joined(joined) => joined,
            JoinAnswer::NotNow | JoinAnswer::Dead => return Ok(JoinOutcome::NotNow),
            JoinAnswer::NoCluster => return Ok(JoinOutcome::NoCluster),
        };
        tracing::info!(member = %MemberId(joined.member_id), "joining as a new member");
        let (cluster, member) = (ClusterId(joined.cluster_id), MemberId(joined.member_id));
        let assigned = self.new_identity(cluster, member, Stage::Assigned, Vec::new());
        // If the volume has given a promise meanwhile, the next round acts on that.
        self.replace_identity(expected, assigned)?;
        Ok(JoinOutcome::Joined)
    }

    /// Requests an id from a cluster other than the promised one, and stores it in place of the promise.
    pub async fn join_other(
        &self,
        peers: &impl BootstrapRpc,
        promised: &Identity,
    ) -> Result<(), BootstrapError> {
        // A refusal concerns this request only: the promise stays.
        let Ok(JoinAnswer::Joined(joined)) = self.send_join(peers, self.join_request(None)).await
        else {
            return Ok(());
        };
        let (cluster, member) = (ClusterId(joined.cluster_id), MemberId(joined.member_id));
        if cluster == promised.cluster {
            // Its leader calls this volume. Each request is an entry in its log, so the next one waits.
            self.state().promised_since = None;
            return Ok(());
        }
        tracing::warn!(promised = %promised.cluster, %cluster, "joining another cluster than the promised one");
        let assigned = self.new_identity(cluster, member, Stage::Assigned, Vec::new());
        self.replace_identity(Some(promised), assigned)?;
        Ok(())
    }

    /// Requests admission under the assigned id.
    pub async fn request_admission(
        &self,
        peers: &impl BootstrapRpc,
        identity: &Identity,
        pods: Option<&dyn Orchestrator>,
    ) -> Result<(), BootstrapError> {
        let reason = match self.send_join(peers, self.join_request(Some(identity))).await {
            Ok(JoinAnswer::NoCluster) => {
                self.report_waiting(&format!("no member of cluster {} answers", identity.cluster));
                if let Some(pods) = pods {
                    self.find_last_leader(pods).await;
                }
                return Ok(());
            }
            Ok(JoinAnswer::Dead) => "this id can no longer be admitted".into(),
            // No log exists under this id, so nothing is lost with it.
            Err(BootstrapError::Refused(reason)) => reason,
            Ok(_) => return Ok(()),
            Err(e) => return Err(e),
        };
        tracing::warn!(member = %identity.member, reason, "admission refused, requesting a new id");
        Ok(self.discard_identity(identity)?)
    }

    /// A request for an id, or for admission under the assigned one.
    pub fn join_request(&self, assigned: Option<&Identity>) -> peer::JoinRequest {
        peer::JoinRequest {
            home: self.config.home.clone(),
            ordinal: self.config.ordinal.0,
            nonce: if assigned.is_some() { 0 } else { self.rng.next_id() },
            member_id: assigned.map_or(0, |identity| identity.member.0),
            cluster_id: assigned.map_or(0, |identity| identity.cluster.0),
            // The set of a volume that has an id may have been recreated since; its cluster id is the proof.
            set: if assigned.is_some() { String::new() } else { self.state().set.clone() },
            // The client fills it in.
            address: String::new(),
        }
    }

    /// Adds the last published leader to the ordinals to ask: no known ordinal may have a member any more.
    pub async fn find_last_leader(&self, pods: &dyn Orchestrator) {
        if let Some(leader) = last_leader(pods).await {
            self.state().last_leader = Some(leader);
        }
    }

    /// All ordinals to ask for a cluster.
    pub fn others(&self) -> Vec<Ordinal> {
        let (desired, former, last_leader) = {
            let state = self.state();
            (state.desired.clone(), state.former.clone(), state.last_leader)
        };
        let known = self.config.known.iter().copied();
        let all: BTreeSet<Ordinal> =
            known.chain(desired).chain(former).chain(last_leader).collect();
        all.into_iter().filter(|o| *o != self.config.ordinal).collect()
    }

    /// Asks all known ordinals, and the leader that they name: first the last leader, then the lowest
    /// ordinals, which are members already if many pods join at once.
    async fn send_join(
        &self,
        peers: &impl BootstrapRpc,
        request: peer::JoinRequest,
    ) -> Result<JoinAnswer, BootstrapError> {
        let mut targets = self.others();
        targets.reverse();
        targets.extend(self.state().last_leader.filter(|o| *o != self.config.ordinal));
        let (mut redirects, mut answer) = (0, JoinAnswer::NoCluster);
        while let Some(to) = targets.pop() {
            let Ok(reply) = peers.join(to, request.clone()).await else { continue };
            if reply.has_quorum {
                self.note_quorum_answer();
            }
            match reply.result {
                Some(join_reply::Result::Joined(joined)) => return Ok(JoinAnswer::Joined(joined)),
                Some(join_reply::Result::Refused(why)) => return Err(BootstrapError::Refused(why)),
                Some(join_reply::Result::Dead(_)) => return Ok(JoinAnswer::Dead),
                Some(join_reply::Result::LeaderAt(at)) if redirects < REDIRECTS_MAX => {
                    redirects += 1;
                    targets.push(Ordinal(at.ordinal));
                    continue;
                }
                Some(join_reply::Result::NoLeader(_) | join_reply::Result::LeaderAt(_)) => {}
                Some(join_reply::Result::OccupiedBy(by)) => {
                    let member = MemberId(by.member_id);
                    self.report_waiting(&format!("member {member} at this ordinal is still live"));
                }
                Some(join_reply::Result::Wait(reason)) => self.report_waiting(&reason),
                Some(join_reply::Result::NotFormed(reply)) if reply.starting => {
                    self.report_waiting(&format!("ordinal {to} is a member and is starting"));
                }
                Some(join_reply::Result::NotFormed(_)) | None => continue,
            }
            answer = JoinAnswer::NotNow;
        }
        Ok(answer)
    }
}

/// The combined answer to a join request.
enum JoinAnswer {
    Joined(peer::Joined),
    /// A cluster exists, but cannot decide now.
    NotNow,
    /// No member answered, or none knows a cluster.
    NoCluster,
    /// The id can never be admitted again.
    Dead,
}

/// The outcome for a pristine volume.
#[derive(Debug)]
pub enum JoinOutcome {
    Joined,
    /// A cluster exists, so this volume must not found one.
    NotNow,
    NoCluster,
}
