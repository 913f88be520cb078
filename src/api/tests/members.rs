//! The fake node's membership.

use super::fake::FakeNode;
use crate::{
    node::{
        ClusterOverview, LeaderOverview, LocalOverview, MemberChange, MemberOverview,
        MembershipError, MembershipPort, NodePort as _,
    },
    types::{ClusterId, DesiredReplicas, MemberId, MemberRef, Ordinal},
};

#[derive(Debug, Clone)]
pub struct FakeMembers(pub FakeNode);

impl MembershipPort for FakeMembers {
    async fn change(&self, change: MemberChange) -> Result<MemberId, MembershipError> {
        let mut table = self.0.table();
        table.calls.push(format!("{change:?}"));
        if let Some(error) = table.membership_error.take() {
            return Err(error);
        }
        Ok(match change {
            MemberChange::Add { .. } => MemberId(0xe2),
            MemberChange::Update { member, .. } => member,
            MemberChange::Remove(member)
            | MemberChange::Promote(member)
            | MemberChange::MoveLeader(member) => member,
        })
    }

    async fn recover(&self, insisted: Option<ClusterId>) -> Result<ClusterId, MembershipError> {
        match insisted {
            None | Some(ClusterId(0xc1)) => Ok(ClusterId(0x4ec)),
            Some(other) => Err(MembershipError::OtherCluster(other)),
        }
    }

    fn overview(&self) -> ClusterOverview {
        let header = self.0.header();
        let member = |ordinal: u32| MemberOverview {
            member_ref: MemberRef {
                member: MemberId(0xe1 + u64::from(ordinal)),
                ordinal: Ordinal(ordinal),
            },
            name: format!("kv-{ordinal}"),
            peer_urls: vec![],
            client_urls: vec![format!("http://kv-{ordinal}:2379")],
            boot: 3,
            votes: ordinal == 0,
            will_vote: true,
            in_contact: Some(true),
            lag: Some(7 * u64::from(ordinal)),
        };
        ClusterOverview {
            cluster: header.cluster,
            answered_by: header.member,
            leader: self.0.status().leader,
            term: header.term,
            desired: Some(DesiredReplicas {
                set: "kv".into(),
                generation: 2,
                start: 0,
                replicas: 2,
            }),
            follows_pods: true,
            members: vec![member(0), member(1)],
            leading: Some(LeaderOverview {
                waits_for: Some("ordinal 1".into()),
                tolerates: Some(0),
            }),
            local: LocalOverview::default(),
        }
    }
}
