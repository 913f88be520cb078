//! The read budget of a connection: bounds the bytes that are read before the calls in them have started.
//!
//! HTTP/2 reads as long as there are bytes, and spawns a task for each call. A burst of calls that are
//! cancelled at once would become a pile of tasks, each with its headers. So a connection reads at most
//! [`READ_BUDGET_BYTES`], and then waits until all but [`STARTING_CALLS_MAX`] of the spawned tasks have been
//! polled once. Then the budget is refilled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::task::AtomicWaker;

/// Bytes that one connection reads before other connections have their turn.
pub const READ_BUDGET_BYTES: usize = 256 << 10;
/// Calls whose task has not been polled yet, at most, when the budget is refilled.
const STARTING_CALLS_MAX: usize = 256;

/// Clones share the budget of one connection.
#[derive(Debug, Clone)]
pub struct ReadBudget(Arc<State>);

#[derive(Debug)]
struct State {
    /// Bytes that may still be read.
    left: AtomicUsize,
    /// Calls whose task has not been polled yet.
    starting: AtomicUsize,
    /// Woken when the budget may be refilled.
    reader: AtomicWaker,
    greeted: AtomicBool,
}

impl ReadBudget {
    /// Unbounded until the first refill: the admin port never refills.
    pub fn unbounded() -> ReadBudget {
        ReadBudget(Arc::new(State {
            left: AtomicUsize::new(usize::MAX),
            starting: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            greeted: AtomicBool::new(false),
        }))
    }

    /// Refills the budget, unless too many calls have not started yet. Called at each poll of the
    /// connection.
    pub fn refill(&self) {
        if self.0.starting.load(Ordering::Acquire) <= STARTING_CALLS_MAX {
            self.0.left.store(READ_BUDGET_BYTES, Ordering::Relaxed);
        }
    }

    /// Whether the connection must not read now. The waker is called when the budget may be refilled.
    pub fn is_exhausted(&self, waker: &std::task::Waker) -> bool {
        if self.0.left.load(Ordering::Relaxed) > 0 {
            return false;
        }
        self.0.reader.register(waker);
        // The last of the calls may have started just before.
        if self.0.starting.load(Ordering::Acquire) <= STARTING_CALLS_MAX {
            waker.wake_by_ref();
        }
        true
    }

    pub fn note_read(&self, bytes: usize) {
        // One task reads and refills, so nothing comes between these two lines.
        let left = self.0.left.load(Ordering::Relaxed);
        self.0.left.store(left.saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Counts a call as starting until the guard is dropped.
    pub fn start_call(&self) -> StartingCall {
        self.0.starting.fetch_add(1, Ordering::Relaxed);
        StartingCall(self.clone())
    }

    pub fn note_greeted(&self) {
        self.0.greeted.store(true, Ordering::Relaxed);
    }

    /// Whether the client has sent its first bytes.
    pub fn has_greeted(&self) -> bool {
        self.0.greeted.load(Ordering::Relaxed)
    }
}

/// A call whose task has not been polled yet.
#[derive(Debug)]
pub struct StartingCall(ReadBudget);

impl Drop for StartingCall {
    fn drop(&mut self) {
        let State { starting, reader, .. } = &*self.0.0;
        if starting.fetch_sub(1, Ordering::AcqRel) == STARTING_CALLS_MAX + 1 {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_refill_waits_until_the_calls_have_started() {
        let (budget, woken) = (ReadBudget::unbounded(), Arc::<Woken>::default());
        let waker = woken.clone().into();
        budget.refill();
        let mut calls: Vec<_> = (0..=STARTING_CALLS_MAX).map(|_| budget.start_call()).collect();
        budget.note_read(READ_BUDGET_BYTES - 1);
        assert!(!budget.is_exhausted(&waker));
        budget.note_read(1);
        budget.refill();
        assert!(budget.is_exhausted(&waker), "one call too many has not started");
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        calls.pop();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        budget.refill();
        assert!(!budget.is_exhausted(&waker));
    }

    #[test]
    fn an_exhausted_budget_is_refilled_at_once_if_no_call_waits() {
        let (budget, woken) = (ReadBudget::unbounded(), Arc::<Woken>::default());
        budget.refill();
        budget.note_read(READ_BUDGET_BYTES + 1);
        assert!(budget.is_exhausted(&woken.clone().into()));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
