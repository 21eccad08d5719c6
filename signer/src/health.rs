//! Health and metrics over plain HTTP, for service managers and monitoring. Nothing secret is behind it.

use std::{future::Future, io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use holdfast_proto::tls::Credentials;
use tokio::net::TcpListener;

use crate::service::SignerCore;

/// Serves until `shutdown` is done.
///
/// - `/livez`: 200 while the process runs its event loop.
/// - `/readyz`: 200 when the last self-test of custody passed; else 503 and the reason.
/// - `/metrics`: OpenMetrics.
pub async fn serve(
    core: Arc<SignerCore>,
    credentials: Credentials,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((core, credentials));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn readyz(State((core, _)): State<(Arc<SignerCore>, Credentials)>) -> Response {
    match core.not_ready() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics(State((core, credentials)): State<(Arc<SignerCore>, Credentials)>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], core.metrics_text(credentials.expires())).into_response()
}
