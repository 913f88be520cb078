//! Our own service, for what etcd's API has no words for.

use tonic::{Request, Response, Status};

use crate::{
    node::{Leading, MemberOverview, MembershipPort, Overview},
    proto::own::{
        self, ClusterReply, ClusterRequest, RecoverReply, RecoverRequest, ordinal_server::Ordinal,
    },
};

#[derive(Debug)]
pub(super) struct OwnService<M> {
    pub(super) members: M,
}

#[tonic::async_trait]
impl<M: MembershipPort> Ordinal for OwnService<M> {
    async fn cluster(&self, _: Request<ClusterRequest>) -> Result<Response<ClusterReply>, Status> {
        Ok(Response::new(self.members.overview().into()))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverReply>, Status> {
        if !request.into_inner().accept_data_loss {
            return Err(Status::invalid_argument(
                "ordinal: what the lost volumes had and this one has not would be gone: say that you accept that",
            ));
        }
        let cluster = self.members.recover().await?;
        Ok(Response::new(RecoverReply { cluster_id: cluster.0 }))
    }
}

impl From<Overview> for ClusterReply {
    fn from(now: Overview) -> ClusterReply {
        let whole = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        ClusterReply {
            cluster_id: now.cluster.0,
            member_id: now.me.0,
            leader: now.leader.map_or(0, |leader| leader.0),
            term: now.term.0,
            desired: now.desired.map(|d| own::Desired {
                start: d.start,
                replicas: d.replicas,
                generation: d.generation,
            }),
            follows_pods: now.follows_pods,
            members: now.members.into_iter().map(own::ClusterMember::from).collect(),
            leading: now.leading.map(|Leading { waits_for, tolerates }| own::Leading {
                waits_for: waits_for.unwrap_or_default(),
                tolerates,
            }),
            answerer: Some(own::Answerer {
                version: env!("CARGO_PKG_VERSION").into(),
                unix_ms: whole(now.own.now.as_millis()),
                fsync_p99_us: whole(now.own.fsync_p99.unwrap_or_default().as_micros()),
                volume_full: now.own.volume_full,
            }),
        }
    }
}

impl From<MemberOverview> for own::ClusterMember {
    fn from(member: MemberOverview) -> own::ClusterMember {
        own::ClusterMember {
            ordinal: member.place.ordinal.0,
            member_id: member.place.member.0,
            name: member.name,
            votes: member.votes,
            will_vote: member.will_vote,
            boot: member.boot,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            in_contact: member.in_contact,
            lag: member.lag,
        }
    }
}
