//! `kvctl compaction`: forgets history.

use crate::proto::etcdserverpb::CompactionRequest;

/// Forgets all history before a revision. Reads and watches from before it fail afterwards.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl compaction 1000")]
pub(crate) struct CompactionArgs {
    /// The oldest revision that can still be read
    revision: i64,
    /// Answer only once the space is free
    #[arg(long)]
    physical: bool,
}

impl CompactionArgs {
    pub(crate) fn request(&self) -> CompactionRequest {
        CompactionRequest { revision: self.revision, physical: self.physical }
    }
}
