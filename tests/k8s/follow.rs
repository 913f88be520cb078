//! Objects of the cluster, updated by `kubectl get --watch`: polling with `kubectl` costs the
//! members more processor time than they need themselves.

use std::{collections::BTreeMap, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
    sync::watch,
    task::JoinHandle,
    time::{Duration, sleep},
};

use crate::k8s::kubectl::Kubectl;

const RESTART_DELAY: Duration = Duration::from_millis(300);

/// Objects by name.
pub type Objects = BTreeMap<String, Value>;

/// Follows objects until it is dropped.
#[derive(Debug)]
pub struct Followed<T> {
    now: watch::Receiver<T>,
    follower: JoinHandle<()>,
}

impl<T> Followed<T>
where
    T: Clone + Default + PartialEq + Send + Sync + 'static,
{
    /// `query` has the arguments of `kubectl get`; `view` extracts the value to follow.
    pub fn begin(
        kubectl: Kubectl,
        query: &[&str],
        view: impl Fn(&Objects) -> T + Send + Sync + 'static,
    ) -> Followed<T> {
        let (tx, now) = watch::channel(T::default());
        let query: Vec<String> = query.iter().map(|word| (*word).to_owned()).collect();
        let follower = tokio::spawn(async move {
            let query: Vec<&str> = query.iter().map(String::as_str).collect();
            loop {
                follow(&kubectl, &query, &view, &tx).await;
                sleep(RESTART_DELAY).await;
            }
        });
        Followed { now, follower }
    }

    pub fn subscribe(&self) -> watch::Receiver<T> {
        self.now.clone()
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Follows until kubectl exits. Without an API server, the last value stays.
async fn follow<T: PartialEq>(
    kubectl: &Kubectl,
    query: &[&str],
    view: &impl Fn(&Objects) -> T,
    tx: &watch::Sender<T>,
) {
    let how = ["get", "--watch", "--output-watch-events", "--output=json"];
    let mut command = kubectl.command(&[how.as_slice(), query].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = command.spawn().expect("kubectl is there");
    let mut lines = BufReader::new(running.stdout.take().expect("it is piped")).lines();
    let mut objects = Objects::new();
    while let Some(event) = next_event(&mut lines).await {
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("DELETED") => objects.remove(&name),
            _ => objects.insert(name, event["object"].clone()),
        };
        let viewed = view(&objects);
        tx.send_if_modified(|now| {
            let changed = *now != viewed;
            *now = viewed;
            changed
        });
    }
}

/// kubectl prints an event on one line or on several, depending on its version.
async fn next_event(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<Value> {
    let mut event = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        event.push_str(&line);
        if let Ok(event) = serde_json::from_str(&event) {
            return Some(event);
        }
    }
    None
}
