//! Which keys a verb is about: one, a range, a prefix, or all from one on.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use bytes::Bytes;

use super::CtlError;
use crate::client::Keys;

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
    pub(crate) fn keys(&self) -> Keys {
        let key = self.key.as_bytes();
        match &self.range_end {
            Some(end) => Keys::range(key, end.as_bytes()),
            None if self.from_key => Keys::from(key),
            None if self.prefix => Keys::prefix(key),
            None => Keys::one(key),
        }
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

/// A lease id, in hexadecimal.
pub(crate) fn lease_id(text: &str) -> Result<i64, CtlError> {
    i64::from_str_radix(text, 16).map_err(|_| {
        CtlError::BadArguments(format!(
            "bad lease ID {text:?}: write it in hexadecimal, as in 694d77aa9e38260f"
        ))
    })
}
