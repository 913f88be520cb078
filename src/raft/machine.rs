//! openraft's state machine: hands committed entries to the apply lane, and snapshots to storage.

use std::{io, sync::Arc};

use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
    type_config::alias::{SnapshotMetaOf, SnapshotOf},
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::{
    Types,
    apply::Work,
    convert::{LogId, StoredMembership, log_id, stored_membership_from_wire},
    metrics::ConsensusMetrics,
    store::{Incoming, Snapshot, SnapshotStore},
};
use crate::{proto::peer, state::View};

/// At most so many entries go to the apply lane in one hop.
const CHUNK_ENTRIES: usize = 256;

/// A snapshot on its way through openraft: ours, or one that has been received.
pub(super) enum SnapshotData {
    Local(Arc<dyn Snapshot>),
    Received(Box<dyn Incoming>),
}

/// The state machine as openraft drives it.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) lane: mpsc::UnboundedSender<Work>,
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) view: View,
    pub(super) metrics: Arc<ConsensusMetrics>,
}

impl Machine {
    /// One hop to the apply lane and back.
    async fn hop(
        &self,
        work: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Work,
    ) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let gone = || io::Error::other("the apply lane has stopped");
        self.lane.send(work(done)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    pub(super) async fn apply_chunk(&self, entries: Vec<EntryResponder<Types>>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // Full: the storage writes behind us; whoever proposes is told to come back later.
        self.store.room().await;
        self.hop(|done| Work::Entries { entries, done }).await
    }
}

pub(super) fn decode_membership(bytes: Option<bytes::Bytes>) -> io::Result<StoredMembership> {
    let Some(bytes) = bytes else { return Ok(StoredMembership::default()) };
    let wire = peer::StoredMembership::decode(bytes).map_err(io::Error::other)?;
    stored_membership_from_wire(wire).map_err(io::Error::other)
}

fn describe(snapshot: Arc<dyn Snapshot>) -> io::Result<SnapshotOf<Types, SnapshotData>> {
    Ok(SnapshotOf::<Types, SnapshotData> {
        meta: SnapshotMetaOf::<Types> {
            last_log_id: Some(log_id(snapshot.position())),
            last_membership: decode_membership(snapshot.membership())?,
        },
        snapshot: SnapshotData::Local(snapshot),
    })
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let membership = decode_membership(self.view.membership())?;
        Ok((self.view.applied().map(log_id), membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(CHUNK_ENTRIES);
        while let Some(chunk) = chunks.next().await {
            let mut good = Vec::with_capacity(chunk.len());
            for item in chunk {
                good.push(item?);
            }
            self.apply_chunk(good).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        match snapshot {
            SnapshotData::Received(incoming) => {
                let _installing = self.metrics.installing.raise();
                let index = meta.last_log_id.map_or(0, |id| id.index);
                // Told here: whoever sent it may be gone by now, and what answers it with it.
                tracing::info!(index, "installing a snapshot");
                let recovered = self.store.install(incoming).await.map_err(io::Error::other)?;
                self.hop(|done| Work::Install { recovered, done }).await?;
                tracing::info!(index, "a snapshot was installed");
                Ok(())
            }
            // Only at start, and storage has recovered at least to its own snapshot by then.
            SnapshotData::Local(own) => Err(io::Error::other(format!(
                "the state is behind its own snapshot at log index {}",
                own.position().index
            ))),
        }
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, SnapshotData>>, io::Error> {
        self.store.latest().map(describe).transpose()
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotData>, io::Error> {
        describe(self.store.take().await.map_err(io::Error::other)?)
    }
}
