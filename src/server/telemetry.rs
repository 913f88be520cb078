//! What the process tells of itself: the log, to standard error, one line an event or one JSON object;
//! with the feature `otlp`, also its spans, to an OpenTelemetry collector.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, fmt::format::FmtSpan, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, Telemetry as Config};

/// openraft tells every step at `info`: its warnings are enough. kube tells every failed call as an
/// error: `k8s` says once that Kubernetes is away.
pub(super) const DEFAULT_FILTER: &str =
    "info,openraft=error,sled=warn,tonic=warn,h2=warn,hyper=warn,kube_client=off";

/// What [`init`] began.
#[derive(Debug, Default)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<super::otlp::Traces>,
}

impl Telemetry {
    /// Sends what is left. Blocks for a few seconds at most; the runtime must still be there.
    pub fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.end();
        }
    }
}

/// Sets the process's log up, and its traces. `RUST_LOG` changes what the log tells: at `debug` it has
/// a line for each span that ends. On a runtime.
///
/// # Errors
/// When traces are wanted and their endpoint is no address.
pub fn init(config: &Config, default_filter: Option<&str>) -> anyhow::Result<Telemetry> {
    let telemetry = Telemetry {
        #[cfg(feature = "otlp")]
        traces: config.otlp_endpoint.as_deref().map(super::otlp::Traces::begin).transpose()?,
    };
    #[cfg_attr(not(feature = "otlp"), expect(unused_mut, reason = "the log is all there is"))]
    let mut layers = vec![log(config.log_format, default_filter)];
    #[cfg(feature = "otlp")]
    layers.extend(telemetry.traces.as_ref().map(super::otlp::Traces::layer));
    // Fails only if something has set a subscriber before: then that one is used.
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
