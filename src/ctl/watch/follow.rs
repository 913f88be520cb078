//! Follows watches: the one of the command line, or those of the lines of standard input.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io::{self, BufRead},
    task::Poll,
};

use tokio::{select, sync::mpsc};

use super::{
    answer::WatchAnswer,
    args::{WatchSource, WatchSpec},
    command,
    line::{self, Line},
};
use crate::{
    client::{Client, ClientError, Keys, WatchError, WatchUpdate, Watcher},
    ctl::{error::CtlError, output::Output},
    lane::Lanes,
    proto::etcdserverpb::ResponseHeader,
};

struct RunningWatch {
    watcher: Watcher,
    spec: WatchSpec,
}

/// Prints events until an error.
pub async fn follow(
    source: WatchSource,
    stdin: Box<dyn BufRead + Send>,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<Infallible, CtlError> {
    let WatchSource { only, env_keys } = source;
    let interactive = only.is_none();
    let mut running = Vec::new();
    if let Some(spec) = only {
        running.push(start(client, spec, output).await?);
    }
    let (sender, mut lines) = mpsc::channel(1);
    let reading = async {
        if interactive {
            Lanes::Threads.run("stdin", move || read_lines(stdin, &sender)).await?;
        }
        pending::<io::Result<()>>().await
    };
    tokio::pin!(reading);
    loop {
        select! {
            failed = &mut reading => failed?,
            line = lines.recv(), if interactive => match line.transpose()? {
                Some(line) => {
                    run_line(&line, env_keys.as_ref(), &mut running, client, output).await?;
                }
                None => return Err(CtlError::InvalidInput(
                    "error reading watch request line: EOF".into(),
                )),
            },
            (at, update) = next_update(&mut running) => match update {
                Ok(update) => print_update(update, &running[at].spec, output).await?,
                Err(error) => {
                    running.remove(at);
                    let error = print_canceled(error, output)?;
                    if !interactive {
                        return Err(error);
                    }
                    output.print_error(&error.to_string())?;
                }
            },
        }
    }
}

/// Sends each line. Ends with the input, or with the receiver.
fn read_lines(stdin: Box<dyn BufRead + Send>, lines: &mpsc::Sender<io::Result<String>>) {
    for line in stdin.lines() {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// The next update of any watch, and the watch's position.
async fn next_update(running: &mut [RunningWatch]) -> (usize, Result<WatchUpdate, WatchError>) {
    poll_fn(|context| {
        for (at, running) in running.iter_mut().enumerate() {
            if let Poll::Ready(update) = running.watcher.poll_update(context) {
                return Poll::Ready((at, update));
            }
        }
        Poll::Pending
    })
    .await
}

async fn start(
    client: &Client,
    spec: WatchSpec,
    output: &mut Output<'_>,
) -> Result<RunningWatch, CtlError> {
    match client.watch(spec.watch.clone()).await {
        Ok(watcher) => Ok(RunningWatch { watcher, spec }),
        Err(error) => Err(print_canceled(error, output)?),
    }
}

async fn run_line(
    line: &str,
    env_keys: Option<&Keys>,
    running: &mut Vec<RunningWatch>,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    match line::parse(line, env_keys) {
        Err(error) => output.print_error(&error)?,
        Ok(Line::Progress) => running.iter().for_each(|r| r.watcher.request_progress()),
        Ok(Line::Watch(spec)) => match start(client, spec, output).await {
            Ok(started) => running.push(started),
            // Other watches continue.
            Err(error @ (CtlError::WatchCanceled(_) | CtlError::WatchCompacted { .. })) => {
                output.print_error(&error.to_string())?;
            }
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

async fn print_update(
    update: WatchUpdate,
    spec: &WatchSpec,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    match update {
        WatchUpdate::Events(batch) => {
            let revision = batch.header.revision;
            let answer = WatchAnswer { header: batch.header, events: batch.events, canceled: None };
            output.print(&answer)?;
            for event in &answer.events {
                command::run(&spec.command, revision, event).await?;
            }
        }
        WatchUpdate::Progress(header) => {
            output.print_line(&format!("progress notify: {}", header.revision))?;
            output.print(&WatchAnswer::empty(header))?;
        }
        WatchUpdate::Interrupted { error, from } => {
            let error = match error {
                // Without the advice for a first connection.
                ClientError::Unreachable(all) => all[0].to_string(),
                error => error.to_string(),
            };
            output.print_error(&format!(
                "watch interrupted ({error}); going on from revision {from} as soon as an endpoint answers"
            ))?;
        }
        WatchUpdate::Resumed { endpoint } => {
            output.print_error(&format!("watch resumed at {endpoint}"))?;
        }
    }
    Ok(())
}

/// Prints the end of a watch as etcdctl does, and returns the error with the next step.
fn print_canceled(error: WatchError, output: &mut Output<'_>) -> Result<CtlError, CtlError> {
    let mut print = |header: ResponseHeader, compact_revision: i64, reason: &str| {
        output.print_error(&format!("watch was canceled ({reason})"))?;
        let canceled = Some(compact_revision);
        output.print(&WatchAnswer { header, events: vec![], canceled })
    };
    Ok(match error {
        WatchError::Compacted { header, from, compact_revision } => {
            print(
                header,
                compact_revision,
                "etcdserver: mvcc: required revision has been compacted",
            )?;
            CtlError::WatchCompacted { from, compact_revision }
        }
        WatchError::Canceled { header, reason } => {
            print(header, 0, &reason)?;
            CtlError::WatchCanceled(reason)
        }
        WatchError::Client(error) => CtlError::Client(error),
    })
}
