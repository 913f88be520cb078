//! The layers of a running member below its servers: WAL, storage, Raft, watches, node.

use std::sync::Arc;

use anyhow::Context as _;

use super::{context::MemberContext, removal::check_volume, storage_adapter::OpenStorage};
use crate::{
    api,
    membership::{Identity, Stage},
    node::{Lessor, Node, NodeOptions, NodeTasks},
    raft::{self, Raft, RaftOptions, RaftParts, RaftTasks, RecoveredState},
    rng::{Rng, SystemRng},
    types::MemberRef,
    wal::{Log, WalOptions},
    watch::{self, Feed, WatchLanes, Watches},
};

/// The started layers, with the tasks and lanes to join.
pub struct MemberStack {
    pub raft: Raft,
    raft_tasks: RaftTasks,
    pub node: Node,
    node_tasks: NodeTasks,
    pub watches: Watches,
    watch_lanes: WatchLanes,
    pub storage: OpenStorage,
    pub log: Log,
}

impl MemberStack {
    pub async fn start(
        context: &MemberContext,
        identity: &Identity,
    ) -> anyhow::Result<MemberStack> {
        let log = open_log(context, identity).await?;
        let (storage, recovered) = OpenStorage::open(
            context.bootstrap.data_dir(),
            identity.member,
            context.config.cache_bytes,
            &log,
            context.lanes,
            context.fault.clone(),
        )
        .await?;
        if identity.stage == Stage::Recovering {
            let me = MemberRef { member: identity.member, ordinal: identity.ordinal };
            raft::force_new_cluster(&log, me).await?;
            tracing::warn!(cluster = %identity.cluster, "continuing alone as a new cluster");
        }
        if identity.stage == Stage::Member {
            // An installed snapshot may be ahead of the log.
            let last_index = log.last().max(recovered.position).map_or(0, |last| last.index);
            check_volume(context, identity, last_index).await?;
        }
        MemberStack::start_layers(context, identity, log, storage, recovered).await
    }

    async fn start_layers(
        context: &MemberContext,
        identity: &Identity,
        log: Log,
        storage: OpenStorage,
        recovered: RecoveredState,
    ) -> anyhow::Result<MemberStack> {
        let MemberContext { config, lanes, fault, peers, .. } = context;
        let options = RaftOptions {
            me: identity.member,
            timing: config.timing,
            lanes: *lanes,
            retention: config.retention,
        };
        let lessor = Arc::new(Lessor::default());
        let limits = watch::Limits::default();
        let feed = Feed::new(&limits);
        let parts = RaftParts {
            transport: peers.clone(),
            log: log.clone(),
            store: storage.snapshots.clone(),
            recovered,
            sinks: vec![lessor.clone(), feed.clone()],
            fault: fault.clone(),
        };
        let (raft, raft_tasks) = Raft::start(options, parts).await?;
        let options = watch::Options {
            fragment_bytes: api::message_bytes_max(config.max_request_bytes),
            limits,
            lanes: *lanes,
        };
        let (watches, watch_lanes) =
            Watches::start(options, &feed, raft.view().clone(), fault.clone())?;
        let options = NodeOptions {
            cluster: identity.cluster,
            member: identity.member,
            quota_bytes: config.quota_bytes,
            max_request_bytes: config.max_request_bytes,
            lanes: *lanes,
            rng: Arc::new(SystemRng),
            lessor,
        };
        let (node, node_tasks) = Node::start(options, raft.clone(), peers.clone(), fault.clone())?;
        Ok(MemberStack { raft, raft_tasks, node, node_tasks, watches, watch_lanes, storage, log })
    }

    /// Stops every layer that could still answer a peer. The data stays open.
    pub async fn stop(self) -> OpenData {
        drop(self.node);
        self.node_tasks.stop().await;
        self.watch_lanes.stop().await;
        self.raft.stop(self.raft_tasks).await;
        OpenData { storage: self.storage, log: self.log }
    }
}

async fn open_log(context: &MemberContext, identity: &Identity) -> anyhow::Result<Log> {
    let (dir, lanes, fault) =
        (context.bootstrap.data_dir().clone(), context.lanes, context.fault.clone());
    let (member, seed) = (identity.member, SystemRng.next_id());
    let segment_bytes = context.config.wal_segment_bytes;
    let opened = lanes.run("open", move || {
        let options = WalOptions { segment_bytes, ..WalOptions::new(member, seed, lanes) };
        Log::open(dir.disk().clone(), &dir.wal(), &options, fault)
    });
    Ok(opened.await?.context("opening the log panicked")??)
}

/// The data of a stopped member.
pub struct OpenData {
    storage: OpenStorage,
    log: Log,
}

impl OpenData {
    pub async fn close(self) {
        self.storage.close().await;
        self.log.close().await;
    }
}
