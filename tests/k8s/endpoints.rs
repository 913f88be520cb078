//! Where clients of the store go: what the Service `kv-client` names as ready, whenever it changes.

use ordinal::client::Endpoint;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    task::JoinHandle,
    time::{Duration, sleep},
};

use crate::{kubectl::Kubectl, store::endpoint};

/// One line for each change.
const READY: &str =
    r#"jsonpath={range .endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {end}{"\n"}"#;

/// Follows the Service until it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoints {
    now: watch::Receiver<Vec<Endpoint>>,
    follower: JoinHandle<()>,
}

impl Endpoints {
    pub(crate) fn follow(kubectl: Kubectl) -> Endpoints {
        let (tx, now) = watch::channel(Vec::new());
        let follower = tokio::spawn(follow(kubectl, tx));
        Endpoints { now, follower }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Endpoint>> {
        self.now.clone()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Without an API server, what it said last stays.
async fn follow(kubectl: Kubectl, tx: watch::Sender<Vec<Endpoint>>) {
    let slices = "--selector=kubernetes.io/service-name=kv-client";
    loop {
        let mut command =
            kubectl.command(&["get", "endpointslices", slices, "--watch", "--output", READY]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut running = command.spawn().expect("kubectl is there");
        let mut lines = BufReader::new(running.stdout.take().expect("it is piped")).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let endpoints: Vec<Endpoint> = line.split_whitespace().map(endpoint).collect();
            tx.send_if_modified(|now| {
                let changed = *now != endpoints;
                *now = endpoints;
                changed
            });
        }
        sleep(Duration::from_millis(300)).await;
    }
}
