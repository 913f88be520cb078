//! `kvctl get`: reads keys.

use clap::ValueEnum;

use super::{error::CtlError, keys::KeyArgs, print::Format};
use crate::proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

/// Reads a key, or a range of keys.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl get --prefix config/ --limit 10")]
pub struct GetArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// Sort key: CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        hide_possible_values = true,
        value_name = "TARGET"
    )]
    sort_by: Option<SortBy>,
    /// Sort order: ASCEND or DESCEND
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true, value_name = "ORDER")]
    order: Option<Order>,
    /// Maximum number of keys; 0: no limit
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    limit: i64,
    /// Read at this revision; 0: the latest
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// l: linearizable; s: serializable, from the called member, possibly stale
    #[arg(long, value_enum, default_value = "l", hide_possible_values = true, value_name = "l|s")]
    consistency: Consistency,
    /// Print keys without values
    #[arg(long)]
    keys_only: bool,
    /// Print only the number of keys; with -w fields or json
    #[arg(long, conflicts_with = "keys_only")]
    count_only: bool,
    /// Print values without keys; with -w simple
    #[arg(long)]
    pub print_value_only: bool,
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
    /// Refuses flags that the format cannot show.
    pub fn check(&self, format: Format) -> Result<(), CtlError> {
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

    pub fn request(&self) -> RangeRequest {
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
