//! etcd's Maintenance service: status, hashes, alarms, leadership transfer.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{
    errors::not_implemented,
    header,
    version::{ETCD_STORAGE_VERSION, ETCD_VERSION},
};
use crate::{
    node::{self, MemberChange, MembershipPort, NodeError, NodePort},
    proto::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
        DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse,
        HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse, ResponseHeader,
        SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
        alarm_request::AlarmAction, maintenance_server::Maintenance,
    },
    types::{MemberId, Revision},
};

#[derive(Debug)]
pub struct MaintenanceService<N, M> {
    node: N,
    members: M,
}

impl<N: NodePort, M: MembershipPort> MaintenanceService<N, M> {
    pub fn new(node: N, members: M) -> MaintenanceService<N, M> {
        MaintenanceService { node, members }
    }

    fn header(&self) -> ResponseHeader {
        let now = self.node.header();
        header::at(now, now.revision)
    }
}

#[tonic::async_trait]
impl<N: NodePort, M: MembershipPort> Maintenance for MaintenanceService<N, M> {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        Ok(Response::new(status_response(self.header(), self.node.status())))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let revision = Revision(request.into_inner().revision);
        let (hash, compacted, hashed) = self.node.hash_kv(revision).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.header()),
            hash,
            compact_revision: compacted.0,
            hash_revision: hashed.0,
        }))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let request = request.into_inner();
        if request.action != i32::from(AlarmAction::Get) {
            return Err(not_implemented(
                "raising and clearing an Alarm",
                "an alarm is raised and cleared by what causes it",
            ));
        }
        // As in etcd, `memberID` does not filter.
        let requested = |alarm: &AlarmMember| {
            request.alarm == i32::from(AlarmType::None) || alarm.alarm == request.alarm
        };
        let alarms = alarms(&self.node.status()).filter(requested).collect();
        Ok(Response::new(AlarmResponse { header: Some(self.header()), alarms }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Err(not_implemented("Defragment", "compaction gives space back by itself"))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        Err(not_implemented("Hash", "use HashKV to compare members"))
    }

    type SnapshotStream = Empty<Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_implemented(
            "Snapshot",
            "there is no backup through the API yet; do not restore a member's volume from a copy",
        ))
    }

    /// Works on any member; in etcd only on the leader.
    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let to = MemberId(request.into_inner().target_id);
        self.members.change(MemberChange::MoveLeader(to)).await?;
        Ok(Response::new(MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Err(not_implemented("Downgrade", "roll the image back"))
    }
}

fn status_response(header: ResponseHeader, status: node::Status) -> StatusResponse {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    StatusResponse {
        header: Some(header),
        version: ETCD_VERSION.to_owned(),
        db_size: signed(status.db_size_bytes),
        leader: status.leader.map_or(0, |leader| leader.0),
        raft_index: status.raft_index,
        raft_term: status.term.0,
        raft_applied_index: status.applied_index,
        db_size_in_use: signed(status.db_size_in_use_bytes),
        is_learner: status.learner,
        storage_version: ETCD_STORAGE_VERSION.to_owned(),
        db_size_quota: signed(status.db_size_quota_bytes),
        downgrade_info: Some(DowngradeInfo::default()),
        errors: errors(status),
    }
}

/// The errors of a member, in etcd's words where etcd has them: no leader, then each alarm.
fn errors(status: node::Status) -> Vec<String> {
    let no_leader = status.leader.is_none().then(|| NodeError::NoLeader.to_string());
    let alarms = alarms(&status).map(|alarm| {
        // The message's text form, with its trailing blank.
        format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
    });
    let mut errors: Vec<_> = no_leader.into_iter().chain(alarms).collect();
    errors.extend(status.errors);
    errors
}

fn alarms(status: &node::Status) -> impl Iterator<Item = AlarmMember> {
    status.alarms.iter().map(|(member, kind)| AlarmMember {
        member_id: member.0,
        alarm: AlarmType::from(*kind).into(),
    })
}
