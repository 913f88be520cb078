//! Executes the planned step, and reports it.

use std::{collections::BTreeSet, time::Duration};

use super::{HAND_OVER_TIMEOUT, MembershipReconciler};
use crate::{
    membership::{
        orchestrator::ClusterEvent,
        planner::{self, Blocked, BlockedBy, Member, Observed, Plan, Step},
    },
    node::NodePort,
    raft::RaftMembership,
    types::MemberId,
};

/// Without a quorum a step might never complete. After this time the reconciler observes again.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

impl<N: NodePort> MembershipReconciler<N> {
    /// Defers the removal of members that still drain. A removed member receives no further log entries
    /// and could not finish its in-flight requests. So the leader waits until the member reports that
    /// it has drained, or is unreachable. Until then its pod may not even have received SIGTERM.
    pub fn defer_removals(&self, plan: Plan, observed: &Observed) -> Plan {
        let Plan::Do(Step::Remove(leaving)) = plan else { return plan };
        let drained = self.stop_permits();
        let members = observed.members.iter().filter(|m| leaving.contains(&m.id()));
        let (removable, draining): (Vec<&Member>, Vec<&Member>) = members
            .partition(|m| drained.contains(&m.id()) || m.removal_requested || !m.in_contact);
        if !removable.is_empty() {
            return Plan::Do(Step::Remove(removable.iter().map(|m| m.id()).collect()));
        }
        // An obstacle among the other members is reported first.
        let others = observed.members.iter().filter(|m| !leaving.contains(&m.id()));
        let without = Observed { members: others.copied().collect(), ..observed.clone() };
        match planner::plan(&without) {
            Plan::Settled => {
                let waiting_for = draining.iter().map(|m| m.member_ref).collect();
                Plan::Wait(Blocked { by: BlockedBy::DrainingMembers, waiting_for })
            }
            plan => plan,
        }
    }

    pub async fn execute(&self, step: &Step, membership: &RaftMembership) {
        let change = describe(step, membership);
        tracing::info!(change, "changing the membership");
        let raft = &self.raft;
        let executed = async {
            match step.clone() {
                Step::FinishJoint => raft.finish_change(membership).await,
                Step::ChangeVoters { add, remove } => {
                    raft.change_voters(add, remove, membership).await
                }
                Step::Remove(members) => raft.remove_learners(members, membership).await,
                Step::HandOver { to } => {
                    raft.transfer_leadership_to(to, HAND_OVER_TIMEOUT).await;
                    Ok(())
                }
            }
        };
        match tokio::time::timeout(STEP_TIMEOUT, executed).await {
            Ok(Ok(())) => self.emit_step(step, change),
            Ok(Err(e)) => tracing::warn!(error = %e, change, "membership change failed"),
            Err(_) => tracing::warn!(change, "membership change not committed in time"),
        }
    }

    fn emit_step(&self, step: &Step, change: String) {
        let reason = match step {
            Step::ChangeVoters { remove, .. } if remove.is_empty() => "Joined",
            Step::ChangeVoters { add, .. } if add.is_empty() => "Left",
            Step::ChangeVoters { .. } => "Replaced",
            Step::Remove(_) => "Left",
            Step::FinishJoint | Step::HandOver { .. } => return,
        };
        self.emit(ClusterEvent::of_set(reason, change));
    }
}

/// The step as a sentence for operators.
fn describe(step: &Step, membership: &RaftMembership) -> String {
    let name = |id: &MemberId| {
        let member = membership.members.iter().find(|m| m.member_ref.member == *id);
        member.map_or_else(|| id.to_string(), |m| format!("{} (member {id})", m.member_ref.ordinal))
    };
    let names = |ids: &BTreeSet<MemberId>| ids.iter().map(name).collect::<Vec<_>>().join(", ");
    match step {
        Step::FinishJoint => "the interrupted change of voters is completed".into(),
        Step::ChangeVoters { add, remove } if remove.is_empty() => {
            format!("ordinal {} becomes a voter", names(add))
        }
        Step::ChangeVoters { add, remove } if add.is_empty() => {
            format!("ordinal {} becomes a learner", names(remove))
        }
        Step::ChangeVoters { add, remove } => {
            format!("ordinal {} replaces {} as a voter", names(add), names(remove))
        }
        Step::Remove(members) => format!("ordinal {} is removed", names(members)),
        Step::HandOver { to } => format!("leadership moves to ordinal {}", name(to)),
    }
}
