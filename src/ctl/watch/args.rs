//! The arguments of a watch, on the command line and on the lines of `watch -i`.

use std::ffi::OsString;

use crate::{
    client::{Keys, Watch},
    ctl::{error::CtlError, keys},
};

/// Prints the events of a key, a range or a prefix, until Ctrl-C.
///
/// If the member is lost, the watch resumes at the next of --endpoints, after the last event.
///
/// A command after -- runs for each event. Its environment describes the event: ETCD_WATCH_REVISION,
/// and in double quotes ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE.
///
/// With -i, watches are read from standard input, one a line:
/// `watch [FLAGS] KEY [RANGE_END] [-- COMMAND…]`. The line `progress` requests a progress
/// notification.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  kvctl watch --prefix config/ --rev 42 -- sh -c 'echo $ETCD_WATCH_KEY'"
)]
pub struct WatchArgs {
    /// The key, or the first of a range [default: KVCTL_WATCH_KEY, then ETCDCTL_WATCH_KEY]
    #[arg(value_name = "KEY")]
    key: Option<OsString>,
    /// The end of the range, exclusive; for a key from the environment, KVCTL_WATCH_RANGE_END or
    /// ETCDCTL_WATCH_RANGE_END
    #[arg(value_name = "RANGE_END")]
    range_end: Option<OsString>,
    /// All keys that start with KEY
    #[arg(long)]
    prefix: bool,
    /// Start with the events of this revision; 0: with the next event
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// Also print the previous key and value
    #[arg(long)]
    prev_kv: bool,
    /// Print progress notifications while the watch is idle
    #[arg(long)]
    progress_notify: bool,
    /// Read watches from standard input
    #[arg(short, long)]
    interactive: bool,
    /// Command to run for each event
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A watch, and the command to run for each event.
#[derive(Debug, Clone)]
pub struct WatchSpec {
    pub watch: Watch,
    /// Empty: none.
    pub command: Vec<OsString>,
}

/// The watches to start.
#[derive(Debug)]
pub struct WatchSource {
    /// The only one. `None`: read them from standard input.
    pub only: Option<WatchSpec>,
    /// The keys of a line without a key.
    pub env_keys: Option<Keys>,
}

impl WatchArgs {
    /// Refuses contradicting arguments. Without a key in the arguments, it is `env_keys`.
    pub fn spec(self, env_keys: Option<&Keys>) -> Result<WatchSpec, CtlError> {
        let keys = match (&self.key, &self.range_end, env_keys) {
            (Some(_), _, Some(_)) => {
                return Err(bad_arguments(
                    "bad number of arguments (found conflicting environment key): unset \
                 ETCDCTL_WATCH_KEY, or leave out KEY",
                ));
            }
            (None, _, None) => {
                return Err(bad_arguments(
                    "bad number of arguments: pass a key, as in kvctl watch KEY, or all keys with \
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
        Ok(WatchSpec { watch, command: self.command })
    }

    pub fn source(
        self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<WatchSource, CtlError> {
        let env_keys = env_keys(variable)?;
        let only = match self.interactive {
            true => None,
            false => Some(self.spec(env_keys.as_ref())?),
        };
        Ok(WatchSource { only, env_keys })
    }
}

fn bytes(argument: &OsString) -> bytes::Bytes {
    keys::bytes(argument.clone())
}

fn env_keys(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Keys>, CtlError> {
    let either = |name: &str| {
        let ours = variable(&format!("KVCTL_{name}"));
        let value = ours.or_else(|| variable(&format!("ETCDCTL_{name}")));
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
