//! A simple model of the state machine, without regard for memory or time: a list of all versions.
//! [`StateMachine`](crate::state::StateMachine) must give the same replies.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub revision: Revision,
    pub compacted: Revision,
    pub leases: BTreeMap<LeaseId, Lease>,
    last_epoch: u64,
    /// In the order of writing; `None`: deleted.
    log: Vec<(Revision, Bytes, Option<KeyValue>)>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            revision: Revision(1),
            compacted: Revision(-1),
            leases: BTreeMap::new(),
            last_epoch: 0,
            log: Vec::new(),
        }
    }
}

pub type Keys = BTreeMap<Bytes, KeyValue>;

impl Model {
    /// `term` is that of the entry.
    pub fn apply(&mut self, term: Term, command: &Command) -> Result<Reply, CommandError> {
        let txn = |op| Txn { success: vec![op], ..Txn::default() };
        let only = |mut reply: TxnReply| reply.responses.remove(0);
        match command {
            Command::Put(put) => {
                self.check_lease(put.lease)?;
                let OpReply::Put(reply) = only(self.txn(&txn(TxnOp::Put(put.clone())))?) else {
                    unreachable!()
                };
                Ok(Reply::Put { revision: self.revision, reply })
            }
            Command::DeleteRange(delete) => {
                let reply = only(self.txn(&txn(TxnOp::DeleteRange(delete.clone())))?);
                let OpReply::DeleteRange(reply) = reply else { unreachable!() };
                Ok(Reply::DeleteRange { revision: self.revision, reply })
            }
            Command::Txn(txn) => {
                let reply = self.txn(txn)?;
                Ok(Reply::Txn { revision: self.revision, reply })
            }
            Command::AdmitMember(_) | Command::SetDesiredReplicas(_) => Ok(Reply::MembersUpdated),
            Command::Compact(revision) if *revision <= self.compacted => {
                Err(CommandError::Compacted)
            }
            Command::Compact(revision) if *revision > self.revision => {
                Err(CommandError::FutureRevision)
            }
            Command::Compact(revision) => {
                self.compacted = *revision;
                Ok(Reply::Compact { revision: self.revision })
            }
            Command::SetMemberAttributes(_) | Command::AssignMember { .. } => {
                unreachable!("not generated")
            }
            lease => self.apply_lease(term, lease),
        }
    }

    fn apply_lease(&mut self, term: Term, command: &Command) -> Result<Reply, CommandError> {
        match command {
            Command::LeaseGrant { id, ttl } => self.grant(*id, *ttl),
            Command::LeaseRevoke(id) => {
                self.check_lease(*id)?;
                self.end_lease(*id);
                Ok(Reply::LeaseRevoke { revision: self.revision })
            }
            Command::LeaseExpire { term: decided_in, .. }
            | Command::LeaseCheckpoint { term: decided_in, .. }
            | Command::LeaseRenew { term: decided_in, .. }
                if *decided_in != term =>
            {
                Err(CommandError::StaleTerm)
            }
            Command::LeaseExpire { leases, .. } => {
                for LeaseRef { id, epoch } in leases {
                    if self.leases.get(id).is_some_and(|lease| lease.epoch == *epoch) {
                        self.end_lease(*id);
                    }
                }
                Ok(Reply::LeasesUpdated)
            }
            Command::LeaseCheckpoint { checkpoints, .. } => {
                for LeaseCheckpoint { lease: LeaseRef { id, epoch }, remaining } in checkpoints {
                    if self.leases.get(id).is_some_and(|lease| lease.epoch == *epoch) {
                        self.set_remaining(*id, *remaining);
                    }
                }
                Ok(Reply::LeasesUpdated)
            }
            Command::LeaseRenew { leases, .. } => {
                for id in
                    leases.iter().filter(|id| self.leases.contains_key(id)).collect::<Vec<_>>()
                {
                    self.set_remaining(*id, 0);
                }
                Ok(Reply::LeasesUpdated)
            }
            _ => unreachable!("not a command about leases"),
        }
    }

    /// The keys attached to a lease at the current revision.
    pub fn attached(&self, id: LeaseId) -> Vec<Bytes> {
        let keys = self.at(self.revision);
        keys.into_values().filter(|kv| kv.lease == id).map(|kv| kv.key).collect()
    }

    fn check_lease(&self, id: LeaseId) -> Result<(), CommandError> {
        let there = id == LeaseId(0) || self.leases.contains_key(&id);
        if there { Ok(()) } else { Err(CommandError::LeaseNotFound) }
    }

    fn grant(&mut self, id: LeaseId, ttl: i64) -> Result<Reply, CommandError> {
        if id == LeaseId(0) {
            return Err(CommandError::LeaseNotFound);
        }
        if ttl > 9_000_000_000 {
            return Err(CommandError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(CommandError::LeaseExists);
        }
        self.leases.insert(id, Lease { id, ttl, ..Lease::default() });
        self.set_remaining(id, 0);
        Ok(Reply::LeaseGrant { revision: self.revision, ttl })
    }

    fn set_remaining(&mut self, id: LeaseId, remaining: i64) {
        self.last_epoch += 1;
        let lease = self.leases.get_mut(&id).unwrap();
        *lease = Lease { remaining, epoch: self.last_epoch, ..*lease };
    }

    fn end_lease(&mut self, id: LeaseId) {
        let (keys, next) = (self.attached(id), self.revision.next());
        self.leases.remove(&id).unwrap();
        if !keys.is_empty() {
            self.revision = next;
        }
        self.log.extend(keys.into_iter().map(|key| (next, key, None)));
    }

    pub fn range(&self, range: &Range) -> Result<RangeReply, CommandError> {
        let at = if range.revision.0 <= 0 { self.revision } else { range.revision };
        if at > self.revision {
            return Err(CommandError::FutureRevision);
        }
        if at < self.compacted {
            return Err(CommandError::Compacted);
        }
        Ok(select(&self.at(at), range))
    }

    /// Every change from a revision on, in order; `None`: deleted.
    pub fn since(&self, from: Revision) -> &[(Revision, Bytes, Option<KeyValue>)] {
        &self.log[self.log.partition_point(|(at, ..)| *at < from)..]
    }

    /// All keys at a revision.
    pub fn at(&self, revision: Revision) -> Keys {
        let mut keys = Keys::new();
        for (_, key, kv) in self.log.iter().take_while(|(at, ..)| *at <= revision) {
            match kv {
                Some(kv) => keys.insert(key.clone(), kv.clone()),
                None => keys.remove(key),
            };
        }
        keys
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, CommandError> {
        let before = self.at(self.revision);
        let plan = plan(&before, txn);
        self.check(&before, &plan)?;
        let (mut keys, written) = (before, self.log.len());
        let reply = self.execute(&mut keys, &plan);
        if self.log.len() > written {
            self.revision = self.revision.next();
        }
        Ok(reply)
    }

    fn check(&self, before: &Keys, plan: &Plan) -> Result<(), CommandError> {
        for (op, nested) in &plan.ops {
            match op {
                TxnOp::Range(range) if range.revision > self.revision => {
                    return Err(CommandError::FutureRevision);
                }
                // In a transaction, unlike in a plain range, a negative revision counts as compacted.
                TxnOp::Range(range)
                    if range.revision != Revision(0) && range.revision < self.compacted =>
                {
                    return Err(CommandError::Compacted);
                }
                TxnOp::Put(put) => {
                    let exists = before.contains_key(&put.key);
                    if (put.ignore_value || put.ignore_lease) && !exists {
                        return Err(CommandError::KeyNotFound);
                    }
                    self.check_lease(put.lease)?;
                }
                _ => {}
            }
            if let Some(nested) = nested {
                self.check(before, nested)?;
            }
        }
        Ok(())
    }

    fn execute(&mut self, keys: &mut Keys, plan: &Plan) -> TxnReply {
        let next = self.revision.next();
        let responses = plan.ops.iter().map(|(op, nested)| match op {
            TxnOp::Range(range) if range.revision <= Revision(0) => {
                OpReply::Range(select(keys, range))
            }
            TxnOp::Range(range) => OpReply::Range(self.range(range).unwrap()),
            TxnOp::Put(put) => {
                let prev = keys.get(&put.key).cloned();
                let kept = prev.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
                let kept_lease = prev.as_ref().map(|kv| kv.lease).unwrap_or_default();
                let kv = KeyValue {
                    key: put.key.clone(),
                    value: if put.ignore_value { kept } else { put.value.clone() },
                    create_revision: prev.as_ref().map_or(next, |kv| kv.create_revision),
                    mod_revision: next,
                    version: prev.as_ref().map_or(0, |kv| kv.version) + 1,
                    lease: if put.ignore_lease { kept_lease } else { put.lease },
                };
                keys.insert(put.key.clone(), kv.clone());
                self.log.push((next, put.key.clone(), Some(kv)));
                OpReply::Put(PutReply { prev_kv: prev.filter(|_| put.prev_kv) })
            }
            TxnOp::DeleteRange(delete) => {
                let gone = within(keys, &delete.keys);
                for kv in &gone {
                    keys.remove(&kv.key);
                    self.log.push((next, kv.key.clone(), None));
                }
                OpReply::DeleteRange(DeleteRangeReply {
                    deleted: gone.len() as i64,
                    prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
                })
            }
            TxnOp::Txn(_) => OpReply::Txn(self.execute(keys, nested.as_ref().unwrap())),
        });
        let responses = responses.collect();
        let wrote = self.log.last().is_some_and(|(at, ..)| *at == next);
        let revision = if wrote { next } else { self.revision };
        TxnReply { succeeded: plan.succeeded, responses, revision }
    }
}

/// A transaction after its comparisons.
struct Plan {
    succeeded: bool,
    ops: Vec<(TxnOp, Option<Plan>)>,
}

fn plan(before: &Keys, txn: &Txn) -> Plan {
    let succeeded = txn.compare.iter().all(|compare| compares(before, compare));
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let ops = branch.iter().map(|op| {
        let nested = if let TxnOp::Txn(txn) = op { Some(plan(before, txn)) } else { None };
        (op.clone(), nested)
    });
    Plan { succeeded, ops: ops.collect() }
}

fn compares(keys: &Keys, compare: &Compare) -> bool {
    let found = within(keys, &compare.keys);
    if found.is_empty() {
        let is_value = matches!(compare.target, CompareTarget::Value(_));
        return !is_value && compares_kv(&KeyValue::default(), compare);
    }
    found.iter().all(|kv| compares_kv(kv, compare))
}

fn compares_kv(kv: &KeyValue, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::Create(revision) => kv.create_revision.cmp(revision),
        CompareTarget::Mod(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
    }
}

fn within(keys: &Keys, range: &KeyRange) -> Vec<KeyValue> {
    let holds = |key: &Bytes| match range {
        KeyRange::One(one) => key == one,
        KeyRange::Span { start, end } => key >= start && key < end,
        KeyRange::From(start) => key >= start,
    };
    keys.values().filter(|kv| holds(&kv.key)).cloned().collect()
}

/// etcd's order of steps: take (one more than the limit, unless all are needed), filter, sort,
/// truncate.
fn select(keys: &Keys, range: &Range) -> RangeReply {
    let mut kvs = within(keys, &range.keys);
    let count = kvs.len() as i64;
    if range.count_only {
        return RangeReply { kvs: Vec::new(), more: false, count };
    }
    let bounds = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    let filtered = bounds.iter().any(|bound| bound.0 != 0);
    let limit = range.limit.max(0) as usize;
    if limit > 0 && !filtered && range.sort_order == SortOrder::None {
        kvs.truncate(limit + 1);
    }
    let [min_mod, max_mod, min_create, max_create] = bounds;
    kvs.retain(|kv| min_mod.0 == 0 || kv.mod_revision >= min_mod);
    kvs.retain(|kv| max_mod.0 == 0 || kv.mod_revision <= max_mod);
    kvs.retain(|kv| min_create.0 == 0 || kv.create_revision >= min_create);
    kvs.retain(|kv| max_create.0 == 0 || kv.create_revision <= max_create);
    kvs.sort_by(|a, b| {
        let ascending = match range.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if range.sort_order == SortOrder::Descend { ascending.reverse() } else { ascending }
    });
    let more = limit > 0 && kvs.len() > limit;
    if limit > 0 {
        kvs.truncate(limit);
    }
    if range.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeReply { kvs, more, count }
}
