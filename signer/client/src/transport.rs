//! How calls reach a signer: one blocking method for each call of the contract.

use holdfast_proto::{error::Error, signer::v1};

/// Gives every call of the contract to a macro as `method(Request) -> Response;`, so that a [`Transport`] can be written
/// without spelling them all out:
///
/// ```ignore
/// macro_rules! in_process {
///     ($($call:ident($request:ident) -> $response:ident;)*) => {
///         impl Transport for InProcess {
///             $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error> {
///                 self.core.$call(&self.caller, request)
///             })*
///         }
///     };
/// }
/// holdfast_signer_client::for_each_call!(in_process);
/// ```
#[macro_export]
macro_rules! for_each_call {
    ($then:ident) => {
        $then! {
            get_node_info(GetNodeInfoRequest) -> GetNodeInfoResponse;
            get_replica_secrets(GetReplicaSecretsRequest) -> GetReplicaSecretsResponse;
            announce_term(AnnounceTermRequest) -> AnnounceTermResponse;
            ecdh(EcdhRequest) -> EcdhResponse;
            sign_invoice(SignInvoiceRequest) -> SignInvoiceResponse;
            sign_gossip(SignGossipRequest) -> SignatureResponse;
            sign_message(SignMessageRequest) -> SignMessageResponse;
            get_channel_public_keys(GetChannelPublicKeysRequest) -> ChannelPublicKeys;
            get_per_commitment_points(GetPerCommitmentPointsRequest) -> GetPerCommitmentPointsResponse;
            register_funding(RegisterFundingRequest) -> RegisterFundingResponse;
            sign_counterparty_commitment(SignCounterpartyCommitmentRequest) -> SignCounterpartyCommitmentResponse;
            validate_holder_commitment(ValidateHolderCommitmentRequest) -> ValidateHolderCommitmentResponse;
            release_commitment_secret(ReleaseCommitmentSecretRequest) -> ReleaseCommitmentSecretResponse;
            validate_counterparty_revocation(ValidateCounterpartyRevocationRequest)
                -> ValidateCounterpartyRevocationResponse;
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
    };
}

/// What becomes of an ECDH asked for ahead of time.
pub type EcdhAnswer = Box<dyn FnOnce(Result<v1::EcdhResponse, Error>) + Send>;

macro_rules! transport {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        /// One attempt at each call. `Error::Unavailable` says that nothing was decided; whether to try again is the
        /// caller's business. Every call may block.
        pub trait Transport: Send + Sync + 'static {
            $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error>;)*

            /// Asks without waiting for the answer, if the transport can. It may answer before it returns.
            fn ecdh_ahead(&self, request: v1::EcdhRequest, answer: EcdhAnswer) {
                answer(self.ecdh(request));
            }
        }
    };
}

for_each_call!(transport);
