//! Health and metrics over plain HTTP, for service managers and monitoring. Nothing secret is behind it.

use std::{future::Future, io, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use holdfast_proto::{host, tls::Credentials};
use tokio::net::TcpListener;

use crate::service::SignerCore;

/// Serves until `shutdown` is done.
///
/// - `/livez`: 200 while the process runs its event loop.
/// - `/readyz`: 200 when the last self-test of custody passed; else 503 and the reason.
/// - `/metrics`: OpenMetrics; 421 to a `Host` that is neither an address, nor `localhost`, nor one of `names`.
pub async fn serve(
    core: Arc<SignerCore>,
    credentials: Credentials,
    listener: TcpListener,
    names: Vec<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(Arc::from(names), by_our_name))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state((core, credentials));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

/// What tells something is told only to who came by a name of ours.
async fn by_our_name(State(names): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match host::is_ours(request.headers().get(header::HOST).map(HeaderValue::as_bytes), &names) {
        true => next.run(request).await,
        false => {
            (StatusCode::MISDIRECTED_REQUEST, "not a name of this listener: add it to health_names\n").into_response()
        }
    }
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
