//! Calls over mutual TLS to one of several signers.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use holdfast_proto::{
    error::Error,
    identity::Role,
    signer::v1::{self, signer_client::SignerClient},
    tls::{self, ConnectError, Credentials},
    trace,
};
use tokio::runtime::{Builder, Runtime};
use tonic::{Response, Status, transport::Channel};

use crate::{
    for_each_call,
    transport::{EcdhAnswer, Transport},
};

/// A transport over gRPC. It keeps to one signer until that is unavailable, then goes on with the next; a call fails
/// as unavailable when all of them were.
///
/// A call that one signer may or may not have carried out is safe to give to another: every call is idempotent, and the
/// signers share their guard.
pub struct Grpc {
    signers: Arc<Signers>,
    // Taken only by drop.
    runtime: Option<Runtime>,
    traceparent: fn() -> Option<String>,
}

impl Grpc {
    /// Connects at the first call, and again whenever a connection is lost. `endpoints` are `host:port` each; what
    /// answers there must hold a signer's certificate of our trust domain.
    pub fn new(endpoints: &[String], credentials: &Credentials) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::misuse("endpoints", "there is none"));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("signer-client")
            .enable_all()
            .build()
            .map_err(|e| Error::Internal(format!("starting the signer client's threads: {e}")))?;
        let entered = runtime.enter();
        let clients = endpoints
            .iter()
            .map(|endpoint| {
                let client = SignerClient::new(tls::connect_lazy(endpoint, credentials, Role::Signer));
                (endpoint.clone(), client)
            })
            .collect();
        drop(entered);
        Ok(Self {
            signers: Arc::new(Signers { clients, preferred: AtomicUsize::new(0) }),
            runtime: Some(runtime),
            traceparent: || None,
        })
    }

    /// Has LDK's calls carry the trace (W3C Trace Context) that `traceparent` gives for the thread that makes them.
    pub fn with_traceparent(mut self, traceparent: fn() -> Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// The newest term that a signer knows of. Asks once.
    pub async fn newest_term(&self) -> Result<u64, Error> {
        let ask =
            |mut client: SignerClient<Channel>| async move { client.get_node_info(v1::GetNodeInfoRequest {}).await };
        Ok(self.spawn(ask).await?.newest_term)
    }

    /// Raises the signers' term to `term`; from then on older terms are refused. Asks once.
    pub async fn announce_term(&self, term: u64) -> Result<u64, Error> {
        let ask = move |mut client: SignerClient<Channel>| async move {
            client.announce_term(v1::AnnounceTermRequest { term }).await
        };
        Ok(self.spawn(ask).await?.newest_term)
    }

    fn runtime(&self) -> &Runtime {
        // Some until drop, after which there is no self to call this on.
        self.runtime.as_ref().expect("the runtime is there until drop")
    }

    /// For callers with a runtime of their own: waits without blocking it.
    async fn spawn<T, F, Fut>(&self, call: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(SignerClient<Channel>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let signers = self.signers.clone();
        let task = self.runtime().spawn(async move { signers.ask(call).await });
        task.await.unwrap_or_else(|e| Err(Error::Internal(format!("the call's task ended: {e}"))))
    }

    /// For LDK's threads: the network moves on its own threads, this one sleeps.
    fn block<T, F, Fut>(&self, call: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(SignerClient<Channel>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let signers = self.signers.clone();
        self.runtime().spawn(async move {
            let _ = answer.send(signers.ask(call).await);
        });
        answered.recv().unwrap_or_else(|_| Err(Error::Internal("the call's task ended without an answer".into())))
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        // A plain drop would wait for the runtime's threads, which panics when the last user is an async task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

macro_rules! grpc {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        impl Transport for Grpc {
            $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error> {
                let parent = (self.traceparent)();
                self.block(move |mut client| {
                    let request = trace::request(request.clone(), parent.as_deref());
                    async move { client.$call(request).await }
                })
            })*

            fn ecdh_ahead(&self, request: v1::EcdhRequest, answer: EcdhAnswer) {
                let signers = self.signers.clone();
                self.runtime().spawn(async move {
                    answer(signers.ask(move |mut client| {
                        let request = request.clone();
                        async move { client.ecdh(request).await }
                    }).await);
                });
            }
        }
    };
}

for_each_call!(grpc);

/// How long one signer may think about one call before it counts as unavailable. An HSM may take a while.
const ATTEMPT: Duration = Duration::from_secs(10);

struct Signers {
    clients: Vec<(String, SignerClient<Channel>)>,
    preferred: AtomicUsize,
}

impl Signers {
    async fn ask<T, F, Fut>(&self, call: F) -> Result<T, Error>
    where
        F: Fn(SignerClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut away = Vec::new();
        for i in (first..first + self.clients.len()).map(|i| i % self.clients.len()) {
            let (endpoint, client) = &self.clients[i];
            let error = match tokio::time::timeout(ATTEMPT, call(client.clone())).await {
                Ok(Ok(response)) => {
                    if i != first {
                        self.preferred.store(i, Ordering::Relaxed);
                        tracing::info!(%endpoint, "went on with another signer");
                    }
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => explain(status),
                Err(_) => Error::unavailable(format!("no answer within {ATTEMPT:?}")),
            };
            match error {
                Error::Unavailable { what, retry_after_ms } => away.push((endpoint, what, retry_after_ms)),
                // Broken is not an answer either: perhaps another one is whole.
                Error::Internal(what) if self.clients.len() > 1 => away.push((endpoint, what, 100)),
                answer => return Err(answer),
            }
        }
        let retry_after_ms = away.iter().map(|(_, _, ms)| *ms).min().unwrap_or(0);
        let what = away.iter().map(|(endpoint, what, _)| named(endpoint, what)).collect::<Vec<_>>();
        Err(Error::Unavailable { what: what.join("; "), retry_after_ms })
    }
}

/// Who failed and how. What says of a connection why it failed begins with the address already.
fn named(endpoint: &str, what: &str) -> String {
    match what.strip_prefix(endpoint) {
        Some(rest) if rest.starts_with(':') => format!("signer {what}"),
        _ => format!("signer {endpoint}: {what}"),
    }
}

/// A status that stands for a failed connection says only "transport error"; what failed is among its sources.
fn explain(status: Status) -> Error {
    match ConnectError::in_chain(&status) {
        Some(failed) => Error::unavailable(failed.to_string()),
        None => Error::from(status),
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_signers_address_is_said_once() {
        assert_eq!(named("a:1", "a:1: refused"), "signer a:1: refused");
        assert_eq!(named("a:1", "a:12: refused"), "signer a:1: a:12: refused");
        assert_eq!(named("a:1", "no answer within 10s"), "signer a:1: no answer within 10s");
    }
}
