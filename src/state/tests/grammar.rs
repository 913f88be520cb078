//! The syntax of commands in scripts: `put a 1 prev_kv`, `get a end=c sort=mod desc`, `value(a..c)>x`.

use std::error::Error;

use bytes::Bytes;
use goldenscript::Argument;

use crate::types::*;

pub type Parsed<T> = Result<T, Box<dyn Error>>;

/// The arguments of a command: words, and `key=value` pairs.
#[derive(Debug)]
pub struct Words {
    words: Vec<String>,
    pairs: Vec<(String, String)>,
}

impl Words {
    pub fn of(args: &[Argument]) -> Words {
        let mut words = Words { words: Vec::new(), pairs: Vec::new() };
        for arg in args {
            match arg {
                Argument::Positional(word) => words.words.push(word.clone()),
                Argument::KeyValue(key, value) => words.pairs.push((key.clone(), value.clone())),
                _ => unreachable!("goldenscript has no third kind"),
            }
        }
        words
    }

    fn split(text: &str) -> (String, Words) {
        let mut words = Words { words: Vec::new(), pairs: Vec::new() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => words.pairs.push((key.into(), value.into())),
                None => words.words.push(word.into()),
            }
        }
        let name = words.words.remove(0);
        (name, words)
    }

    pub fn next(&mut self) -> Parsed<String> {
        if self.words.is_empty() {
            return Err("a word is missing".into());
        }
        Ok(self.words.remove(0))
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.words.iter().position(|word| word == name);
        found.map(|at| self.words.remove(at)).is_some()
    }

    pub fn pair(&mut self, key: &str) -> Option<String> {
        let found = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(found).1)
    }

    pub fn number(&mut self, key: &str) -> Parsed<i64> {
        Ok(self.pair(key).map_or(Ok(0), |number| number.parse())?)
    }

    pub fn end(self) -> Parsed<()> {
        if self.words.is_empty() && self.pairs.is_empty() {
            return Ok(());
        }
        Err(format!("not understood: {:?} {:?}", self.words, self.pairs).into())
    }

    pub fn rest(&mut self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(&mut self.words).into_iter()
    }

    pub fn pairs(&mut self) -> impl Iterator<Item = (String, String)> + use<> {
        std::mem::take(&mut self.pairs).into_iter()
    }

    fn keys(&mut self) -> Parsed<KeyRange> {
        let start = Bytes::from(self.next()?);
        Ok(match (self.pair("end"), self.flag("from")) {
            (Some(end), _) => KeyRange::Span { start, end: end.into() },
            (None, true) => KeyRange::From(start),
            (None, false) => KeyRange::One(start),
        })
    }
}

/// `ID@EPOCH`
pub fn lease_at(text: &str) -> Parsed<LeaseRef> {
    let (id, epoch) = text.split_once('@').ok_or("a lease is ID@EPOCH")?;
    Ok(LeaseRef { id: LeaseId(id.parse()?), epoch: epoch.parse()? })
}

/// `ID@EPOCH=LEFT`
pub fn checkpoint((lease, left): (String, String)) -> Parsed<LeaseCheckpoint> {
    Ok(LeaseCheckpoint { lease: lease_at(&lease)?, remaining: left.parse()? })
}

/// `put KEY [VALUE] [lease=N] [prev_kv] [ignore_value] [ignore_lease]`
pub fn put(mut words: Words) -> Parsed<Put> {
    let put = Put {
        prev_kv: words.flag("prev_kv"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
        lease: LeaseId(words.number("lease")?),
        key: words.next()?.into(),
        value: words.next().unwrap_or_default().into(),
    };
    words.end()?;
    Ok(put)
}

/// `del KEY [end=KEY|from] [prev_kv]`
pub fn delete(mut words: Words) -> Parsed<DeleteRange> {
    let delete = DeleteRange { keys: words.keys()?, prev_kv: words.flag("prev_kv") };
    words.end()?;
    Ok(delete)
}

/// `get KEY [end=KEY|from] [rev=N] [limit=N] [sort=TARGET] [asc|desc] [keys_only] [count_only]
/// [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]`
pub fn range(mut words: Words) -> Parsed<Range> {
    let target = words.pair("sort").unwrap_or_default();
    let range = Range {
        keys: words.keys()?,
        limit: words.number("limit")?,
        revision: Revision(words.number("rev")?),
        sort_order: match (words.flag("asc"), words.flag("desc")) {
            (true, _) => SortOrder::Ascend,
            (_, true) => SortOrder::Descend,
            _ => SortOrder::None,
        },
        sort_target: match target.as_str() {
            "" | "key" => SortTarget::Key,
            "version" => SortTarget::Version,
            "create" => SortTarget::Create,
            "mod" => SortTarget::Mod,
            "value" => SortTarget::Value,
            _ => return Err(format!("no target: {target}").into()),
        },
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod_revision: Revision(words.number("min_mod")?),
        max_mod_revision: Revision(words.number("max_mod")?),
        min_create_revision: Revision(words.number("min_create")?),
        max_create_revision: Revision(words.number("max_create")?),
    };
    words.end()?;
    Ok(range)
}

/// `txn [if=COMPARE]... [then=OP]... [else=OP]...`; a nested one is named: `then="txn NAME"`.
pub fn txn(mut words: Words, named: impl Fn(&str) -> Option<Txn>) -> Parsed<Txn> {
    let mut txn = Txn::default();
    while let Some(text) = words.pair("if") {
        txn.compare.push(compare(&text)?);
    }
    while let Some(text) = words.pair("then") {
        txn.success.push(op(&text, &named)?);
    }
    while let Some(text) = words.pair("else") {
        txn.failure.push(op(&text, &named)?);
    }
    words.end()?;
    Ok(txn)
}

fn op(text: &str, named: &impl Fn(&str) -> Option<Txn>) -> Parsed<TxnOp> {
    let (name, mut words) = Words::split(text);
    Ok(match name.as_str() {
        "get" => TxnOp::Range(range(words)?),
        "put" => TxnOp::Put(put(words)?),
        "del" => TxnOp::DeleteRange(delete(words)?),
        "txn" => {
            let name = words.next()?;
            TxnOp::Txn(Box::new(named(&name).ok_or(format!("{name} is not defined"))?))
        }
        _ => return Err(format!("no operation: {name}").into()),
    })
}

/// `version(a)=1`, `value(a..c)!=x`, `mod(a..)>3`
fn compare(text: &str) -> Parsed<Compare> {
    let (target, rest) = text.split_once('(').ok_or("a comparison is target(keys)op value")?;
    let (keys, rest) = rest.split_once(')').ok_or("a comparison is target(keys)op value")?;
    let ops = [
        ("!=", CompareOp::NotEqual),
        ("=", CompareOp::Equal),
        (">", CompareOp::Greater),
        ("<", CompareOp::Less),
    ];
    let found = ops.iter().find_map(|(sign, op)| rest.strip_prefix(sign).map(|named| (*op, named)));
    let (op, named) = found.ok_or("no such operator")?;
    let keys = match keys.split_once("..") {
        None => KeyRange::One(keys.to_owned().into()),
        Some((start, "")) => KeyRange::From(start.to_owned().into()),
        Some((start, end)) => {
            KeyRange::Span { start: start.to_owned().into(), end: end.to_owned().into() }
        }
    };
    let target = match target {
        "version" => CompareTarget::Version(named.parse()?),
        "create" => CompareTarget::Create(Revision(named.parse()?)),
        "mod" => CompareTarget::Mod(Revision(named.parse()?)),
        "lease" => CompareTarget::Lease(LeaseId(named.parse()?)),
        "value" => CompareTarget::Value(named.to_owned().into()),
        _ => return Err(format!("no target: {target}").into()),
    };
    Ok(Compare { keys, op, target })
}
