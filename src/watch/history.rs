//! The history lane: reads the events that unsynced watches missed. A lane of its own, because it may
//! block on the disk.

use std::convert::Infallible;

use tokio::sync::mpsc;

use super::{
    events::Encoder,
    groups::encode_for_groups,
    messages::{HistoryBatch, HistoryJob, HubMessage},
    options::Options,
    prev_kv,
};
use crate::state::{ReadError, View};

/// The lane's state.
#[derive(Debug)]
pub struct HistoryReader {
    view: View,
    options: Options,
    hub: mpsc::WeakUnboundedSender<HubMessage>,
}

impl HistoryReader {
    pub fn new(
        view: View,
        options: Options,
        hub: mpsc::WeakUnboundedSender<HubMessage>,
    ) -> HistoryReader {
        HistoryReader { view, options, hub }
    }

    pub fn handle(&mut self, jobs: &mut Vec<HistoryJob>) {
        for job in jobs.drain(..) {
            let batch = self.read(&job);
            if let Some(hub) = self.hub.upgrade() {
                // Fails only if the hub has stopped, and all watches with it.
                let _ = hub.send(HubMessage::HistoryRead(batch));
            }
        }
    }

    fn read(&self, job: &HistoryJob) -> Result<HistoryBatch, ReadError> {
        let bytes_max = self.options.limits.read_bytes;
        let mut scan = self.view.scan_changes(job.from, job.to, bytes_max)?;
        let prev_kvs = prev_kv::read(&mut scan, &job.groups, bytes_max)?;
        let prev_kv = |at: usize| Ok::<_, Infallible>(prev_kvs[at].clone());
        let encoder = Encoder::new(&scan.records, &prev_kv, self.options.fragment_bytes);
        let Ok(events) = encode_for_groups(&scan.records, &job.groups, encoder);
        Ok(HistoryBatch { next: scan.next, events })
    }
}
