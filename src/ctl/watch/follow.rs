//! Follows watches: one, or those that lines of standard input ask for.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io::{self, BufRead},
    task::Poll,
};

use tokio::{select, sync::mpsc};

use super::{
    CtlError, Plan, command,
    line::{self, Line},
};
use crate::{
    client::{Client, ClientError, Keys, Notice, WatchError, Watcher},
    ctl::{
        print::{Answer, WatchAnswer},
        screen::Screen,
    },
    lane::Lanes,
    proto::etcdserverpb::ResponseHeader,
};

/// Where watches come from.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The only one; `None`: standard input names them.
    pub(super) first: Option<Plan>,
    /// What is watched where a line names no key.
    pub(super) from_env: Option<Keys>,
}

/// A watch, and what to run for each of its events.
struct Running {
    watcher: Watcher,
    plan: Plan,
}

/// Prints what happens, for ever.
pub(crate) async fn follow(
    feed: Feed,
    stdin: Box<dyn BufRead + Send>,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Infallible, CtlError> {
    let Feed { first, from_env } = feed;
    let interactive = first.is_none();
    let mut running = Vec::new();
    if let Some(plan) = first {
        running.push(begin(client, plan, screen).await?);
    }
    let (lines, mut asked) = mpsc::channel(1);
    let reading = async {
        if interactive {
            Lanes::Threads.run("stdin", move || read_lines(stdin, &lines)).await?;
        }
        pending::<io::Result<()>>().await
    };
    tokio::pin!(reading);
    loop {
        select! {
            failed = &mut reading => failed?,
            asked = asked.recv(), if interactive => match asked.transpose()? {
                Some(line) => obey(&line, from_env.as_ref(), &mut running, client, screen).await?,
                None => return Err(CtlError::InvalidInput(
                    "error reading watch request line: EOF".into(),
                )),
            },
            (at, told) = any(&mut running) => match told {
                Ok(notice) => tell(notice, &running[at].plan, screen).await?,
                Err(error) => {
                    running.remove(at);
                    let error = canceled(error, screen)?;
                    if !interactive {
                        return Err(error);
                    }
                    screen.complain(&error.to_string())?;
                }
            },
        }
    }
}

/// Hands over each line; ends with the input, or when nobody listens.
fn read_lines(stdin: Box<dyn BufRead + Send>, lines: &mpsc::Sender<io::Result<String>>) {
    for line in stdin.lines() {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// What the first of the watches tells that has something to tell.
async fn any(running: &mut [Running]) -> (usize, Result<Notice, WatchError>) {
    poll_fn(|context| {
        for (at, running) in running.iter_mut().enumerate() {
            if let Poll::Ready(told) = running.watcher.poll_notice(context) {
                return Poll::Ready((at, told));
            }
        }
        Poll::Pending
    })
    .await
}

async fn begin(client: &Client, plan: Plan, screen: &mut Screen<'_>) -> Result<Running, CtlError> {
    match client.watch(plan.watch.clone()).await {
        Ok(watcher) => Ok(Running { watcher, plan }),
        Err(error) => Err(canceled(error, screen)?),
    }
}

async fn obey(
    line: &str,
    from_env: Option<&Keys>,
    running: &mut Vec<Running>,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CtlError> {
    match line::parse(line, from_env) {
        Err(why) => screen.complain(&why)?,
        Ok(Line::Progress) => running.iter().for_each(|r| r.watcher.request_progress()),
        Ok(Line::Watch(plan)) => match begin(client, plan, screen).await {
            Ok(begun) => running.push(begun),
            // Other watches go on.
            Err(error @ (CtlError::WatchCanceled(_) | CtlError::WatchCompacted { .. })) => {
                screen.complain(&error.to_string())?;
            }
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

async fn tell(notice: Notice, plan: &Plan, screen: &mut Screen<'_>) -> Result<(), CtlError> {
    match notice {
        Notice::Events(batch) => {
            let revision = batch.header.revision;
            let answer = WatchAnswer { header: batch.header, events: batch.events, canceled: None };
            screen.print(&Answer::Watch(answer.clone()))?;
            for event in &answer.events {
                command::run(&plan.command, revision, event).await?;
            }
        }
        Notice::Progress(header) => {
            screen.say(&format!("progress notify: {}", header.revision))?;
            screen.print(&Answer::Watch(WatchAnswer::empty(header)))?;
        }
        Notice::Interrupted { error, from } => {
            let error = match error {
                // Advice for who begins would be wrong here.
                ClientError::Unreachable(all) => all[0].to_string(),
                error => error.to_string(),
            };
            screen.complain(&format!(
                "watch interrupted ({error}); going on from revision {from} as soon as an endpoint answers"
            ))?;
        }
        Notice::Resumed { endpoint } => {
            screen.complain(&format!("watch resumed at {endpoint}"))?;
        }
    }
    Ok(())
}

/// Prints that a watch has ended as etcdctl does, and gives the error that says what to do.
fn canceled(error: WatchError, screen: &mut Screen<'_>) -> Result<CtlError, CtlError> {
    let mut say = |header: ResponseHeader, compact_revision: i64, reason: &str| {
        screen.complain(&format!("watch was canceled ({reason})"))?;
        let canceled = Some(compact_revision);
        screen.print(&Answer::Watch(WatchAnswer { header, events: vec![], canceled }))
    };
    Ok(match error {
        WatchError::Compacted { header, from, compact_revision } => {
            say(
                header,
                compact_revision,
                "etcdserver: mvcc: required revision has been compacted",
            )?;
            CtlError::WatchCompacted { from, compact_revision }
        }
        WatchError::Canceled { header, reason } => {
            say(header, 0, &reason)?;
            CtlError::WatchCanceled(reason)
        }
        WatchError::Client(error) => CtlError::Client(error),
    })
}
