//! News as Kubernetes Events, where `kubectl describe` and `kubectl get events` show it.
//!
//! They are core/v1 Events: only these can be created with a count, and creating is all that a pod's
//! role allows. What repeats within a minute is counted, and told with the next one.
//!
//! Whoever says something waits for nothing: it goes into a bounded queue, which one task empties. When
//! Kubernetes is away that task waits; when the queue is full news is dropped, and counted.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    connection::{Connection, FIELD_MANAGER},
    metrics::KubernetesMetrics,
    outage::{Outage, Pauses},
};
use crate::{
    clock::Clock,
    membership::{News, OrchestratorError},
    stop::{Stop, Stopping},
};

/// So many Events wait for Kubernetes at most.
pub(super) const QUEUE_MAX: usize = 64;
/// So many different ones are remembered; the oldest are forgotten first, and may then repeat.
pub(super) const RECENT_MAX: usize = 64;
/// The same is not said again for so long.
pub(super) const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Kubernetes takes no longer message.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whom news is about, and who tells it.
#[derive(Debug)]
pub(super) struct Subjects {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: Option<String>,
    pub statefulset: String,
}

/// Tells news. Closed by its owner.
#[derive(Debug)]
pub(super) struct Events {
    subjects: Subjects,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Event>,
    told: Mutex<Told>,
    metrics: Arc<KubernetesMetrics>,
    stop: Stop,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What is known from earlier.
#[derive(Debug, Default)]
struct Told {
    recent: Recent,
    /// Of the StatefulSet, since it was read first: describing it shows only Events with its uid.
    set_uid: Option<String>,
    /// Makes names of Events different.
    count: u64,
}

impl Events {
    /// Starts the task. On a runtime.
    pub(super) fn start(
        subjects: Subjects,
        clock: Arc<dyn Clock>,
        connection: Connection,
        pauses: Pauses,
    ) -> Events {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let stop = Stop::default();
        let metrics = connection.metrics.clone();
        let outage = Outage::new("telling Events".into(), pauses);
        let teller = Teller { connection, waiting, outage };
        let task = tokio::spawn(teller.run(stop.stopping()));
        Events {
            subjects,
            clock,
            queue,
            told: Mutex::default(),
            metrics,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    pub(super) fn know_set(&self, uid: Option<String>) {
        self.told().set_uid = uid;
    }

    pub(super) fn say(&self, news: News) {
        let Ok(place) = self.queue.try_reserve() else {
            self.metrics.events_dropped.increment();
            return;
        };
        let now = self.clock.now();
        let mut told = self.told();
        let Some(repeats) = told.recent.admit(&news, Instant::now(), now) else {
            self.metrics.events_repeated.increment();
            return;
        };
        told.count += 1;
        place.send(self.event(news, repeats, now, &told));
    }

    /// Tells what waits, but no longer than `limit`; what is said later is dropped.
    pub(super) async fn close(&self, limit: Duration) {
        self.stop.stop();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
            // Aborted, as it should be.
            let _ = task.await;
        }
    }

    fn event(&self, news: News, repeats: Repeats, now: Duration, told: &Told) -> Event {
        let Subjects { namespace, pod, pod_uid, statefulset } = &self.subjects;
        let (api_version, kind, name, uid) = if news.of_set {
            ("apps/v1", "StatefulSet", statefulset, &told.set_uid)
        } else {
            ("v1", "Pod", pod, pod_uid)
        };
        Event {
            metadata: ObjectMeta {
                // A name of our own, so that trying again after a lost answer makes no second one.
                name: Some(format!("{pod}.{:x}.{}", now.as_nanos(), told.count)),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(api_version.into()),
                kind: Some(kind.into()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: uid.clone(),
                ..ObjectReference::default()
            },
            reason: Some(news.reason.into()),
            message: Some(shortened(news.message)),
            type_: Some(if news.warning { "Warning" } else { "Normal" }.into()),
            count: Some(repeats.count.saturating_add(1)),
            first_timestamp: Some(time(repeats.first.unwrap_or(now))),
            last_timestamp: Some(time(now)),
            source: Some(EventSource {
                component: Some(FIELD_MANAGER.into()),
                host: Some(pod.clone()),
            }),
            reporting_component: Some(format!("ordinal.dev/{FIELD_MANAGER}")),
            reporting_instance: Some(pod.clone()),
            ..Event::default()
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Said>);

#[derive(Debug)]
struct Said {
    news: News,
    at: Instant,
    repeats: Repeats,
}

/// How often something was not said again, and since when.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeats {
    pub(super) count: i32,
    /// Since 1970-01-01 UTC.
    pub(super) first: Option<Duration>,
}

impl Recent {
    /// Whether it is time to say this (again); if so, how often it was held back since it was said.
    pub(super) fn admit(&mut self, news: &News, now: Instant, date: Duration) -> Option<Repeats> {
        match self.0.iter_mut().find(|said| said.news == *news) {
            Some(said) if now.duration_since(said.at) < REPEAT_AFTER => {
                said.repeats.count = said.repeats.count.saturating_add(1);
                said.repeats.first.get_or_insert(date);
                None
            }
            Some(said) => {
                said.at = now;
                Some(mem::take(&mut said.repeats))
            }
            None => {
                if self.0.len() == RECENT_MAX {
                    self.0.pop_front();
                }
                self.0.push_back(Said { news: news.clone(), at: now, repeats: Repeats::default() });
                Some(Repeats::default())
            }
        }
    }
}

/// Gives Kubernetes what waits, in order.
#[derive(Debug)]
struct Teller {
    connection: Connection,
    waiting: mpsc::Receiver<Event>,
    outage: Outage,
}

impl Teller {
    async fn run(mut self, mut stopping: Stopping) {
        loop {
            let event = tokio::select! {
                event = self.waiting.recv() => event,
                () = stopping.wait(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
            };
            match event {
                Some(event) => self.tell(event, &mut stopping).await,
                None => return,
            }
        }
    }

    /// Until Kubernetes has it, or has refused it twice; once more only when stopping.
    async fn tell(&mut self, event: Event, stopping: &mut Stopping) {
        let metrics = self.connection.metrics.clone();
        let mut last_try = false;
        loop {
            let Err(error) = self.connection.create(&event).await else {
                self.outage.over();
                metrics.events_said.increment();
                return;
            };
            let pause = self.outage.failed(&error);
            if last_try {
                metrics.events_dropped.increment();
                return;
            }
            last_try = !matches!(error, OrchestratorError::Unreachable(_));
            tokio::select! {
                () = stopping.wait() => last_try = true,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

fn time(since_epoch: Duration) -> Time {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}
