//! `kvctl del`: deletes keys.

use std::time::Duration;

use super::{gotext::quote, keys::KeyArgs};
use crate::proto::etcdserverpb::DeleteRangeRequest;

/// The time for Ctrl-C after a warning.
pub const WARNING_PAUSE: Duration = Duration::from_secs(2);

/// Deletes a key, or a range of keys, and prints the number of deleted keys.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl del --prefix config/")]
pub struct DelArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// Also print the deleted keys and values
    #[arg(long)]
    prev_kv: bool,
    /// Two arguments are a range: print no warning
    #[arg(long)]
    range: bool,
}

impl DelArgs {
    pub fn request(&self) -> DeleteRangeRequest {
        let (key, range_end) = self.keys.keys().bounds();
        DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv }
    }

    /// The warning, at a terminal, that two arguments are a range and not two keys.
    pub fn warning(&self) -> Option<String> {
        let (from, to) = self.keys.explicit_range().filter(|_| !self.range)?;
        Some(format!(
            "Warning: deleting all keys from {} up to {}. Press Ctrl-C within {} seconds to cancel; \
             --range skips this warning.",
            quote(&from),
            quote(&to),
            WARNING_PAUSE.as_secs()
        ))
    }
}
