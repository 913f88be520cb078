//! The requests of scripts: `put a 1 prev_kv`, `get a end=c sort=mod desc`, `if="value(a..c)>x"`.
//!
//! The grammar covers every message, also senseless ones: an enum may be an unknown number, a key
//! may be empty. Each character of a key or value is one byte, so that `"\xff"` is 255.

use std::{collections::BTreeMap, error::Error};

use bytes::Bytes;
use goldenscript::Argument;
use ordinal::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::TargetUnion, request_op::Request,
};

pub type Parsed<T> = Result<T, Box<dyn Error>>;

/// Names that a script defines.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// `now`: the newest revision in the answers so far.
    pub revision: i64,
    pub leases: BTreeMap<String, i64>,
    pub txns: BTreeMap<String, TxnRequest>,
}

impl Names {
    /// `7`, `now`, `now-2`, `now+1`, or the name of a lease.
    fn number(&self, text: &str) -> Parsed<i64> {
        if let Ok(number) = text.parse() {
            return Ok(number);
        }
        if let Some(offset) = text.strip_prefix("now") {
            let offset: i64 = if offset.is_empty() { 0 } else { offset.parse()? };
            return Ok(self.revision + offset);
        }
        let lease = self.leases.get(text).ok_or_else(|| format!("{text} is not a number"))?;
        Ok(*lease)
    }
}

/// The arguments of a command: words, and `key=value` pairs.
#[derive(Debug)]
pub struct Words<'a> {
    names: &'a Names,
    words: Vec<String>,
    pairs: Vec<(String, String)>,
}

impl<'a> Words<'a> {
    pub fn of(names: &'a Names, args: &[Argument]) -> Words<'a> {
        let mut words = Words { names, words: Vec::new(), pairs: Vec::new() };
        for arg in args {
            match arg {
                Argument::Positional(word) => words.words.push(word.clone()),
                Argument::KeyValue(key, value) => words.pairs.push((key.clone(), value.clone())),
                _ => unreachable!("goldenscript has no third kind"),
            }
        }
        words
    }

    /// An operation of a transaction, in quotes. Its words may have single quotes.
    fn split(names: &'a Names, text: &str) -> (String, Words<'a>) {
        let mut words = Words { names, words: Vec::new(), pairs: Vec::new() };
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some((key, value)) => words.pairs.push((key.into(), unquoted(value))),
                None => words.words.push(unquoted(word)),
            }
        }
        let name = words.next().unwrap_or_default();
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

    /// Absent: zero, as on the wire.
    pub fn number(&mut self, key: &str) -> Parsed<i64> {
        self.pair(key).map_or(Ok(0), |text| self.names.number(&text))
    }

    pub fn next_number(&mut self) -> Parsed<i64> {
        let text = self.next()?;
        self.names.number(&text)
    }

    /// One of these names, or a number.
    fn one_of(&mut self, key: &str, names: &[&str]) -> Parsed<i32> {
        let Some(text) = self.pair(key) else { return Ok(0) };
        if let Some(at) = names.iter().position(|name| *name == text) {
            return Ok(at as i32);
        }
        Ok(text.parse()?)
    }

    pub fn end(self) -> Parsed<()> {
        if self.words.is_empty() && self.pairs.is_empty() {
            return Ok(());
        }
        Err(format!("not understood: {:?} {:?}", self.words, self.pairs).into())
    }

    /// `KEY [end=KEY|from]`
    pub fn keys(&mut self) -> Parsed<(Bytes, Bytes)> {
        let range_end = match self.pair("end") {
            Some(end) => bytes(&end)?,
            None if self.flag("from") => Bytes::from_static(b"\0"),
            None => Bytes::new(),
        };
        Ok((bytes(&self.next()?)?, range_end))
    }
}

fn unquoted(word: &str) -> String {
    let inner = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inner.unwrap_or(word).into()
}

fn bytes(text: &str) -> Parsed<Bytes> {
    let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    Ok(bytes?.into())
}

/// `put KEY [VALUE] [size=BYTES] [lease=ID] [prev_kv] [ignore_value] [ignore_lease]`
pub fn put(mut words: Words) -> Parsed<PutRequest> {
    let put = PutRequest {
        prev_kv: words.flag("prev_kv"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
        lease: words.number("lease")?,
        key: bytes(&words.next()?)?,
        value: match words.number("size")? {
            0 => bytes(&words.next().unwrap_or_default())?,
            size => vec![b'x'; usize::try_from(size)?].into(),
        },
    };
    words.end()?;
    Ok(put)
}

/// `del KEY [end=KEY|from] [prev_kv]`
pub fn delete(mut words: Words) -> Parsed<DeleteRangeRequest> {
    let (key, range_end) = words.keys()?;
    let delete = DeleteRangeRequest { key, range_end, prev_kv: words.flag("prev_kv") };
    words.end()?;
    Ok(delete)
}

/// `get KEY [end=KEY|from] [rev=N] [limit=N] [sort=TARGET] [asc|desc|order=N] [serializable]
/// [keys_only] [count_only] [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]`
pub fn range(mut words: Words) -> Parsed<RangeRequest> {
    let sort_order = match (words.flag("asc"), words.flag("desc")) {
        (true, _) => 1,
        (_, true) => 2,
        _ => words.one_of("order", &[])?,
    };
    let range = RangeRequest {
        sort_order,
        sort_target: words.one_of("sort", &["key", "version", "create", "mod", "value"])?,
        serializable: words.flag("serializable"),
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        limit: words.number("limit")?,
        revision: words.number("rev")?,
        min_mod_revision: words.number("min_mod")?,
        max_mod_revision: words.number("max_mod")?,
        min_create_revision: words.number("min_create")?,
        max_create_revision: words.number("max_create")?,
        ..RangeRequest::default()
    };
    let (key, range_end) = words.keys()?;
    words.end()?;
    Ok(RangeRequest { key, range_end, ..range })
}

/// `txn [if=COMPARE]... [then=OP]... [else=OP]... [times=N]`
///
/// A nested transaction is defined before, and named: `then="txn NAME"`. With `times`, each `then`
/// is repeated that many times, with 0, 1 and so on in place of `#`.
pub fn txn(mut words: Words) -> Parsed<TxnRequest> {
    let mut txn = TxnRequest::default();
    while let Some(text) = words.pair("if") {
        txn.compare.push(compare(words.names, &text)?);
    }
    let times = words.number("times")?;
    while let Some(text) = words.pair("then") {
        match times {
            0 => txn.success.push(op(words.names, &text)?),
            _ => {
                for n in 0..times {
                    txn.success.push(op(words.names, &text.replace('#', &n.to_string()))?);
                }
            }
        }
    }
    while let Some(text) = words.pair("else") {
        txn.failure.push(op(words.names, &text)?);
    }
    words.end()?;
    Ok(txn)
}

fn op(names: &Names, text: &str) -> Parsed<RequestOp> {
    let (name, mut words) = Words::split(names, text);
    let request = match name.as_str() {
        "get" => Some(Request::RequestRange(range(words)?)),
        "put" => Some(Request::RequestPut(put(words)?)),
        "del" => Some(Request::RequestDeleteRange(delete(words)?)),
        "txn" => {
            let name = words.next()?;
            let txn = names.txns.get(&name).ok_or_else(|| format!("{name} is not defined"))?;
            Some(Request::RequestTxn(txn.clone()))
        }
        "nothing" => None,
        _ => return Err(format!("no operation: {name}").into()),
    };
    Ok(RequestOp { request })
}

const TARGETS: [&str; 5] = ["version", "create", "mod", "value", "lease"];
const RESULTS: [&str; 4] = ["=", ">", "<", "!="];

/// `version(a)=1`, `value(a..c)!=x`, `mod(a..)>3`
///
/// The target may be a number, and may differ from the compared field: `7/value(a)=x`,
/// `value/none(a)=`. The operator may be a number, too: `version(a)~9~1`.
fn compare(names: &Names, text: &str) -> Parsed<Compare> {
    const FORM: &str = "a comparison is target(keys)op value";
    let (target, rest) = text.split_once('(').ok_or(FORM)?;
    let (keys, rest) = rest.split_once(')').ok_or(FORM)?;
    let (target, named) = target.split_once('/').unwrap_or((target, target));
    let (result, value) = match rest.strip_prefix('~') {
        Some(rest) => {
            let (number, value) = rest.split_once('~').ok_or(FORM)?;
            (number.parse()?, value)
        }
        None => {
            let found = RESULTS.iter().enumerate().find_map(|(result, sign)| {
                rest.strip_prefix(sign).map(|value| (result as i32, value))
            });
            found.ok_or("no such operator")?
        }
    };
    let target_union = match named {
        "version" => Some(TargetUnion::Version(names.number(value)?)),
        "create" => Some(TargetUnion::CreateRevision(names.number(value)?)),
        "mod" => Some(TargetUnion::ModRevision(names.number(value)?)),
        "lease" => Some(TargetUnion::Lease(names.number(value)?)),
        "value" => Some(TargetUnion::Value(bytes(value)?)),
        _ => None,
    };
    let target = match TARGETS.iter().position(|name| *name == target) {
        Some(at) => at as i32,
        None => target.parse()?,
    };
    let (key, range_end) = match keys.split_once("..") {
        None => (keys, String::new()),
        Some((key, "")) => (key, "\0".into()),
        Some((key, end)) => (key, end.into()),
    };
    Ok(Compare { result, target, key: bytes(key)?, range_end: bytes(&range_end)?, target_union })
}
