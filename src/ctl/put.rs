//! `kvctl put`: writes a key.

use std::{ffi::OsString, io::Read};

use bytes::Bytes;

use super::{error::CtlError, keys};
use crate::proto::etcdserverpb::PutRequest;

/// Writes a key. Without VALUE the value is read from standard input.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl put greeting hello\n\n\
    A value that begins with '-' goes after '--': kvctl put temperature -- -5")]
pub struct PutArgs {
    #[arg(value_name = "KEY")]
    key: OsString,
    #[arg(value_name = "VALUE", conflicts_with = "ignore_value")]
    value: Option<OsString>,
    /// Lease of the key (hexadecimal); 0: none
    #[arg(long, default_value = "0", value_name = "ID")]
    lease: String,
    /// Also print the previous key and value
    #[arg(long)]
    prev_kv: bool,
    /// Keep the current value
    #[arg(long)]
    ignore_value: bool,
    /// Keep the current lease
    #[arg(long)]
    ignore_lease: bool,
}

impl PutArgs {
    /// Reads a missing value from `stdin`. `None`: a missing value is an error.
    pub fn request(self, stdin: Option<&mut dyn Read>) -> Result<PutRequest, CtlError> {
        let value = match (self.value, stdin) {
            (Some(value), _) => keys::bytes(value),
            (None, _) if self.ignore_value => Bytes::new(),
            (None, stdin) => read_value(stdin)?,
        };
        Ok(PutRequest {
            key: keys::bytes(self.key),
            value,
            lease: keys::lease_id(&self.lease)?,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// All of standard input. Empty input is refused: a broken pipe is more likely than an empty value.
fn read_value(stdin: Option<&mut dyn Read>) -> Result<Bytes, CtlError> {
    let Some(stdin) = stdin else {
        return Err(CtlError::BadArguments("a put in a transaction needs its value".into()));
    };
    let mut value = Vec::new();
    stdin.read_to_end(&mut value)?;
    if value.is_empty() {
        return Err(CtlError::BadArguments(
            "put needs a value: kvctl put KEY VALUE, or the value on standard input \
             (for an empty one write kvctl put KEY '')"
                .into(),
        ));
    }
    Ok(value.into())
}
