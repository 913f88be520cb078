//! Spans arrive at an OpenTelemetry collector; a missing collector does no harm.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, service::Routes, transport::Server};

use crate::{metrics::cluster::Cluster, support::retry::with_retry};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Collects exported bytes without decoding: names appear in them verbatim.
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

#[test]
fn a_collector_gets_the_spans_of_requests() {
    with_retry(async || {
        let (url, taken) = collector().await;
        let cluster = Cluster::start_with(1, &["--otlp-endpoint", &url], "warn").await;
        cluster.exercise().await;
        // The rest is exported at shutdown.
        cluster.stop().await;
        let taken = taken.lock().unwrap();
        let has = |text: &str| taken.windows(text.len()).any(|window| window == text.as_bytes());
        for text in
            ["kvd", "request", "/etcdserverpb.KV/Put", "propose", "replicate", "term", "index"]
        {
            assert!(has(text), "no {text} in {} bytes", taken.len());
        }
    });
}

#[test]
fn an_unreachable_collector_does_no_harm() {
    with_retry(async || {
        let cluster = Cluster::start_with(1, &["--otlp-endpoint=http://127.0.0.1:1"], "warn").await;
        cluster.exercise().await;
        cluster.stop().await;
    });
}
