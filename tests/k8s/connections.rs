//! Clients that open a new connection to the Service for each request, as short-lived programs do:
//! kube-proxy sends each to any pod that it still takes for ready. No request may fail while pods are
//! replaced on purpose.

use std::{error::Error, net::SocketAddr};

use ordinal::proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};
use tonic::transport::Channel;

use crate::k8s::{
    kubectl::Kubectl,
    pods::{delete_leader, rolling_update},
    scenarios::ScenarioContext,
};

const CLIENTS: usize = 4;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures that are printed.
const FAILURES_SHOWN: usize = 10;

#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    failures: Vec<String>,
}

/// A rolling update, and the end of the leader.
pub async fn connect_during_updates(s: &ScenarioContext) {
    let address = service_address(&s.store.kubectl, &s.store.client_service()).await;
    let (stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let clients: Vec<JoinHandle<Tally>> =
        (0..CLIENTS).map(|_| tokio::spawn(connect(address, began, stopped.clone()))).collect();
    rolling_update(s).await;
    delete_leader(s).await;
    stop.send_replace(true);
    let mut all = Tally::default();
    for client in clients {
        let tally = client.await.expect("a client ends");
        all.requests += tally.requests;
        all.failures.extend(tally.failures);
    }
    let (requests, failed) = (all.requests, all.failures.len());
    println!("  {requests} requests over connections of their own, {failed} failed");
    all.failures.truncate(FAILURES_SHOWN);
    assert_eq!(failed, 0, "of {requests} requests: {:#?}", all.failures);
}

async fn service_address(kubectl: &Kubectl, service: &str) -> SocketAddr {
    let service = kubectl.get(&["service", service]).await;
    let address = service["spec"]["clusterIP"].as_str().expect("it has an address");
    SocketAddr::new(address.parse().expect("an address"), 2379)
}

async fn connect(address: SocketAddr, began: Instant, stop: watch::Receiver<bool>) -> Tally {
    let mut tally = Tally::default();
    while !*stop.borrow() {
        tally.requests += 1;
        let started = Instant::now();
        if let Err(error) = request(address).await {
            let (at, lasted) = (began.elapsed(), started.elapsed());
            tally.failures.push(format!("at {at:.2?}, after {lasted:.2?}: {error}"));
        }
        sleep(PAUSE).await;
    }
    tally
}

/// A linearizable read over a new connection.
async fn request(address: SocketAddr) -> Result<(), String> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
    let channel =
        endpoint.connect().await.map_err(|error| format!("connect: {}", chain(&error)))?;
    let request = RangeRequest { key: "new".into(), ..Default::default() };
    let answer = KvClient::new(channel).range(request).await;
    answer.map(drop).map_err(|status| format!("range: {}", chain(&status)))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
