//! `kvctl get`: reads keys.

use clap::ValueEnum;

use super::{CtlError, cli::Format, keys::KeyArgs};
use crate::proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

/// Reads a key, or a range of keys.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl get --prefix config/ --limit 10")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// What to sort by: CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        hide_possible_values = true,
        value_name = "TARGET"
    )]
    sort_by: Option<SortBy>,
    /// ASCEND or DESCEND
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true, value_name = "ORDER")]
    order: Option<Order>,
    /// At most so many keys; 0: all
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    limit: i64,
    /// Read the store as it was at this revision; 0: as it is
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// l: what a majority agrees on; s: what the asked member has, be it old
    #[arg(long, value_enum, default_value = "l", hide_possible_values = true, value_name = "l|s")]
    consistency: Consistency,
    /// Leave out the values
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are; with -w fields or json
    #[arg(long, conflicts_with = "keys_only")]
    count_only: bool,
    /// Leave out the keys; with -w simple
    #[arg(long)]
    pub(super) print_value_only: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SortBy {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Consistency {
    L,
    S,
}

impl GetArgs {
    /// Refuses, before anything is sent, what the format cannot show.
    pub(crate) fn check(&self, format: Format) -> Result<(), CtlError> {
        if self.count_only && !matches!(format, Format::Fields | Format::Json) {
            return Err(CtlError::BadArguments(
                "--count-only is only for --write-out=fields or json".into(),
            ));
        }
        if self.print_value_only && format != Format::Simple {
            return Err(CtlError::BadArguments(
                "--print-value-only is only for --write-out=simple".into(),
            ));
        }
        Ok(())
    }

    pub(crate) fn request(&self) -> RangeRequest {
        let (key, range_end) = self.keys.keys().bounds();
        let order = match self.order {
            None => SortOrder::None,
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
        };
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
            Some(SortBy::Version) => SortTarget::Version,
        };
        RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        }
    }
}
