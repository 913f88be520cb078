//! What a transaction asks of the state before it changes anything: comparisons, and whether its
//! operations may be carried out. The same for the apply lane and for read-only transactions.
//!
//! As in etcd all comparisons, those of nested transactions too, and all checks are made on the
//! state before the transaction. What fails a check refuses the whole of it, without effect.

use super::{
    generation::Moment,
    history::Version,
    index::Index,
    leases::Leases,
    records::Records,
    scan::{FETCH_RECORDS, Scan},
    storage::StorageError,
    view::ReadError,
};
use crate::types::{
    CommandError, Compare, CompareOp, CompareTarget, LeaseId, OpReply, Put, Range, RangeReply,
    Revision, Txn, TxnOp, TxnReply,
};

/// The state at one revision.
pub(super) struct Reader<'a> {
    pub(super) index: &'a Index,
    pub(super) leases: &'a Leases,
    pub(super) records: &'a dyn Records,
    /// Which revisions a request may name.
    pub(super) now: Moment,
    /// Which one is read where none is named. In a transaction that writes, the one it makes.
    pub(super) present: Revision,
}

/// Which branch each transaction takes: this one, and the nested ones of that branch in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) succeeded: bool,
    pub(super) nested: Vec<Path>,
}

impl Path {
    /// The operations of the branch that is taken, each with the path it takes if it is nested.
    pub(super) fn of<'a>(
        &'a self,
        txn: &'a Txn,
    ) -> impl Iterator<Item = (&'a TxnOp, Option<&'a Path>)> {
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

impl Reader<'_> {
    pub(super) fn range(&self, range: &Range) -> Result<RangeReply, ReadError> {
        let named = self.now.resolve(range.revision)?;
        let at = if range.revision <= Revision::ZERO { self.present } else { named };
        Ok(Scan::new(range.clone(), at).finish(self.index, self.records)?)
    }

    pub(super) fn path(&self, txn: &Txn) -> Result<Path, StorageError> {
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
        Ok(Path { succeeded, nested: nested.collect::<Result<_, _>>()? })
    }

    /// Whether every operation on the path may be carried out; the first that may not decides.
    pub(super) fn check(&self, txn: &Txn, path: &Path) -> Result<(), CommandError> {
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

    /// In a transaction a negative revision is older than any, unless nothing was compacted ever.
    fn check_range(&self, revision: Revision) -> Result<(), CommandError> {
        if revision < self.now.compacted && revision != Revision::ZERO {
            return Err(CommandError::Compacted);
        }
        self.now.resolve(revision).map(drop)
    }

    /// A put that keeps something of the key needs one.
    pub(super) fn check_previous(&self, put: &Put) -> Result<(), CommandError> {
        let needs_key = put.ignore_value || put.ignore_lease;
        if needs_key && self.index.get(&put.key, self.present).is_none() {
            return Err(CommandError::KeyNotFound);
        }
        Ok(())
    }

    /// A put that names a lease needs one.
    pub(super) fn check_lease(&self, lease: LeaseId) -> Result<(), CommandError> {
        if lease != LeaseId::default() && self.leases.get(lease).is_none() {
            return Err(CommandError::LeaseNotFound);
        }
        Ok(())
    }

    /// What the path answers, if it changes nothing.
    pub(super) fn answer(&self, txn: &Txn, path: &Path) -> Result<TxnReply, ReadError> {
        let responses = path.of(txn).map(|(op, nested)| match (op, nested) {
            (TxnOp::Range(range), _) => Ok(OpReply::Range(self.range(range)?)),
            (TxnOp::Txn(txn), Some(path)) => Ok(OpReply::Txn(self.answer(txn, path)?)),
            _ => panic!("a transaction that writes goes through the log"),
        });
        let responses = responses.collect::<Result<_, ReadError>>()?;
        Ok(TxnReply { succeeded: path.succeeded, responses, revision: self.now.revision })
    }

    fn compare(&self, compare: &Compare) -> Result<bool, StorageError> {
        let mut rest = Some(compare.keys.clone());
        let mut any = false;
        while let Some(keys) = rest {
            let mut found: Vec<Version> = Vec::new();
            rest = self.index.walk(&keys, FETCH_RECORDS, |_, history| {
                found.extend(history.at(self.present));
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

/// Whether the comparison holds of a key that does not exist.
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
