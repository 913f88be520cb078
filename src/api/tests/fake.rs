//! A fake node: records its calls, and answers from a table.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    node::{
        Applied, Header, MemberInfo, MembershipError, NodeError, NodePort, RangeResult, Status,
        TimeToLive,
    },
    types::*,
};

#[derive(Debug, Clone)]
pub struct FakeNode {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
pub struct Table {
    /// The calls since the last look.
    pub calls: Vec<String>,
    pub header: Header,
    pub status: Status,
    /// There has been no leader for long.
    pub leader_lost: watch::Sender<bool>,
    /// The number of calls that still succeed, and the error of the next one.
    pub failure: Option<(u32, NodeError)>,
    /// The error of the next membership change.
    pub membership_error: Option<MembershipError>,
    /// In key order; no write changes it.
    pub keys: Vec<KeyValue>,
    pub leases: BTreeMap<LeaseId, TimeToLive>,
    /// Writes by others between any two calls.
    pub revisions_between_calls: i64,
}

impl FakeNode {
    pub fn new() -> FakeNode {
        let header = Header {
            cluster: ClusterId(0xc1),
            member: MemberId(0xe2),
            revision: Revision(30),
            term: Term(4),
        };
        let status = Status { leader: Some(MemberId(0xe1)), term: Term(4), ..Status::default() };
        let table = Table {
            calls: Vec::new(),
            header,
            status,
            leader_lost: watch::Sender::new(false),
            failure: None,
            membership_error: None,
            keys: Vec::new(),
            leases: BTreeMap::new(),
            revisions_between_calls: 0,
        };
        FakeNode { table: Arc::new(Mutex::new(table)) }
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    fn call(&self, call: impl Debug) -> Result<MutexGuard<'_, Table>, NodeError> {
        let mut table = self.table();
        table.calls.push(format!("{call:?}"));
        table.header.revision.0 += table.revisions_between_calls;
        match &mut table.failure {
            Some((0, error)) => {
                let error = error.clone();
                table.failure = None;
                return Err(error);
            }
            Some((calls, _)) => *calls -= 1,
            None => {}
        }
        Ok(table)
    }
}

impl Table {
    fn range(&self, range: &Range) -> RangeReply {
        let holds = |key: &Bytes| match &range.keys {
            KeyRange::One(one) => key == one,
            KeyRange::Span { start, end } => start <= key && key < end,
            KeyRange::From(start) => start <= key,
        };
        let mut kvs: Vec<_> = self.keys.iter().filter(|kv| holds(&kv.key)).cloned().collect();
        let count = kvs.len() as i64;
        let more = range.limit > 0 && range.limit < count;
        if more {
            kvs.truncate(range.limit as usize);
        }
        if range.count_only {
            return RangeReply { kvs: vec![], more: false, count };
        }
        RangeReply { kvs, more, count }
    }

    /// Runs the branch `success`.
    fn txn(&self, txn: &Txn) -> TxnReply {
        let responses = txn.success.iter().map(|op| match op {
            TxnOp::Range(range) => OpReply::Range(self.range(range)),
            TxnOp::Put(_) => OpReply::Put(PutReply::default()),
            TxnOp::DeleteRange(delete) => OpReply::DeleteRange(self.delete(delete)),
            TxnOp::Txn(txn) => OpReply::Txn(self.txn(txn)),
        });
        let responses = responses.collect();
        TxnReply { succeeded: true, responses, revision: self.revision_after(writes(txn)) }
    }

    fn revision_after(&self, wrote: bool) -> Revision {
        if wrote { self.header.revision.next() } else { self.header.revision }
    }

    fn delete(&self, delete: &DeleteRange) -> DeleteRangeReply {
        let found = self.range(&Range::of(delete.keys.clone()));
        let prev_kvs = if delete.prev_kv { found.kvs } else { vec![] };
        DeleteRangeReply { deleted: found.count, prev_kvs }
    }
}

/// Whether the branch `success` has a put.
fn writes(txn: &Txn) -> bool {
    txn.success.iter().any(|op| match op {
        TxnOp::Put(_) => true,
        TxnOp::Txn(nested) => writes(nested),
        TxnOp::Range(_) | TxnOp::DeleteRange(_) => false,
    })
}

impl NodePort for FakeNode {
    fn header(&self) -> Header {
        self.table().header
    }

    async fn propose(&self, command: Command) -> Result<Applied, NodeError> {
        let table = self.call(&command)?;
        let reply = match &command {
            Command::Put(put) => {
                let prev_kv = table.keys.iter().find(|kv| put.prev_kv && kv.key == put.key);
                let reply = PutReply { prev_kv: prev_kv.cloned() };
                Reply::Put { revision: table.revision_after(true), reply }
            }
            Command::DeleteRange(delete) => {
                let reply = table.delete(delete);
                Reply::DeleteRange { revision: table.revision_after(reply.deleted > 0), reply }
            }
            Command::Txn(txn) => {
                let reply = table.txn(txn);
                Reply::Txn { revision: reply.revision, reply }
            }
            Command::Compact(_) => Reply::Compact { revision: table.header.revision },
            Command::SetMemberAttributes(_) => Reply::MembersUpdated,
            Command::AdmitMember(_) | Command::SetDesiredReplicas(_) => Reply::MembersUpdated,
            Command::AssignMember { .. } => Reply::Assigned(MemberId(9)),
            Command::LeaseGrant { ttl, .. } => {
                Reply::LeaseGrant { revision: table.header.revision, ttl: *ttl }
            }
            Command::LeaseRevoke(_) => Reply::LeaseRevoke { revision: table.revision_after(true) },
            Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::LeaseRenew { .. } => Reply::LeasesUpdated,
        };
        // A leader of a later term has applied the command.
        Ok(Applied { term: Term(table.header.term.0 + 1), reply })
    }

    async fn range(&self, range: Range, serializable: bool) -> Result<RangeResult, NodeError> {
        let table = self.call(Read { request: &range, serializable })?;
        Ok(RangeResult { revision: table.header.revision, reply: table.range(&range) })
    }

    async fn read_txn(
        &self,
        txn: Txn,
        serializable: bool,
    ) -> Result<(Revision, TxnReply), NodeError> {
        let table = self.call(Read { request: &txn, serializable })?;
        Ok((table.header.revision, table.txn(&txn)))
    }

    async fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision, Revision), NodeError> {
        self.call(HashKv(revision)).map(drop)?;
        Ok((0xfeed, Revision(5), revision))
    }

    async fn compaction_done(&self, revision: Revision) -> Result<(), NodeError> {
        self.call(CompactionDone(revision)).map(drop)
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<(LeaseId, Applied), NodeError> {
        let id = if id == LeaseId(0) { LeaseId(0x7fff) } else { id };
        Ok((id, self.propose(Command::LeaseGrant { id, ttl: ttl.max(2) }).await?))
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<Option<i64>, NodeError> {
        let table = self.call(LeaseRenew(id))?;
        Ok(table.leases.get(&id).map(|lease| lease.granted))
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<Option<TimeToLive>, NodeError> {
        let table = self.call(LeaseTimeToLive { id, keys })?;
        let found = table.leases.get(&id).cloned();
        Ok(found.map(|lease| if keys { lease } else { TimeToLive { keys: vec![], ..lease } }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, NodeError> {
        Ok(self.call(Leases)?.leases.keys().copied().collect())
    }

    async fn members(&self, linearizable: bool) -> Result<Vec<MemberInfo>, NodeError> {
        self.call(Members { linearizable }).map(drop)?;
        let member = |ordinal: u32, learner| MemberInfo {
            id: MemberId(0xe1 + u64::from(ordinal)),
            ordinal: Ordinal(ordinal),
            name: format!("kv-{ordinal}"),
            peer_urls: vec![format!("http://kv-{ordinal}:2380")],
            client_urls: vec![format!("http://kv-{ordinal}:2379")],
            learner,
        };
        Ok(vec![member(0, false), member(1, true)])
    }

    fn status(&self) -> Status {
        self.table().status.clone()
    }

    fn has_leader(&self) -> bool {
        self.table().status.leader.is_some()
    }

    fn caught_up(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<(), NodeError>> + Send + 'static {
        let reached = self.call(CaughtUp(revision)).map(drop);
        async move { reached }
    }

    fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.table().leader_lost.subscribe();
        async move { drop(lost.wait_for(|lost| *lost).await) }
    }
}

/// The calls other than commands, as the scripts show them.
#[derive(Debug)]
struct Read<'a, T> {
    #[expect(dead_code, reason = "for Debug")]
    request: &'a T,
    #[expect(dead_code, reason = "for Debug")]
    serializable: bool,
}

#[derive(Debug)]
struct HashKv(#[expect(dead_code, reason = "for Debug")] Revision);

#[derive(Debug)]
struct CompactionDone(#[expect(dead_code, reason = "for Debug")] Revision);

#[derive(Debug)]
struct CaughtUp(#[expect(dead_code, reason = "for Debug")] Revision);

#[derive(Debug)]
struct LeaseRenew(#[expect(dead_code, reason = "for Debug")] LeaseId);

#[derive(Debug)]
struct LeaseTimeToLive {
    #[expect(dead_code, reason = "for Debug")]
    id: LeaseId,
    #[expect(dead_code, reason = "for Debug")]
    keys: bool,
}

#[derive(Debug)]
struct Leases;

#[derive(Debug)]
struct Members {
    #[expect(dead_code, reason = "for Debug")]
    linearizable: bool,
}
