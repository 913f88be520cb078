//! openraft's state machine: passes committed entries to the apply lane, and snapshots to the storage.

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
    apply::Work,
    convert::{LogId, StoredMembership, log_id, stored_membership_from_wire},
    metrics::ConsensusMetrics,
    store::{Snapshot, SnapshotReceiver, SnapshotStore},
    type_config::Types,
};
use crate::{proto::peer, state::View};

/// Bound on entries per hop to the apply lane.
const CHUNK_ENTRIES: usize = 256;

/// A snapshot in openraft's hands: a local one to send, or a received one to install.
pub enum SnapshotData {
    Local(Arc<dyn Snapshot>),
    Received(Box<dyn SnapshotReceiver>),
}

/// The state machine as openraft drives it.
#[derive(Clone)]
pub struct StateMachineAdapter {
    pub lane: mpsc::UnboundedSender<Work>,
    pub store: Arc<dyn SnapshotStore>,
    pub view: View,
    pub metrics: Arc<ConsensusMetrics>,
}

/// openraft's handle, with this state machine.
pub type Openraft = openraft::Raft<Types, StateMachineAdapter>;

impl StateMachineAdapter {
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

    pub async fn apply_chunk(&self, entries: Vec<EntryResponder<Types>>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // Waits while the storage's write buffer is full. The leader rejects proposals meanwhile.
        self.store.room().await;
        self.hop(|done| Work::Entries { entries, done }).await
    }
}

pub fn decode_membership(bytes: Option<bytes::Bytes>) -> io::Result<StoredMembership> {
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

impl RaftStateMachine<Types> for StateMachineAdapter {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachineAdapter;

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

    async fn get_snapshot_builder(&mut self) -> StateMachineAdapter {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        match snapshot {
            SnapshotData::Received(incoming) => {
                let _installing = self.metrics.installing.track();
                let index = meta.last_log_id.map_or(0, |id| id.index);
                // Logged here, since the sender and its stream may be gone by now.
                tracing::info!(index, "installing snapshot");
                let recovered = self.store.install(incoming).await.map_err(io::Error::other)?;
                self.hop(|done| Work::Install { recovered, done }).await?;
                tracing::info!(index, "snapshot installed");
                Ok(())
            }
            // openraft does this only at start. The storage recovers at least to its own snapshot.
            SnapshotData::Local(own) => Err(io::Error::other(format!(
                "the recovered state is behind the local snapshot at log index {}",
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

impl RaftSnapshotBuilder<Types> for StateMachineAdapter {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotData>, io::Error> {
        describe(self.store.take().await.map_err(io::Error::other)?)
    }
}
