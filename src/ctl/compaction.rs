//! `kvctl compaction`: discards history.

use super::{
    error::CtlError,
    print::{Answer, Format, Rendered, ValueStyle},
};
use crate::proto::etcdserverpb::CompactionRequest;

/// Discards the history before a revision. Reads and watches at older revisions fail afterwards.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl compaction 1000")]
pub struct CompactionArgs {
    /// The oldest revision that stays readable
    revision: i64,
    /// Return only after the space is free
    #[arg(long)]
    physical: bool,
}

impl CompactionArgs {
    pub fn request(&self) -> CompactionRequest {
        CompactionRequest { revision: self.revision, physical: self.physical }
    }
}

#[derive(Debug, Clone)]
pub struct Compacted {
    pub revision: i64,
}

/// The same line in every format, as in etcdctl.
impl Answer for Compacted {
    fn simple(&self, style: ValueStyle) -> Rendered {
        Rendered::stdout(self.json(style) + "\n")
    }

    fn json(&self, _: ValueStyle) -> String {
        format!("compacted revision {}", self.revision)
    }

    fn render(&self, _: Format, style: ValueStyle) -> Result<Rendered, CtlError> {
        Ok(self.simple(style))
    }
}
