//! The key arguments of verbs: one key, a range, a prefix, or all keys from one on.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use bytes::Bytes;

use super::error::CtlError;
use crate::client::Keys;

/// The key arguments that `get` and `del` share.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyArgs {
    /// The key, or the first of a range
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The end of the range, exclusive
    #[arg(value_name = "RANGE_END")]
    range_end: Option<OsString>,
    /// All keys that start with KEY
    #[arg(long, conflicts_with = "range_end")]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long, conflicts_with_all = ["range_end", "prefix"])]
    from_key: bool,
}

impl KeyArgs {
    pub fn keys(&self) -> Keys {
        let key = self.key.as_bytes();
        match &self.range_end {
            Some(end) => Keys::range(key, end.as_bytes()),
            None if self.from_key => Keys::from(key),
            None if self.prefix => Keys::prefix(key),
            None => Keys::one(key),
        }
    }

    /// Both ends of a range that was given as two arguments.
    pub fn explicit_range(&self) -> Option<(Bytes, Bytes)> {
        let end = self.range_end.clone()?;
        Some((bytes(self.key.clone()), bytes(end)))
    }
}

/// The bytes of an argument: keys and values need not be UTF-8.
pub fn bytes(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

/// A lease id, in hexadecimal.
pub fn lease_id(text: &str) -> Result<i64, CtlError> {
    i64::from_str_radix(text, 16).map_err(|_| {
        CtlError::BadArguments(format!(
            "bad lease ID {text:?}: write it in hexadecimal, as in 694d77aa9e38260f"
        ))
    })
}
