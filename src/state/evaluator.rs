//! Evaluates a transaction against the state before it: comparisons, and the checks that decide
//! whether its operations may run. The apply lane and read-only transactions share this code.
//!
//! As in etcd, all comparisons and checks, including those of nested transactions, see the state
//! before the transaction. A failed check refuses the whole transaction, without effect.

use super::{
    error::ReadError,
    history::Version,
    index::Index,
    instance::ReadableRevisions,
    leases::Leases,
    record_source::RecordSource,
    scan::{FETCH_RECORDS, Scan},
    storage::StorageError,
};
use crate::types::{
    CommandError, Compare, CompareOp, CompareTarget, LeaseId, OpReply, Put, Range, RangeReply,
    Revision, Txn, TxnOp, TxnReply,
};

/// The state at one revision.
pub struct TxnEvaluator<'a> {
    pub index: &'a Index,
    pub leases: &'a Leases,
    pub records: &'a dyn RecordSource,
    /// The revisions that a request may name.
    pub readable: ReadableRevisions,
    /// The revision of reads that name none. In a transaction that writes, the one it makes.
    pub current: Revision,
}

/// The branch that a transaction takes, and the branches of the transactions nested in it, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct TxnPath {
    pub succeeded: bool,
    pub nested: Vec<TxnPath>,
}

impl TxnPath {
    /// The operations of the taken branch; nested transactions with their own paths.
    pub fn of<'a>(
        &'a self,
        txn: &'a Txn,
    ) -> impl Iterator<Item = (&'a TxnOp, Option<&'a TxnPath>)> {
        let mut nested = self.nested.iter();
        branch(txn, self.succeeded).iter().map(move |op| match op {
            TxnOp::Txn(_) => (op, nested.next()),
            _ => (op, None),
        })
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[TxnOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

impl TxnEvaluator<'_> {
    pub fn range(&self, range: &Range) -> Result<RangeReply, ReadError> {
        let named = self.readable.resolve(range.revision)?;
        let at = if range.revision <= Revision::ZERO { self.current } else { named };
        Ok(Scan::new(range.clone(), at).finish(self.index, self.records)?)
    }

    pub fn path(&self, txn: &Txn) -> Result<TxnPath, StorageError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.compare(compare)? {
                succeeded = false;
                break;
            }
        }
        let nested = branch(txn, succeeded).iter().filter_map(|op| match op {
            TxnOp::Txn(nested) => Some(self.path(nested)),
            _ => None,
        });
        Ok(TxnPath { succeeded, nested: nested.collect::<Result<_, _>>()? })
    }

    /// Checks every operation on the path. The first failed check is the error.
    pub fn check(&self, txn: &Txn, path: &TxnPath) -> Result<(), CommandError> {
        path.of(txn).try_for_each(|(op, nested)| match (op, nested) {
            (TxnOp::Range(range), _) => self.check_range(range.revision),
            (TxnOp::Put(put), _) => {
                self.check_previous(put)?;
                self.check_lease(put.lease)
            }
            (TxnOp::Txn(txn), Some(path)) => self.check(txn, path),
            (TxnOp::DeleteRange(_) | TxnOp::Txn(_), _) => Ok(()),
        })
    }

    /// In a transaction a negative revision counts as compacted, unless the store was never compacted.
    fn check_range(&self, revision: Revision) -> Result<(), CommandError> {
        if revision < self.readable.compacted && revision != Revision::ZERO {
            return Err(CommandError::Compacted);
        }
        self.readable.resolve(revision).map(drop)
    }

    /// A put that keeps the value or lease of its key requires that the key exists.
    pub fn check_previous(&self, put: &Put) -> Result<(), CommandError> {
        let needs_key = put.ignore_value || put.ignore_lease;
        if needs_key && self.index.get(&put.key, self.current).is_none() {
            return Err(CommandError::KeyNotFound);
        }
        Ok(())
    }

    /// A put that names a lease requires that the lease exists.
    pub fn check_lease(&self, lease: LeaseId) -> Result<(), CommandError> {
        if lease != LeaseId::default() && self.leases.get(lease).is_none() {
            return Err(CommandError::LeaseNotFound);
        }
        Ok(())
    }

    /// The reply of a path without writes.
    pub fn reply(&self, txn: &Txn, path: &TxnPath) -> Result<TxnReply, ReadError> {
        let responses = path.of(txn).map(|(op, nested)| match (op, nested) {
            (TxnOp::Range(range), _) => Ok(OpReply::Range(self.range(range)?)),
            (TxnOp::Txn(txn), Some(path)) => Ok(OpReply::Txn(self.reply(txn, path)?)),
            _ => panic!("a transaction that writes must go through the log"),
        });
        let responses = responses.collect::<Result<_, ReadError>>()?;
        Ok(TxnReply { succeeded: path.succeeded, responses, revision: self.readable.revision })
    }

    fn compare(&self, compare: &Compare) -> Result<bool, StorageError> {
        let mut rest = Some(compare.keys.clone());
        let mut any = false;
        while let Some(keys) = rest {
            let mut found: Vec<Version> = Vec::new();
            rest = self.index.walk(&keys, FETCH_RECORDS, |_, history| {
                found.extend(history.at(self.current));
            });
            any |= !found.is_empty();
            if !self.all_hold(compare, &found)? {
                return Ok(false);
            }
        }
        Ok(any || absent_holds(compare))
    }

    fn all_hold(&self, compare: &Compare, found: &[Version]) -> Result<bool, StorageError> {
        let Compare { op, target, .. } = compare;
        Ok(match target {
            CompareTarget::Value(value) => {
                let ids: Vec<_> = found.iter().map(Version::id).collect();
                self.records.read(&ids)?.iter().all(|record| holds(*op, &record.value, value))
            }
            CompareTarget::Version(version) => {
                found.iter().all(|key| holds(*op, &key.version, version))
            }
            CompareTarget::Create(revision) => {
                found.iter().all(|key| holds(*op, &key.created, revision))
            }
            CompareTarget::Mod(revision) => {
                found.iter().all(|key| holds(*op, &key.modified, revision))
            }
            CompareTarget::Lease(lease) => found.iter().all(|key| holds(*op, &key.lease, lease)),
        })
    }
}

/// Whether the comparison holds for a key that does not exist.
fn absent_holds(Compare { op, target, .. }: &Compare) -> bool {
    match target {
        CompareTarget::Value(_) => false,
        CompareTarget::Version(version) => holds(*op, &0, version),
        CompareTarget::Create(revision) | CompareTarget::Mod(revision) => {
            holds(*op, &Revision::ZERO, revision)
        }
        CompareTarget::Lease(lease) => holds(*op, &LeaseId::default(), lease),
    }
}

fn holds<T: Ord>(op: CompareOp, is: &T, named: &T) -> bool {
    match op {
        CompareOp::Equal => is == named,
        CompareOp::NotEqual => is != named,
        CompareOp::Greater => is > named,
        CompareOp::Less => is < named,
    }
}
