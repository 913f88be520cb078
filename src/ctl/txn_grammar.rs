//! The two kinds of lines of a transaction: compares and requests.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::{Parser, Subcommand};

use super::{args, del::DelArgs, get::GetArgs, gotext::unquote, put::PutArgs};
use crate::proto::etcdserverpb::{
    Compare, RequestOp,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

/// `mod("key") > "0"`
pub fn compare(line: &str) -> Result<Compare, String> {
    let malformed = |reason: &str| {
        format!("malformed comparison: {line} ({reason}; write it as in mod(\"key\") > \"0\")")
    };
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed("no opening parenthesis"))?;
    let (key, rest) =
        unquote(rest.trim_start()).ok_or_else(|| malformed("the key needs quotes"))?;
    let rest = rest.trim_start().strip_prefix(')');
    let rest = rest.ok_or_else(|| malformed("no closing parenthesis"))?.trim_start();
    let (result, rest) =
        operator(rest).ok_or_else(|| malformed("the operator is =, !=, > or <"))?;
    let (value, rest) =
        unquote(rest.trim_start()).ok_or_else(|| malformed("the value needs quotes"))?;
    if !rest.trim().is_empty() {
        return Err(malformed("something follows the value"));
    }
    let (target, union) = comparison(target.trim(), value).map_err(|reason| malformed(&reason))?;
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

fn operator(text: &str) -> Option<(CompareResult, &str)> {
    [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ]
    .into_iter()
    .find_map(|(sign, result)| Some((result, text.strip_prefix(sign)?)))
}

/// The target by its name, and the value that it is compared with.
fn comparison(target: &str, value: Vec<u8>) -> Result<(CompareTarget, TargetUnion), String> {
    let number = |radix| {
        let text = str::from_utf8(&value).ok();
        text.and_then(|text| i64::from_str_radix(text, radix).ok())
            .ok_or_else(|| format!("{target} is compared with a number"))
    };
    Ok(match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        _ => {
            return Err(format!(
                "unknown target {target}; use value, version, create, mod or lease"
            ));
        }
    })
}

/// A request, as on the command line.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct OperationLine {
    #[command(subcommand)]
    verb: OperationVerb,
}

#[derive(Debug, Subcommand)]
enum OperationVerb {
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
}

/// `put key "a value"`
pub fn operation(line: &str) -> Result<RequestOp, String> {
    let invalid =
        |reason: &dyn std::fmt::Display| format!("invalid txn request: {line} ({reason})");
    let words = words(line).map_err(|reason| invalid(&reason))?;
    let parsed =
        OperationLine::try_parse_from(words).map_err(|error| invalid(&args::first_line(&error)))?;
    let request = match parsed.verb {
        OperationVerb::Get(args) => Request::RequestRange(args.request()),
        OperationVerb::Put(args) => {
            Request::RequestPut(args.request(None).map_err(|error| invalid(&error))?)
        }
        OperationVerb::Del(args) => Request::RequestDeleteRange(args.request()),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Splits at white space. A word may be in single quotes (without escapes) or in double quotes (with
/// Go's escapes). Quotes within a word are part of it.
pub fn words(line: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' => {
                let quoted = rest[1..].split_once('\'');
                quoted.map(|(word, after)| (word.into(), after)).ok_or("a quote is not closed")?
            }
            '"' => unquote(rest).ok_or("a quote is not closed, or an escape in it is none")?,
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].into(), &rest[end..])
            }
        };
        words.push(OsString::from_vec(word));
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_etcdctl_splits_them() {
        let split = |line| {
            let words = words(line).unwrap();
            words.into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            split(r#"put k "a b\t" 'c "d'  e\ f"#),
            ["put", "k", "a b\t", "c \"d", "e\\", "f"]
        );
        assert_eq!(split(r#"put a"b "" x"y z"#), ["put", "a\"b", "", "x\"y", "z"]);
        assert!(words("put \"open").is_err() && words("put 'open").is_err());
    }
}
