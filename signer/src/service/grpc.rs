//! The calls on the network: mutual TLS tells who asks, threads that may block answer.

use std::{future::Future, sync::Arc, time::Duration};

use holdfast_proto::{
    error::Error,
    identity::Identity,
    signer::v1::{
        self,
        signer_server::{Signer, SignerServer},
    },
    telemetry,
    tls::{self, Credentials},
    trace,
};
use tokio::{net::TcpListener, sync::Semaphore, task};
use tonic::{Request, Response, Status};
use tracing::Span;

use super::{
    SignerCore,
    door::{Door, Places, Size},
    self_test::{Pace, keep_testing},
};

/// Calls that are answered at once; more wait. Each holds a thread while it waits for the disk.
const CALLS_AT_ONCE: usize = 64;
/// Calls that the token takes part in have places of their own: when it hangs, channels still move.
const TOKEN_CALLS_AT_ONCE: usize = 32;
/// Calls on one connection: many more than the token's places, so that channels still move while those that wait for a
/// token that hangs pile up.
const STREAMS: u32 = 200;

/// How long a connection lasts before the other side has to make a new one, and so to show a certificate that still counts.
/// What was asked on the old one is answered. (tonic's grace period is left out: with one, 0.14 skips the orderly end.)
const CONNECTION_AGE: Duration = Duration::from_secs(3600);

/// Serves `core` on `listener` until `shutdown`, then finishes what is being answered.
pub async fn serve(
    core: Arc<SignerCore>,
    listener: TcpListener,
    credentials: Credentials,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    serve_with(core, listener, credentials, CONNECTION_AGE, shutdown).await
}

pub(super) async fn serve_with(
    core: Arc<SignerCore>,
    listener: TcpListener,
    credentials: Credentials,
    connection_age: Duration,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let tests = tokio::spawn(keep_testing(Arc::clone(&core), Pace::default()));
    let service = Service {
        core: Arc::clone(&core),
        calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
        token_calls: Arc::new(Semaphore::new(TOKEN_CALLS_AT_ONCE)),
    };
    let service = Arc::new(service);
    let sized = |size: Size| SignerServer::from_arc(Arc::clone(&service)).max_decoding_message_size(size.bytes());
    let [small, medium, large] = [Size::Small, Size::Medium, Size::Large].map(sized);
    let served = tls::server()
        .max_connection_age(connection_age)
        .max_concurrent_streams(STREAMS)
        .add_service(Door { core, places: Places::default(), small, medium, large })
        .serve_with_incoming_shutdown(tls::incoming(listener, credentials), shutdown)
        .await;
    tests.abort();
    served
}

struct Service {
    core: Arc<SignerCore>,
    calls: Arc<Semaphore>,
    token_calls: Arc<Semaphore>,
}

impl Service {
    async fn call<Q, A>(
        &self,
        name: &'static str,
        request: Request<Q>,
        places: &Arc<Semaphore>,
        answer: fn(&SignerCore, &Identity, Q) -> Result<A, Error>,
    ) -> Result<Response<A>, Status>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let caller = tls::peer_identity(&request)?;
        // A call that its caller follows is followed on; the others would be traces of one span each.
        let span = trace::parent(&request).map_or_else(Span::none, |parent| {
            let span = tracing::info_span!(target: trace::TARGET, "answer", otel.name = name, otel.kind = "server");
            telemetry::continue_trace(&span, parent);
            span
        });
        // The semaphore is never closed.
        let permit = Arc::clone(places).acquire_owned().await.map_err(|_| Status::unavailable("shutting down"))?;
        let core = Arc::clone(&self.core);
        let answered = task::spawn_blocking(move || {
            // Held by the thread: a client that goes away does not free the place of a call that still runs.
            let _permit = permit;
            span.in_scope(|| answer(&core, &caller, request.into_inner()))
        });
        match answered.await {
            Ok(result) => Ok(Response::new(result?)),
            Err(_) => Err(Error::Internal("the call panicked".into()).into()),
        }
    }
}

macro_rules! calls {
    ($($places:ident: { $($name:ident($request:ident) -> $response:ident;)* })*) => {
        #[tonic::async_trait]
        impl Signer for Service {
            $($(async fn $name(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                self.call(stringify!($name), request, &self.$places, SignerCore::$name).await
            })*)*
        }
    };
}

calls! {
    token_calls: {
        ecdh(EcdhRequest) -> EcdhResponse;
        sign_invoice(SignInvoiceRequest) -> SignInvoiceResponse;
        sign_gossip(SignGossipRequest) -> SignatureResponse;
        sign_message(SignMessageRequest) -> SignMessageResponse;
    }
    calls: {
        get_node_info(GetNodeInfoRequest) -> GetNodeInfoResponse;
        get_replica_secrets(GetReplicaSecretsRequest) -> GetReplicaSecretsResponse;
        announce_term(AnnounceTermRequest) -> AnnounceTermResponse;
        get_channel_public_keys(GetChannelPublicKeysRequest) -> ChannelPublicKeys;
        get_per_commitment_points(GetPerCommitmentPointsRequest) -> GetPerCommitmentPointsResponse;
        register_funding(RegisterFundingRequest) -> RegisterFundingResponse;
        sign_counterparty_commitment(SignCounterpartyCommitmentRequest) -> SignCounterpartyCommitmentResponse;
        validate_holder_commitment(ValidateHolderCommitmentRequest) -> ValidateHolderCommitmentResponse;
        release_commitment_secret(ReleaseCommitmentSecretRequest) -> ReleaseCommitmentSecretResponse;
        validate_counterparty_revocation(ValidateCounterpartyRevocationRequest) -> ValidateCounterpartyRevocationResponse;
        sign_holder_commitment(SignHolderCommitmentRequest) -> SignatureResponse;
        sign_holder_htlc(SignHolderHtlcRequest) -> SignatureResponse;
        sign_counterparty_htlc(SignCounterpartyHtlcRequest) -> SignatureResponse;
        sign_justice(SignJusticeRequest) -> SignatureResponse;
        sign_holder_anchor(SignHolderAnchorRequest) -> SignatureResponse;
        sign_closing(SignClosingRequest) -> SignatureResponse;
        sign_channel_announcement(SignChannelAnnouncementRequest) -> SignatureResponse;
        sign_splice_input(SignSpliceInputRequest) -> SignatureResponse;
        sign_spendable_outputs(SignSpendableOutputsRequest) -> SignSpendableOutputsResponse;
        sign_wallet_psbt(SignWalletPsbtRequest) -> SignWalletPsbtResponse;
        get_status(GetStatusRequest) -> GetStatusResponse;
        get_channel_state(GetChannelStateRequest) -> GetChannelStateResponse;
    }
}
