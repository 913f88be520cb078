//! `kvctl watch`: tells what happens to keys.

mod command;
mod follow;
mod line;

use std::ffi::OsString;

use super::{CtlError, keys};
use crate::client::{Keys, Watch};

pub(crate) use self::follow::{Feed, follow};

/// Prints what happens to a key, a range or a prefix, until Ctrl-C.
///
/// When the member goes away, the watch goes on at the next of --endpoints, from where it was.
///
/// With a command after --, it is run for each event, and learns of it from its environment:
/// ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY, ETCD_WATCH_VALUE, the last three in
/// double quotes.
///
/// With -i, watches are read from standard input, a line each:
/// `watch [FLAGS] KEY [RANGE_END] [-- COMMAND…]`. The line `progress` asks how far they have come.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  kvctl watch --prefix config/ --rev 42 -- sh -c 'echo $ETCD_WATCH_KEY'"
)]
pub(crate) struct WatchArgs {
    /// The key, or the first of a range; KVCTL_WATCH_KEY, then ETCDCTL_WATCH_KEY, where not given
    #[arg(value_name = "KEY")]
    key: Option<OsString>,
    /// The end of the range, which is not part of it; KVCTL_WATCH_RANGE_END or
    /// ETCDCTL_WATCH_RANGE_END with the key from the environment
    #[arg(value_name = "RANGE_END")]
    range_end: Option<OsString>,
    /// All keys that start with KEY
    #[arg(long)]
    prefix: bool,
    /// Begin with the events of this revision; 0: with what comes next
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// Also print what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Print now and then how far the watch has come, even if nothing happens
    #[arg(long)]
    progress_notify: bool,
    /// Read watches from standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// What to run for each event
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What to watch, and what to run for each event.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    watch: Watch,
    /// Empty: nothing.
    command: Vec<OsString>,
}

impl WatchArgs {
    /// Refuses what does not fit together. Without a key in the arguments, it is `from_env`.
    fn plan(self, from_env: Option<&Keys>) -> Result<Plan, CtlError> {
        let keys = match (&self.key, &self.range_end, from_env) {
            (Some(_), _, Some(_)) => {
                return Err(bad_arguments(
                    "bad number of arguments (found conflicting environment key): unset \
                 ETCDCTL_WATCH_KEY, or leave out KEY",
                ));
            }
            (None, _, None) => {
                return Err(bad_arguments(
                    "bad number of arguments: name a key, as in kvctl watch KEY, or all keys with \
                 kvctl watch --prefix ''",
                ));
            }
            (Some(_), Some(_), None) if self.prefix => {
                return Err(bad_arguments("`range_end` and `--prefix` are mutually exclusive"));
            }
            (Some(key), Some(end), None) => Keys::range(bytes(key), bytes(end)),
            (Some(key), None, None) if self.prefix => Keys::prefix(bytes(key)),
            (Some(key), None, None) => Keys::one(bytes(key)),
            (None, _, Some(keys)) if self.prefix => Keys::prefix(keys.clone().bounds().0),
            (None, _, Some(keys)) => keys.clone(),
        };
        let mut watch = Watch::new(keys).from_revision(self.rev);
        if self.prev_kv {
            watch = watch.with_prev_kv();
        }
        if self.progress_notify {
            watch = watch.with_progress();
        }
        Ok(Plan { watch, command: self.command })
    }

    /// What to watch first, and what the environment says to watch where a line names no key.
    pub(crate) fn feed(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Feed, CtlError> {
        let from_env = keys_of_env(env)?;
        if self.interactive {
            return Ok(Feed { first: None, from_env });
        }
        Ok(Feed { first: Some(self.plan(from_env.as_ref())?), from_env })
    }
}

fn bytes(argument: &OsString) -> bytes::Bytes {
    keys::bytes(argument.clone())
}

fn keys_of_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Keys>, CtlError> {
    let either = |name: &str| {
        let value = env(&format!("KVCTL_{name}")).or_else(|| env(&format!("ETCDCTL_{name}")));
        value.filter(|value| !value.is_empty())
    };
    match (either("WATCH_KEY"), either("WATCH_RANGE_END")) {
        (Some(key), Some(end)) => Ok(Some(Keys::range(key, end))),
        (Some(key), None) => Ok(Some(Keys::one(key))),
        (None, Some(end)) => Err(bad_arguments(&format!(
            "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end:?}"
        ))),
        (None, None) => Ok(None),
    }
}

fn bad_arguments(text: &str) -> CtlError {
    CtlError::BadArguments(text.into())
}
