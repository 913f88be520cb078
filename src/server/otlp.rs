//! Traces: our own spans, sent to an OpenTelemetry collector over gRPC.
//!
//! The exporter has a thread of its own and a queue of 2048 spans; what comes while it is full is
//! dropped, and a collector that is away costs nothing but its spans. The SDK's own environment
//! variables hold: `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…`.

use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{Layer, Registry, filter::Targets};

/// The spans that are left at the end may take so long to send.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Whoever sends traces, until [`Traces::end`].
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// On a runtime: the connection is its task.
    pub(super) fn begin(endpoint: &str) -> anyhow::Result<Traces> {
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
        Ok(Traces { provider })
    }

    /// Sees our spans, whatever the log tells.
    pub(super) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let ours = Targets::new().with_target("ordinal", tracing::Level::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("ordinal"))
            .with_filter(ours)
            .boxed()
    }

    pub(super) fn end(self) {
        if let Err(e) = self.provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(error = %e, "the last traces were not sent");
        }
    }
}
