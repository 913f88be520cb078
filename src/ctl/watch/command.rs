//! The command that is run for each event.

use std::{ffi::OsString, process::Stdio};

use tokio::process::Command;

use super::answer::event_name;
use crate::{
    ctl::{error::CtlError, gotext::quote},
    proto::mvccpb::Event,
};

/// Runs the command and waits for its end. It inherits standard output and standard error.
pub async fn run(command: &[OsString], revision: i64, event: &Event) -> Result<(), CtlError> {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let status = Command::new(program)
        .args(args)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(event_name(event).as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(failed(command, &status.to_string().replace("exit status: ", "exit status ")))
        }
        Err(error) => Err(failed(command, &error.to_string())),
    }
}

/// In etcdctl's words.
fn failed(command: &[OsString], reason: &str) -> CtlError {
    let words: Vec<_> = command.iter().map(|word| quote(word.as_encoded_bytes())).collect();
    CtlError::Command(format!("command [{}] error ({reason})", words.join(" ")))
}
