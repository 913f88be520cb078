//! The background tasks of a serving member, and their owner.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use super::{context::MemberContext, stack::MemberStack};
use crate::{
    lane::Lanes,
    membership::{DataDir, Identity, MembershipReconciler},
    node::{Node, NodePort},
    shutdown::{Shutdown, ShutdownSignal},
    types::{Command, MemberAttributes},
    wal::{DiskSpace, Log},
};

/// Wait between two attempts to publish the member's attributes.
const PUBLISH_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Owns the background tasks: they run until [`BackgroundTasks::stop`], or until this is dropped.
#[derive(Debug)]
pub struct BackgroundTasks {
    stop: Shutdown,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl BackgroundTasks {
    pub fn spawn(
        context: &MemberContext,
        identity: &Identity,
        stack: &MemberStack,
        reconciler: &Arc<MembershipReconciler<Node>>,
    ) -> BackgroundTasks {
        let stop = Shutdown::default();
        let shutdown = || stop.signal();
        let attributes = context.config.attributes(identity);
        let publish = publish_attributes(stack.node.clone(), attributes, shutdown());
        let dir = context.bootstrap.data_dir().clone();
        let archive = drop_archive_when_full(stack.log.clone(), dir, context.lanes, shutdown());
        let leader = context.config.pod.as_ref().map(|pod| pod.leader.clone());
        let tasks = vec![
            ("publish-attributes", tokio::spawn(publish)),
            ("archive", tokio::spawn(archive)),
            ("membership", {
                let (reconciler, shutdown) = (reconciler.clone(), shutdown());
                tokio::spawn(async move { reconciler.run(shutdown).await })
            }),
            ("statefulset", {
                let (reconciler, shutdown) = (reconciler.clone(), shutdown());
                tokio::spawn(async move { reconciler.follow_pods(shutdown).await })
            }),
            ("publish-leader", {
                let (reconciler, shutdown) = (reconciler.clone(), shutdown());
                tokio::spawn(async move {
                    if let Some(leader) = leader {
                        reconciler.publish_leader(leader, shutdown).await;
                    }
                })
            }),
        ];
        BackgroundTasks { stop, tasks }
    }

    /// Stops the tasks and joins them.
    pub async fn stop(self) {
        self.stop.trigger();
        for (task, handle) in self.tasks {
            if let Err(error) = handle.await {
                tracing::error!(task, %error, "task failed");
            }
        }
    }
}

/// Deletes the archived data of a removed member once the volume is short of space.
async fn drop_archive_when_full(
    log: Log,
    dir: Arc<DataDir>,
    lanes: Lanes,
    mut shutdown: ShutdownSignal,
) {
    let mut space = log.space();
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            low = space.wait_for(|space| *space == DiskSpace::Low) => if low.is_err() { return },
        }
        let archive = dir.clone();
        match lanes.run("archive", move || archive.drop_archive()).await {
            Ok(Some(Ok(true))) => tracing::warn!("volume short of space: archive deleted"),
            Ok(Some(Ok(false))) => {}
            failed => tracing::warn!(?failed, "deleting the archive failed"),
        }
        tokio::select! {
            () = shutdown.wait() => return,
            ok = space.wait_for(|space| *space != DiskSpace::Low) => if ok.is_err() { return },
        }
    }
}

/// Publishes this member's attributes to the cluster, unless the cluster has them already.
async fn publish_attributes(
    node: Node,
    attributes: MemberAttributes,
    mut shutdown: ShutdownSignal,
) {
    loop {
        if node.raft().view().roster().members.get(&attributes.member) == Some(&attributes) {
            return;
        }
        tokio::select! {
            () = shutdown.wait() => return,
            published = node.propose(Command::SetMemberAttributes(attributes.clone())) => match published {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "publishing the member's attributes failed"),
            }
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(PUBLISH_RETRY_INTERVAL) => {}
        }
    }
}
