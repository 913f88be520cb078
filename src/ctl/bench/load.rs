//! Generates load: clients send requests, for a length and at a rate.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    select,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    pace::{Elapsed, Pace, RunLength},
    progress::Progress,
    tally::{self, Tally},
};
use crate::{client::ClientError, ctl::output::interrupted};

/// The pause of a client after an error, so that it does not call a broken cluster in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A client of a bench.
pub trait Worker: Send + 'static {
    /// Sends the request with this number, which is due at `sent`, and returns its name.
    fn call(
        &mut self,
        number: u64,
        sent: Instant,
    ) -> impl Future<Output = (&'static str, Result<(), ClientError>)> + Send;
}

/// The requests of a run, shared by its clients.
#[derive(Debug)]
struct Queue {
    pace: Pace,
    started: Instant,
    next: AtomicU64,
    stopped: AtomicBool,
}

impl Queue {
    /// The number of the next request, and the earliest time to send it.
    fn take(&self) -> Option<(u64, Option<Instant>)> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due =
            self.pace.rate.map(|rate| self.started + Duration::from_secs_f64(number as f64 / rate));
        let over = match self.pace.length {
            RunLength::Requests(total) => number >= total,
            RunLength::Time(time) => due.unwrap_or_else(Instant::now) >= self.started + time,
        };
        (!over).then_some((number, due))
    }
}

/// Runs all workers to the end, or until Ctrl-C. Every request that was sent is counted.
pub async fn drive<W: Worker>(
    pace: Pace,
    workers: Vec<W>,
    tally: &Tally,
    progress: &Progress,
) -> Elapsed {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let queue = Arc::new(Queue { pace, started, next, stopped: AtomicBool::new(false) });
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(work(worker, queue.clone(), tally.clone()));
    }
    let show = async {
        loop {
            progress.show(pace.length, started.elapsed(), tally);
            sleep(PROGRESS_INTERVAL).await;
        }
    };
    let mut by_ctrl_c = false;
    {
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::pin!(all, show);
        loop {
            let wait_for_ctrl_c =
                async { if by_ctrl_c { pending().await } else { interrupted().await } };
            select! {
                () = &mut all => break,
                () = wait_for_ctrl_c => {
                    by_ctrl_c = true;
                    queue.stopped.store(true, Ordering::Relaxed);
                }
                () = &mut show => {}
            }
        }
    }
    Elapsed { time: started.elapsed(), interrupted: by_ctrl_c }
}

async fn work<W: Worker>(mut worker: W, queue: Arc<Queue>, tally: Tally) {
    while let Some((number, due)) = queue.take() {
        if let Some(due) = due {
            // Wakes up in between: Ctrl-C ends a slow run too.
            while Instant::now() < due && !queue.stopped.load(Ordering::Relaxed) {
                sleep_until(due.min(Instant::now() + PROGRESS_INTERVAL)).await;
            }
            if queue.stopped.load(Ordering::Relaxed) {
                return;
            }
        }
        let sent = due.unwrap_or_else(Instant::now);
        match worker.call(number, sent).await {
            (name, Ok(())) => tally.done(name, sent.elapsed()),
            (name, Err(error)) => {
                tally.failed(name, tally::kind(&error));
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    struct Counter {
        fails: bool,
    }

    impl Worker for Counter {
        async fn call(
            &mut self,
            number: u64,
            _: Instant,
        ) -> (&'static str, Result<(), ClientError>) {
            if self.fails && number.is_multiple_of(2) {
                let message = "etcdserver: too many requests".into();
                return (
                    "count",
                    Err(ClientError::Refused { code: Code::ResourceExhausted, message }),
                );
            }
            ("count", Ok(()))
        }
    }

    async fn run(length: RunLength, rate: Option<f64>, fails: bool) -> (Tally, Elapsed) {
        let tally = Tally::default();
        let workers = (0..4).map(|_| Counter { fails }).collect();
        let progress = Progress::new(false);
        let elapsed = drive(Pace { length, rate }, workers, &tally, &progress).await;
        (tally, elapsed)
    }

    #[tokio::test]
    async fn a_run_sends_the_given_number_of_requests() {
        let (tally, elapsed) = run(RunLength::Requests(100), None, false).await;
        assert_eq!(tally.counts().rows[0].latency_us.len(), 100);
        assert!(!elapsed.interrupted);
        let (tally, _) = run(RunLength::Requests(10), None, true).await;
        assert_eq!(
            (tally.total(), tally.counts().errors["etcdserver: too many requests"]),
            (10, 5)
        );
    }

    #[tokio::test]
    async fn a_run_keeps_its_rate_and_its_duration() {
        let (tally, elapsed) =
            run(RunLength::Time(Duration::from_millis(300)), Some(100.0), false).await;
        // A busy machine makes fewer of them, never more.
        assert!((1..=30).contains(&tally.total()), "{}", tally.total());
        assert!(elapsed.time >= Duration::from_millis(290), "{:?}", elapsed.time);
    }

    /// Stalls at its first request.
    struct Stalls;

    impl Worker for Stalls {
        async fn call(
            &mut self,
            number: u64,
            _: Instant,
        ) -> (&'static str, Result<(), ClientError>) {
            if number == 0 {
                sleep(Duration::from_millis(300)).await;
            }
            ("stall", Ok(()))
        }
    }

    #[tokio::test]
    async fn latency_counts_from_the_time_a_request_was_due() {
        let tally = Tally::default();
        let pace = Pace { length: RunLength::Requests(3), rate: Some(20.0) };
        drive(pace, vec![Stalls], &tally, &Progress::new(false)).await;
        let counts = tally.counts();
        // Due after 0, 50 and 100 ms, and none done before 300 ms.
        let at_least = |us| counts.rows[0].latency_us.count_between(us, u64::MAX);
        assert!(at_least(290_000) >= 1 && at_least(240_000) >= 2 && at_least(190_000) == 3);
    }
}
