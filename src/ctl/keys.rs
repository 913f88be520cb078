//! Which keys a verb is about: one, a range, a prefix, or all from one on.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use bytes::Bytes;

use super::CtlError;

/// The end of a range that has none.
const OPEN_END: &[u8] = b"\0";

/// The key arguments that `get` and `del` share.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// The key, or the first of a range
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The end of the range, which is not part of it
    #[arg(value_name = "RANGE_END")]
    range_end: Option<OsString>,
    /// All keys that start with KEY
    #[arg(long, conflicts_with = "range_end")]
    prefix: bool,
    /// All keys that are KEY or come after it
    #[arg(long, conflicts_with_all = ["range_end", "prefix"])]
    from_key: bool,
}

impl KeyArgs {
    /// `key` and `range_end` of a request.
    pub(crate) fn bounds(&self) -> (Bytes, Bytes) {
        let key = bytes(self.key.clone());
        let all = key.is_empty() && (self.prefix || self.from_key);
        if all {
            return (OPEN_END.into(), OPEN_END.into());
        }
        let end = match &self.range_end {
            Some(end) => bytes(end.clone()),
            None if self.from_key => OPEN_END.into(),
            None if self.prefix => prefix_end(&key),
            None => Bytes::new(),
        };
        (key, end)
    }

    /// Both ends, when they were given as two arguments.
    pub(crate) fn explicit_range(&self) -> Option<(Bytes, Bytes)> {
        let end = self.range_end.clone()?;
        Some((bytes(self.key.clone()), bytes(end)))
    }
}

/// An argument as it was typed: keys and values need not be text.
pub(crate) fn bytes(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

/// The first key that is after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => OPEN_END.into(),
    }
}

/// A lease id, in hexadecimal.
pub(crate) fn lease_id(text: &str) -> Result<i64, CtlError> {
    i64::from_str_radix(text, 16).map_err(|_| {
        CtlError::BadArguments(format!(
            "bad lease ID {text:?}: write it in hexadecimal, as in 694d77aa9e38260f"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), OPEN_END);
    }
}
