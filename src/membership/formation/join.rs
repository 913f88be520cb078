//! The volume's side of joining: asks for an id, keeps it, and asks to be let in under it.
//!
//! The leader's side is the [`Door`](crate::membership::Door).

use std::collections::BTreeSet;

use super::{Formation, FormationError, Peers};
use crate::{
    membership::{
        Orchestrator,
        identity::{Identity, Stage},
        orchestrator::led_last,
    },
    proto::peer::{self, join_reply},
    types::{ClusterId, MemberId, Ordinal},
};

impl Formation {
    /// Asks for an id in a cluster that exists, and keeps it.
    pub(super) async fn join_existing(
        &self,
        peers: &impl Peers,
        instead_of: Option<&Identity>,
    ) -> Result<Found, FormationError> {
        let joined = match self.ask_join(peers, self.join_request(None)).await? {
            Asked::Joined(joined) => joined,
            Asked::NoLeader | Asked::Dead => return Ok(Found::NoLeader),
            Asked::Nobody => return Ok(Found::NoCluster),
        };
        tracing::info!(member = %MemberId(joined.member_id), "joining as a new member");
        let (cluster, member) = (ClusterId(joined.cluster_id), MemberId(joined.member_id));
        let assigned = self.identity_of(cluster, member, Stage::Assigned, Vec::new());
        // If it was promised away meanwhile, the next round sees that.
        self.adopt(assigned, instead_of)?;
        Ok(Found::Joined)
    }

    pub(super) async fn ask_to_be_added(
        &self,
        peers: &impl Peers,
        identity: &Identity,
        pods: Option<&dyn Orchestrator>,
    ) -> Result<(), FormationError> {
        let why = match self.ask_join(peers, self.join_request(Some(identity))).await {
            Ok(Asked::Nobody) => {
                self.waits(&format!("no member of cluster {} answers", identity.cluster));
                if let Some(pods) = pods {
                    self.look_for_the_leader(pods).await;
                }
                return Ok(());
            }
            Ok(Asked::Dead) => "this id is dead".into(),
            // Nothing was begun under it: it is no loss.
            Err(FormationError::Refused(why)) => why,
            Ok(_) => return Ok(()),
            Err(e) => return Err(e),
        };
        tracing::warn!(member = %identity.member, "{why}: asking for another id");
        Ok(self.forget(identity)?)
    }

    /// Asks for an id, or to be let in under the one that is kept.
    pub(super) fn join_request(&self, assigned: Option<&Identity>) -> peer::JoinRequest {
        peer::JoinRequest {
            home: self.config.home.clone(),
            ordinal: self.config.ordinal.0,
            nonce: if assigned.is_some() { 0 } else { self.rng.next_id() },
            member_id: assigned.map_or(0, |identity| identity.member.0),
            cluster_id: assigned.map_or(0, |identity| identity.cluster.0),
        }
    }

    /// The members may live where no pod is wanted any more: whoever led last is asked, too.
    pub(super) async fn look_for_the_leader(&self, pods: &dyn Orchestrator) {
        if let Some(leader) = led_last(pods).await {
            self.state().led_last = Some(leader);
        }
    }

    /// Everybody who may be asked.
    pub(super) fn others(&self) -> Vec<Ordinal> {
        let (wanted, led_last) = {
            let state = self.state();
            (state.wanted.clone(), state.led_last)
        };
        let known = self.config.known.iter().copied();
        let all: BTreeSet<Ordinal> = known.chain(wanted).chain(led_last).collect();
        all.into_iter().filter(|o| *o != self.config.ordinal).collect()
    }

    /// Asks everybody known, and the leader they name: first who led last, then the lowest ordinals, which
    /// are members already where many join at once.
    async fn ask_join(
        &self,
        peers: &impl Peers,
        request: peer::JoinRequest,
    ) -> Result<Asked, FormationError> {
        let mut ask = self.others();
        ask.reverse();
        ask.extend(self.state().led_last.filter(|led| *led != self.config.ordinal));
        let (mut hops, mut asked) = (0, Asked::Nobody);
        while let Some(to) = ask.pop() {
            let Ok(reply) = peers.join(to, request.clone()).await else { continue };
            match reply.result {
                Some(join_reply::Result::Joined(joined)) => return Ok(Asked::Joined(joined)),
                Some(join_reply::Result::LeaderAt(at)) if hops < 3 => {
                    hops += 1;
                    ask.push(Ordinal(at.ordinal));
                }
                Some(join_reply::Result::NoLeader(_) | join_reply::Result::LeaderAt(_)) => {
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Refused(why)) => return Err(FormationError::Refused(why)),
                Some(join_reply::Result::OccupiedBy(by)) => {
                    let member = MemberId(by.member_id);
                    self.waits(&format!("member {member} lives at this ordinal, and answers"));
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Wait(why)) => {
                    self.waits(&why);
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::Dead(_)) => return Ok(Asked::Dead),
                Some(join_reply::Result::NotFormed(said)) if said.starting => {
                    self.waits(&format!("ordinal {to} is of a cluster, and is starting"));
                    asked = Asked::NoLeader;
                }
                Some(join_reply::Result::NotFormed(_)) | None => {}
            }
        }
        Ok(asked)
    }
}

/// What asking to join came to.
enum Asked {
    Joined(peer::Joined),
    /// There is a cluster, but nobody there could decide.
    NoLeader,
    /// Nobody answers, or nobody knows of a cluster.
    Nobody,
    /// The id that was named can never be let in any more.
    Dead,
}

/// What a pristine volume found.
pub(super) enum Found {
    Joined,
    /// A cluster, which it must not found anew: ask again.
    NoLeader,
    NoCluster,
}
