//! Health, metrics and a status page over plain HTTP: for load balancers, monitoring, and people in a hurry.

use std::{future::Future, io, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use holdfast_proto::host;
use tokio::net::TcpListener;

use super::{Backend, Metrics, snapshot::Observer, status_page};

/// Serves until `shutdown` is done.
///
/// - `/livez`: 200 while the process runs its event loop.
/// - `/readyz`: 200 when this replica leads or could; else 503 and one line per part that is away.
/// - `/leader`: 200 only on the leader; else 503.
/// - `/metrics`: what [`Metrics`] holds.
/// - `/`: the same for people. Nothing on it acts, and nothing secret is behind any of these.
///
/// `/metrics` and `/` answer 421 to a `Host` that is neither an address, nor `localhost`, nor one of `names`.
pub async fn serve_health(
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    names: Vec<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // It may have been bound on another runtime than the one that serves.
    let listener = TcpListener::from_std(listener.into_std()?)?;
    let observer = Arc::new(Observer::new(backend.clone()));
    let router = Router::new()
        .route("/", get(page))
        .route("/metrics", get(render))
        .route_layer(middleware::from_fn_with_state(Arc::from(names), by_our_name))
        .route("/status.css", get(async || status_page::stylesheet()))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/leader", get(leader))
        .with_state((backend, metrics, observer));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

type Shared = State<(Arc<dyn Backend>, Arc<Metrics>, Arc<Observer>)>;

/// What tells something is told only to who came by a name of ours.
async fn by_our_name(State(names): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match host::is_ours(request.headers().get(header::HOST).map(HeaderValue::as_bytes), &names) {
        true => next.run(request).await,
        false => (StatusCode::MISDIRECTED_REQUEST, "not a name of this listener: add it to names in [health]\n")
            .into_response(),
    }
}

async fn readyz(State((backend, ..)): Shared) -> Response {
    match backend.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(away) => (StatusCode::SERVICE_UNAVAILABLE, away.join("\n") + "\n").into_response(),
    }
}

async fn leader(State((backend, ..)): Shared) -> Response {
    match backend.leading() {
        Some(_) => (StatusCode::OK, "leading\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "standing by\n").into_response(),
    }
}

async fn page(State((.., observer)): Shared) -> Response {
    status_page::answer(&*observer.look().await)
}

async fn render(State((_, metrics, observer)): Shared) -> Response {
    metrics.show(observer.look().await);
    match metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::{super::testing::Fake, *};
    use crate::aside::Aside;

    struct Server {
        address: std::net::SocketAddr,
        _stop: oneshot::Sender<()>,
    }

    impl Server {
        async fn start(backend: Fake) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let metrics = Arc::new(Metrics::new());
            let names = vec!["ours.example".into()];
            tokio::spawn(serve_health(Arc::new(backend), metrics, listener, names, async { drop(stopped.await) }));
            Self { address, _stop: stop }
        }

        async fn get(&self, path: &str) -> (u16, String) {
            self.get_by("127.0.0.1", path).await
        }

        async fn get_by(&self, host: &str, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn only_the_leader_is_the_leader_and_both_are_ready() {
        let leader = Server::start(Fake::leading()).await;
        let standby = Server::start(Fake::standing_by("b", "10.0.0.2:9736")).await;
        assert_eq!(leader.get("/leader").await.0, 200);
        assert_eq!(standby.get("/leader").await.0, 503);
        for server in [&leader, &standby] {
            assert_eq!(server.get("/livez").await.0, 200);
            assert_eq!(server.get("/readyz").await.0, 200);
        }
        assert!(leader.get("/metrics").await.1.contains("\nholdfast_leading 1\n"));
        let (code, text) = standby.get("/metrics").await;
        assert_eq!(code, 200);
        for line in ["holdfast_leading 0", "holdfast_ready 1", "holdfast_term 7"] {
            assert!(text.contains(&format!("\n{line}\n")), "{text}");
        }
        assert_eq!(standby.get("/nothing").await.0, 404);
    }

    /// Threads that wait for LDK's locks may be all that the node's runtime has.
    #[tokio::test]
    async fn it_answers_while_the_nodes_own_runtime_stands_still() {
        use std::{
            io::{Read, Write},
            net::TcpStream,
            time::Duration,
        };

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        let aside = Aside::start("test").unwrap();
        let serving = serve_health(Arc::new(Fake::leading()), metrics, listener, Vec::new(), std::future::pending());
        let _serving = aside.spawn(serving);
        // This test's own runtime has one thread, and that one waits in here.
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn a_replica_that_is_not_ready_says_what_is_away() {
        let server = Server::start(Fake { away: vec!["signer: no answer".into()], ..Fake::leading() }).await;
        assert_eq!(server.get("/readyz").await, (503, "signer: no answer\n".into()));
        assert_eq!(server.get("/livez").await.0, 200);
    }

    /// A name that is pointed at us by somebody else shows him nothing.
    #[tokio::test]
    async fn balances_are_shown_by_our_own_names_alone() {
        let server = Server::start(Fake::leading()).await;
        for path in ["/", "/metrics"] {
            assert_eq!(server.get_by("evil.example", path).await.0, 421, "{path}");
            for ours in ["ours.example:9737", "localhost", "[::1]:9737"] {
                assert_eq!(server.get_by(ours, path).await.0, 200, "{path} {ours}");
            }
        }
        for path in ["/livez", "/readyz", "/leader"] {
            assert_eq!(server.get_by("evil.example", path).await.0, 200, "{path}");
        }
    }
}
