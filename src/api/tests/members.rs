//! Members that are changed by a table, too.

use super::fake::FakeNode;
use crate::{
    node::{
        Leading, MemberChange, MemberOverview, MembershipError, MembershipPort, NodePort as _,
        Overview, OwnOverview,
    },
    types::{ClusterId, Desired, MemberId, Ordinal, PeerPlace},
};

#[derive(Debug, Clone)]
pub(super) struct FakeMembers(pub(super) FakeNode);

impl MembershipPort for FakeMembers {
    async fn change(&self, change: MemberChange) -> Result<MemberId, MembershipError> {
        let mut table = self.0.table();
        table.asked.push(format!("{change:?}"));
        if let Some(refusal) = table.refusal.take() {
            return Err(refusal);
        }
        Ok(match change {
            MemberChange::Add { .. } => MemberId(0xe2),
            MemberChange::Update { member, .. } => member,
            MemberChange::Remove(member)
            | MemberChange::Promote(member)
            | MemberChange::MoveLeader(member) => member,
        })
    }

    async fn recover(&self) -> Result<ClusterId, MembershipError> {
        Ok(ClusterId(0x4ec))
    }

    fn overview(&self) -> Overview {
        let header = self.0.header();
        let member = |ordinal: u32| MemberOverview {
            place: PeerPlace {
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
        Overview {
            cluster: header.cluster,
            me: header.member,
            leader: self.0.status().leader,
            term: header.term,
            desired: Some(Desired { set: "kv".into(), generation: 2, start: 0, replicas: 2 }),
            follows_pods: true,
            members: vec![member(0), member(1)],
            leading: Some(Leading { waits_for: Some("ordinal 1".into()), tolerates: Some(0) }),
            own: OwnOverview::default(),
        }
    }
}
