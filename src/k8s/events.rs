//! Records cluster events as Kubernetes Events, for `kubectl describe` and `kubectl get events`.
//!
//! They are core/v1 Events: only these can be created with a count, and the role of a pod allows only
//! creation. The repetitions within a minute are counted in the next Event.
//!
//! Recording never waits: events go into a bounded queue, which one task delivers. While Kubernetes is
//! unreachable the task waits; when the queue is full, events are dropped and counted.

use std::{
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
    outage::{Backoff, Outage},
    recent_events::{RecentEvents, Repeats},
};
use crate::{
    clock::Clock,
    membership::{ClusterEvent, OrchestratorError},
    shutdown::{Shutdown, ShutdownSignal},
};

/// Bound on the Events that wait for delivery.
pub const QUEUE_MAX: usize = 64;
/// Kubernetes' limit.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The objects that Events refer to.
#[derive(Debug)]
pub struct EventSubjects {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: Option<String>,
    pub statefulset: String,
}

/// Records events. The owner must close it.
#[derive(Debug)]
pub struct EventRecorder {
    subjects: EventSubjects,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Event>,
    state: Mutex<RecorderState>,
    metrics: Arc<KubernetesMetrics>,
    stop: Shutdown,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct RecorderState {
    recent: RecentEvents,
    /// The StatefulSet's uid, once it is known. `kubectl describe` shows only Events with the uid.
    set_uid: Option<String>,
    /// Makes the names of Events unique.
    count: u64,
}

impl EventRecorder {
    /// Starts the task. Must run on a Tokio runtime.
    pub fn start(
        subjects: EventSubjects,
        clock: Arc<dyn Clock>,
        connection: Connection,
        backoff: Backoff,
    ) -> EventRecorder {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let stop = Shutdown::default();
        let metrics = connection.metrics.clone();
        let outage = Outage::new("recording Events".into(), backoff);
        let sender = EventSender { connection, waiting, outage };
        let task = Mutex::new(Some(tokio::spawn(sender.run(stop.signal()))));
        let state = Mutex::default();
        EventRecorder { subjects, clock, queue, state, metrics, stop, task }
    }

    pub fn set_statefulset_uid(&self, uid: Option<String>) {
        self.state().set_uid = uid;
    }

    pub fn emit(&self, event: ClusterEvent) {
        let Ok(slot) = self.queue.try_reserve() else {
            self.metrics.events_dropped.increment();
            return;
        };
        let now = self.clock.now();
        let mut state = self.state();
        let Some(repeats) = state.recent.admit(&event, Instant::now(), now) else {
            self.metrics.events_repeated.increment();
            return;
        };
        state.count += 1;
        slot.send(self.to_kubernetes(event, repeats, now, &state));
    }

    /// Delivers the queue for at most `limit`. Later events are dropped.
    pub async fn close(&self, limit: Duration) {
        self.stop.trigger();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
            // The result is that it was aborted.
            let _ = task.await;
        }
    }

    fn to_kubernetes(
        &self,
        event: ClusterEvent,
        repeats: Repeats,
        now: Duration,
        state: &RecorderState,
    ) -> Event {
        let EventSubjects { namespace, pod, pod_uid, statefulset } = &self.subjects;
        let (api_version, kind, name, uid) = if event.of_set {
            ("apps/v1", "StatefulSet", statefulset, &state.set_uid)
        } else {
            ("v1", "Pod", pod, pod_uid)
        };
        Event {
            metadata: ObjectMeta {
                // A chosen name: a retry after a lost answer creates no second Event.
                name: Some(format!("{pod}.{:x}.{}", now.as_nanos(), state.count)),
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
            reason: Some(event.reason.into()),
            message: Some(shortened(event.message)),
            type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
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

    fn state(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers the queue, in order.
#[derive(Debug)]
struct EventSender {
    connection: Connection,
    waiting: mpsc::Receiver<Event>,
    outage: Outage,
}

impl EventSender {
    async fn run(mut self, mut stopping: ShutdownSignal) {
        loop {
            let event = tokio::select! {
                event = self.waiting.recv() => event,
                () = stopping.wait(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
            };
            match event {
                Some(event) => self.send(event, &mut stopping).await,
                None => return,
            }
        }
    }

    /// Retries until Kubernetes accepts the Event, or refuses it twice; only once while stopping.
    async fn send(&mut self, event: Event, stopping: &mut ShutdownSignal) {
        let metrics = self.connection.metrics.clone();
        let mut last_try = false;
        loop {
            let Err(error) = self.connection.create(&event).await else {
                self.outage.recovered();
                metrics.events_sent.increment();
                return;
            };
            let delay = self.outage.failed(&error);
            if last_try {
                metrics.events_dropped.increment();
                return;
            }
            last_try = !matches!(error, OrchestratorError::Unreachable(_));
            tokio::select! {
                () = stopping.wait() => last_try = true,
                () = tokio::time::sleep(delay) => {}
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
