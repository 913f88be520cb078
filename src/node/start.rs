//! Starts a node's tasks and lanes, and stops them.

use std::sync::Arc;

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use super::{
    admission::Admission,
    forward::{self, LeaderLink},
    leader_loss::detect_leader_loss,
    leases::{self, LeaseServer},
    metrics::NodeMetrics,
    node::{Inner, Node, NodeOptions},
    proposals::{self, LeaderRouter},
    read_pool::{ReadPool, ReadPoolLanes},
    reads::{self, ReadIndexRouter},
};
use crate::{fault::Fault, raft::Raft, shutdown::Shutdown};

/// Lease queries that wait for an answer, at most. Beyond that, callers wait to enter the queue.
const LEASE_QUERIES_MAX: usize = 16_384;

type NamedTask = (&'static str, JoinHandle<()>);

fn task(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> NamedTask {
    (name, tokio::spawn(task))
}

/// The tasks and lanes of a node, for their owner to stop and join.
#[derive(Debug)]
pub struct NodeTasks {
    tasks: Vec<NamedTask>,
    read_lanes: ReadPoolLanes,
    stop: Shutdown,
}

impl NodeTasks {
    /// Stops and joins them. Waiting requests fail with [`NodeError::Stopped`](super::NodeError);
    /// proposals in flight are answered if their outcome is known soon.
    pub async fn stop(self) {
        self.stop.trigger();
        for (task, handle) in self.tasks {
            if let Err(error) = handle.await {
                tracing::error!(task, %error, "task failed");
            }
        }
        self.read_lanes.join().await;
    }
}

impl Node {
    pub fn start<L: LeaderLink>(
        options: NodeOptions,
        raft: Raft,
        link: L,
        fault: Fault,
    ) -> std::io::Result<(Node, NodeTasks)> {
        let stop = Shutdown::default();
        let shutdown = || stop.signal();
        let (forward, forward_rx) = mpsc::unbounded_channel();
        let (proposals, proposals_rx) = mpsc::unbounded_channel();
        let (linearizable_reads, reads_rx) = mpsc::unbounded_channel();
        let (leader_batcher, leader_batcher_rx) = mpsc::unbounded_channel();
        let (lease_queries, lease_queries_rx) = mpsc::unbounded_channel();
        let (lost, leader_lost) = watch::channel(false);
        let metrics = Arc::<NodeMetrics>::default();

        let router = LeaderRouter::new(raft.clone(), forward.clone());
        let lessor = options.lessor.clone();
        let lease_server = LeaseServer {
            raft: raft.clone(),
            leader_batcher: leader_batcher.clone(),
            lessor: lessor.clone(),
        };
        let read_router = ReadIndexRouter {
            raft: raft.clone(),
            leader_batcher,
            forward: forward.clone(),
            metrics: metrics.clone(),
        };
        let leadership = raft.watch_leadership();
        let tasks = vec![
            task("leader-loss", detect_leader_loss(raft.clone(), lost, shutdown())),
            task("forward", forward::run_client(link, forward_rx, leadership, shutdown())),
            task("proposals", proposals::run(router, proposals_rx, shutdown())),
            task(
                "leader-reads",
                reads::run_leader_batcher(raft.clone(), leader_batcher_rx, shutdown()),
            ),
            task("lease-expiry", leases::run_expiry(raft.clone(), lessor, shutdown())),
            task(
                "lease-queries",
                leases::run_query_batcher(
                    lease_server.clone(),
                    forward,
                    lease_queries_rx,
                    shutdown(),
                ),
            ),
            task("member-reads", reads::run_member_batcher(read_router, reads_rx, shutdown())),
        ];
        let (read_pool, read_lanes) =
            ReadPool::start(options.lanes, raft.view().clone(), metrics.clone())?;
        let inner = Inner {
            view: raft.view().clone(),
            admission: Admission::new(options.quota_bytes, options.max_request_bytes),
            options,
            raft,
            fault,
            proposals,
            linearizable_reads,
            lease_server,
            lease_queries,
            read_pool,
            lease_query_permits: Arc::new(Semaphore::new(LEASE_QUERIES_MAX)),
            metrics,
            leader_lost,
        };
        Ok((Node::new(inner), NodeTasks { tasks, read_lanes, stop }))
    }
}
