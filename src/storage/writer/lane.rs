//! The loop of the state-writer lane.
//!
//! A turn takes all queued requests, then does one step, so that no request waits for more than one
//! step: write the next chunks, otherwise reclaim the space of dead records.

use std::collections::VecDeque;

use super::{
    message::{Reply, WriterMessage},
    state_writer::StateWriter,
};
use crate::{
    storage::{error::StoreError, snapshot::SnapshotRef},
    types::LogPosition,
};

/// A request that waits until everything up to `target` is written.
#[derive(Debug)]
struct Waiting {
    target: Option<u64>,
    reply: WaitingReply,
}

#[derive(Debug)]
enum WaitingReply {
    Flush(Reply<Option<LogPosition>>),
    Snapshot(Reply<SnapshotRef>),
}

impl WaitingReply {
    /// Everything up to the target is written.
    fn answer(self, writer: &mut StateWriter) -> Result<(), StoreError> {
        match self {
            WaitingReply::Flush(reply) => answer(reply, Ok(writer.applied)),
            WaitingReply::Snapshot(reply) => answer(reply, writer.take_snapshot()),
        }
    }
}

/// The [`StateWriter`] and the requests that wait for it.
#[derive(Debug)]
pub struct WriterLane {
    /// None once the writer is closed or has failed.
    writer: Option<StateWriter>,
    waiting: VecDeque<Waiting>,
}

impl WriterLane {
    pub fn new(writer: StateWriter) -> WriterLane {
        WriterLane { writer: Some(writer), waiting: VecDeque::new() }
    }

    pub fn handle(&mut self, messages: &mut Vec<WriterMessage>) {
        for message in messages.drain(..) {
            let outcome = self.take(message);
            self.check(outcome);
        }
        let outcome = self.step();
        self.check(outcome);
    }

    /// Stops the member on an error. The dropped replies give waiting callers [`StoreError::Stopped`].
    fn check(&mut self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            if let Some(writer) = self.writer.take() {
                writer.fault.stop(format_args!("the state writer: {error}"));
                writer.records.close();
            }
            self.waiting.clear();
        }
    }

    fn take(&mut self, message: WriterMessage) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match message {
            WriterMessage::Wake => {}
            WriterMessage::Flush(reply) => self.wait(WaitingReply::Flush(reply)),
            WriterMessage::Snapshot(reply) => self.wait(WaitingReply::Snapshot(reply)),
            WriterMessage::Install(incoming, reply) => {
                let outcome = writer.install(&incoming);
                if outcome.is_ok() {
                    // The snapshot includes the targets of all waiting requests.
                    for waiting in self.waiting.drain(..) {
                        waiting.reply.answer(writer)?;
                    }
                }
                return answer(reply, outcome);
            }
            WriterMessage::Close(reply) => {
                let outcome = self.writer.take().map_or(Ok(()), StateWriter::close);
                self.waiting.clear();
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "closing the state writer failed; the log has its state");
                }
                // The caller may be gone; the outcome is logged.
                let _ = reply.send(outcome);
            }
        }
        Ok(())
    }

    fn wait(&mut self, reply: WaitingReply) {
        if let Some(writer) = &self.writer {
            let last = writer.records.pending().last_position();
            let target = last.map(|position| position.index);
            self.waiting.push_back(Waiting { target, reply });
        }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let target = self.waiting.front().and_then(|waiting| waiting.target);
        let wrote = writer.write_next(target)?;
        let applied = writer.applied.map(|position| position.index);
        while let Some(next) = self.waiting.pop_front_if(|next| next.target <= applied) {
            next.reply.answer(writer)?;
        }
        let target = self.waiting.front().and_then(|waiting| waiting.target);
        let due = writer.rearm(target);
        let reclaimed = !wrote && !due && writer.reclaim()?;
        if wrote || due || reclaimed {
            writer.waker.wake();
        }
        Ok(())
    }
}

impl Drop for WriterLane {
    fn drop(&mut self) {
        // After a panic the member must stop: otherwise it would wait for its writer for ever.
        if let Some(writer) = self.writer.as_ref().filter(|_| std::thread::panicking()) {
            writer.fault.stop("the state writer panicked");
        }
    }
}

/// Sends the outcome to the caller. Returns the error if the member must stop.
fn answer<T>(reply: Reply<T>, outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    let fatal = match &outcome {
        Err(error) if !error.is_refusal() => Err(error.clone()),
        _ => Ok(()),
    };
    // The caller may be gone.
    let _ = reply.send(outcome);
    fatal
}
