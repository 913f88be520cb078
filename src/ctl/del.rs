//! `kvctl del`: deletes keys.

use std::time::Duration;

use super::{gotext::quote, keys::KeyArgs};
use crate::proto::etcdserverpb::DeleteRangeRequest;

/// How long somebody at a terminal has to think again.
pub(crate) const SECOND_THOUGHT: Duration = Duration::from_secs(2);

/// Deletes a key, or a range of keys, and prints how many there were.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl del --prefix config/")]
pub(crate) struct DelArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// Also print what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Two arguments are meant as a range: do not ask for a second thought
    #[arg(long)]
    range: bool,
}

impl DelArgs {
    pub(crate) fn request(&self) -> DeleteRangeRequest {
        let (key, range_end) = self.keys.keys().bounds();
        DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv }
    }

    /// Two arguments are a range and not, as one might think, two keys: what to tell somebody at a
    /// terminal before it is done.
    pub(crate) fn warning(&self) -> Option<String> {
        let (from, to) = self.keys.explicit_range().filter(|_| !self.range)?;
        Some(format!(
            "Warning: all keys from {} up to {} will be deleted. Press Ctrl-C within {} seconds if \
             that is not meant; --range says that it is.",
            quote(&from),
            quote(&to),
            SECOND_THOUGHT.as_secs()
        ))
    }
}
