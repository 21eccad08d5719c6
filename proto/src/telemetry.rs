//! What a program tells those who watch it: log lines on stderr, and traces to a collector if one is configured.
//!
//! A log line is one fact. A trace is one operator's call followed through the commit that it waited for and the signer's
//! calls on the way: spans under the target [`TARGET`], which log lines do not show. Across processes a trace travels as the
//! W3C header `traceparent` in the metadata of a call. No span carries an amount, a hash, an invoice or a key.

use std::{collections::HashMap, fmt, io::IsTerminal, str::FromStr, time::Duration};

use opentelemetry::{KeyValue, propagation::TextMapPropagator, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Endpoint, Uri};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt as lines, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::trace::{TARGET, TRACEPARENT};
/// What is logged unless `RUST_LOG` says otherwise. The PKCS#11 wrapper logs at every start that a module lacks the
/// functions of newer versions of the standard, as an error; what fails, we say ourselves.
const DEFAULT_LINES: &str = "info,cryptoki=off";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line: timestamp, level, target, and the fact with its fields.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("not one of text, json"),
        }
    }
}

/// `[telemetry]` of a program's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Where traces go: OTLP over gRPC. None: there are no traces, and nothing is spent on them.
    pub otlp_endpoint: Option<OtlpEndpoint>,
    /// Which share of traces begun here is kept, from 0 to 1. One begun by the caller is kept if the caller keeps it.
    #[serde(deserialize_with = "share")]
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

/// `http://host:port` of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct OtlpEndpoint(Uri);

impl OtlpEndpoint {
    /// For a process that must say beforehand where it connects to.
    pub fn port(&self) -> u16 {
        // It was there when this was parsed.
        self.0.port_u16().unwrap_or_default()
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OtlpEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not http://host:port; traces go to a collector on this machine or a network of your own, \
                 which passes them on as it likes"
            )
        };
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let whole = uri.scheme_str() == Some("http") && uri.port_u16().is_some_and(|port| port != 0);
        if whole && bare { Ok(Self(uri)) } else { Err(bad()) }
    }
}

impl TryFrom<String> for OtlpEndpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
#[error("telemetry: {0}")]
pub struct TelemetryError(String);

/// Ends the traces when it is dropped, after sending what is left for at most two seconds.
pub struct Telemetry(Option<Traces>);

struct Traces {
    provider: SdkTracerProvider,
    /// Drives the connection to the collector, apart from everything that matters.
    _runtime: Runtime,
}

/// Sends log lines to stderr and traces to the collector from now on. Called once, by the program. `program` and `name`
/// are what a collector shows: `holdfast-node`, `replica-a`.
pub fn start(
    format: LogFormat,
    config: &TelemetryConfig,
    program: &str,
    name: &str,
) -> Result<Telemetry, TelemetryError> {
    let traces = match &config.otlp_endpoint {
        Some(endpoint) => Some(Traces::start(endpoint, config.sample_ratio, program, name)?),
        None => None,
    };
    let layer = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.provider.tracer("holdfast"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(of_traces))
    });
    tracing_subscriber::registry()
        .with(log_lines(format))
        .with(layer)
        .try_init()
        .map_err(|error| TelemetryError(error.to_string()))?;
    Ok(Telemetry(traces))
}

/// The trace that the calling thread is in, for the metadata of a call to another process.
pub fn traceparent() -> Option<String> {
    let span = Span::current();
    if span.is_none() {
        return None;
    }
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
    headers.remove(TRACEPARENT)
}

/// Makes a new span a part of its caller's trace. A header that is none begins a trace of its own.
pub fn continue_trace(span: &Span, traceparent: &str) {
    let headers = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    // Refused only where there are no traces.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
}

impl Traces {
    fn start(endpoint: &OtlpEndpoint, ratio: f64, program: &str, name: &str) -> Result<Self, TelemetryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(|error| TelemetryError(error.to_string()))?;
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from(endpoint.0.clone()).connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy()
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .build()
            .map_err(|error| TelemetryError(error.to_string()))?;
        let about = [KeyValue::new("service.instance.id", name.to_owned())];
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(Resource::builder().with_service_name(program.to_owned()).with_attributes(about).build())
            .build();
        Ok(Self { provider, _runtime: runtime })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.0 {
            // A collector that is away costs the last spans, nothing else.
            let _ = traces.provider.shutdown_with_timeout(PATIENCE);
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("traces", &self.0.is_some()).finish()
    }
}

const PATIENCE: Duration = Duration::from_secs(2);

fn log_lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LINES));
    let to_stderr = lines::layer().with_writer(std::io::stderr);
    let shown = match format {
        LogFormat::Text => to_stderr.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => to_stderr.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    shown.with_filter(chosen).with_filter(filter_fn(|metadata| !of_traces(metadata))).boxed()
}

fn of_traces(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match f64::deserialize(deserializer)? {
        ratio if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        other => Err(D::Error::custom(format!("sample_ratio {other} is not from 0 to 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_host_and_a_port_without_tls() {
        for good in ["http://127.0.0.1:4317", "http://collector.example:4317/", "http://[::1]:4317"] {
            good.parse::<OtlpEndpoint>().unwrap();
        }
        for bad in [
            "",
            "127.0.0.1:4317",
            "https://c:4317",
            "http://c",
            "http://c:0",
            "http://c:4317/v1/traces",
            "http://c:1?x",
        ] {
            assert!(bad.parse::<OtlpEndpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_is_continued_from_its_header() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _default = tracing_subscriber::registry().with(layer).set_default();
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(), None);
        let span = tracing::info_span!(target: TARGET, "answer");
        continue_trace(&span, header);
        let inner = span.in_scope(traceparent).unwrap();
        assert_eq!(inner[..36], header[..36], "{inner}");
        assert_ne!(inner[36..52], header[36..52], "a span of its own: {inner}");
        let other = tracing::info_span!(target: TARGET, "answer");
        continue_trace(&other, "nonsense");
        assert_ne!(other.in_scope(traceparent).unwrap()[..36], header[..36]);
    }
}
