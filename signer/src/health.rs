//! Health and metrics over plain HTTP, for service managers and monitoring. Nothing secret is behind it.

use std::{future::Future, io, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::service::SignerCore;

/// Serves until `shutdown` is done.
///
/// - `/livez`: 200 while the process runs its event loop.
/// - `/readyz`: 200 when the last self-test of custody passed; else 503 and the reason.
/// - `/metrics`: OpenMetrics.
pub async fn serve(
    core: Arc<SignerCore>,
    certificates_expire: SystemTime,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((core, certificates_expire));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn readyz(State((core, _)): State<(Arc<SignerCore>, SystemTime)>) -> Response {
    match core.not_ready() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics(State((core, expires)): State<(Arc<SignerCore>, SystemTime)>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], core.metrics_text(expires)).into_response()
}
