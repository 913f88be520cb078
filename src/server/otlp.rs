//! TraceExporter: our own spans, sent to an OpenTelemetry collector over gRPC.
//!
//! The exporter has a thread of its own and a queue of 2048 spans. Spans beyond a full queue are dropped, so
//! an unreachable collector costs nothing else. The SDK's own environment
//! variables hold: `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…`.

use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{Layer, Registry, filter::Targets};

/// Limit to send the remaining spans at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends spans until [`TraceExporter::shutdown`].
#[derive(Debug)]
pub struct TraceExporter {
    provider: SdkTracerProvider,
}

impl TraceExporter {
    /// Must run on a runtime, which gets a task for the connection.
    pub fn start(endpoint: &str) -> anyhow::Result<TraceExporter> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("--otlp-endpoint {endpoint}"))?;
        let resource = Resource::builder().with_service_name("kvd").build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(TraceExporter { provider })
    }

    /// Receives our spans, regardless of the log's filter.
    pub fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let ours = Targets::new().with_target("ordinal", tracing::Level::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("ordinal"))
            .with_filter(ours)
            .boxed()
    }

    pub fn shutdown(self) {
        if let Err(e) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(error = %e, "sending the last spans failed");
        }
    }
}
