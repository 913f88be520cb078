//! The process's log, to standard error, as text or as JSON; with the feature `otlp`, also its spans, to an
//! OpenTelemetry collector.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, fmt::format::FmtSpan, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, Telemetry as Config};

/// openraft logs every step at `info`. kube logs every failed call as an error; `k8s` logs once that
/// Kubernetes is unreachable.
pub const DEFAULT_FILTER: &str =
    "info,openraft=error,sled=warn,tonic=warn,h2=warn,hyper=warn,kube_client=off";

/// The outputs that [`init`] has started.
#[derive(Debug, Default)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<super::otlp::TraceExporter>,
}

impl Telemetry {
    /// Sends the remaining spans. Blocks for a few seconds at most; needs the runtime.
    pub fn shutdown(self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.shutdown();
        }
    }
}

/// Sets up the process's log and traces. `RUST_LOG` changes the log's filter; at `debug` the log has a line
/// for each span that ends. Must run on a runtime.
///
/// # Errors
/// If the endpoint for traces is not an address.
pub fn init(config: &Config, default_filter: Option<&str>) -> anyhow::Result<Telemetry> {
    let telemetry = Telemetry {
        #[cfg(feature = "otlp")]
        traces: config
            .otlp_endpoint
            .as_deref()
            .map(super::otlp::TraceExporter::start)
            .transpose()?,
    };
    #[cfg_attr(not(feature = "otlp"), expect(unused_mut, reason = "only the log exists"))]
    let mut layers = vec![log(config.log_format, default_filter)];
    #[cfg(feature = "otlp")]
    layers.extend(telemetry.traces.as_ref().map(super::otlp::TraceExporter::layer));
    // Fails only if a subscriber is set already: then that one is used.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(telemetry)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log(format: LogFormat, default_filter: Option<&str>) -> BoxedLayer {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(default_filter.unwrap_or(DEFAULT_FILTER)));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_span_events(FmtSpan::CLOSE)
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    }
}
