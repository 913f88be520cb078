//! Spans arrive at an OpenTelemetry collector; a collector that is away harms nobody.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, service::Routes, transport::Server};

use crate::cluster::Cluster;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Takes what is exported, and remembers it undecoded: names are in it as they are.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let into = taken.clone();
    let export = async move |request: Request| {
        assert_eq!(request.uri().path(), EXPORT);
        let bytes = to_bytes(request.into_body(), usize::MAX).await.unwrap();
        into.lock().unwrap().extend_from_slice(&bytes);
        Status::ok("").into_http::<Body>()
    };
    let routes = Routes::from(Router::new().fallback(export));
    let server = Server::builder().add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, taken)
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_requests() {
    let (url, taken) = collector().await;
    let cluster = Cluster::start_with(1, &["--otlp-endpoint", &url], "warn").await;
    cluster.work().await;
    // What is left is sent at the end.
    cluster.stop().await;
    let taken = taken.lock().unwrap();
    let has = |text: &str| taken.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["kvd", "request", "/etcdserverpb.KV/Put", "propose", "replicate", "term", "index"]
    {
        assert!(has(text), "no {text} in {} bytes", taken.len());
    }
}

#[tokio::test]
async fn a_collector_that_is_away_does_not_matter() {
    let cluster = Cluster::start_with(1, &["--otlp-endpoint=http://127.0.0.1:1"], "warn").await;
    cluster.work().await;
    cluster.stop().await;
}
