//! `Debug` for messages that carry secrets: keys, preimages and invoices show only how much there is of them.
//!
//! Each message is taken apart field by field, so that a field added to the contract does not compile until somebody
//! has decided here whether it may be shown.

use std::fmt;

use crate::{node::v1 as node, signer::v1 as signer};

macro_rules! redacted {
    ($($message:path { $($shown:ident),* ; $($hidden:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($hidden,)* } = self;
                let name = stringify!($message).rsplit(' ').next().unwrap_or_default();
                let name = name.rsplit("::").next().unwrap_or_default();
                f.debug_struct(name)
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Hidden($hidden)))*
                    .finish()
            }
        }
    )*};
}

redacted! {
    signer::GetReplicaSecretsResponse { ; inbound_payment_key, peer_storage_key, receive_auth_key }
    signer::EcdhRequest { term, point; tweak }
    signer::EcdhResponse { ; shared_secret }
    signer::SignInvoiceRequest { term; invoice }
    signer::SignCounterpartyCommitmentRequest {
        term, channel, commitment; inbound_htlc_preimages, outbound_htlc_preimages
    }
    signer::ValidateHolderCommitmentRequest {
        term, channel, commitment, counterparty_signature, counterparty_htlc_signatures; outbound_htlc_preimages
    }
    signer::ReleaseCommitmentSecretResponse { ; secret }
    signer::ValidateCounterpartyRevocationRequest { term, channel_keys_id, number; secret }
    signer::SignHolderHtlcRequest {
        term, channel, commitment_number, commitment_txid, feerate_sat_per_kw, htlc, input_index; preimage, transaction
    }
    // The inputs of a claim may already have their witnesses, and those carry preimages.
    signer::SignCounterpartyHtlcRequest {
        term, channel, per_commitment_point, htlc, amount_sat, input_index; transaction
    }
    signer::SignJusticeRequest { term, channel, amount_sat, htlc, transaction, input_index; per_commitment_secret }
    node::CreateInvoiceResponse { payment_hash, expires_at_ms; invoice }
    node::PayInvoiceRequest {
        amount_msat, max_fee_msat, wait_ms, timeout_seconds, label, idempotency_key; invoice, payer_note
    }
    node::SettleInvoiceRequest { payment_hash; preimage }
    node::CreateRefundResponse { payment; refund }
    node::ClaimRefundRequest { label, wait_ms; refund }
    node::Payment {
        payment_hash, direction, status, amount_msat, fee_msat, failure, created_ms, updated_ms, sequence, kind,
        payment_id, label, cancel_height, parts;
        preimage, invoice, offer, metadata, payer_note
    }
}

/// How much there is of something that is not shown.
struct Hidden<'a, T>(&'a T);

impl fmt::Debug for Hidden<'_, Vec<u8>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl fmt::Debug for Hidden<'_, String> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} characters>", self.0.len())
    }
}

impl fmt::Debug for Hidden<'_, Option<Vec<u8>>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "<{} bytes>", bytes.len()),
            None => f.write_str("<none>"),
        }
    }
}

impl fmt::Debug for Hidden<'_, Vec<Vec<u8>>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} of them>", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte and a text that nothing else in a message would print.
    const SECRET: [u8; 32] = [173; 32];
    const TEXT: &str = "tell-nobody";

    fn shows_no_secret(message: &dyn fmt::Debug, name: &str) {
        for shown in [format!("{message:?}"), format!("{message:#?}")] {
            assert!(shown.starts_with(name), "{shown}");
            assert!(!shown.contains("173") && !shown.contains(TEXT), "{shown}");
        }
    }

    #[test]
    fn no_message_shows_its_secrets() {
        let secret = SECRET.to_vec();
        shows_no_secret(
            &signer::GetReplicaSecretsResponse {
                inbound_payment_key: secret.clone(),
                peer_storage_key: secret.clone(),
                receive_auth_key: secret.clone(),
            },
            "GetReplicaSecretsResponse",
        );
        shows_no_secret(
            &signer::EcdhRequest { term: 1, point: vec![2; 33], tweak: Some(secret.clone()) },
            "EcdhRequest",
        );
        shows_no_secret(&signer::EcdhResponse { shared_secret: secret.clone() }, "EcdhResponse");
        shows_no_secret(&signer::SignInvoiceRequest { term: 1, invoice: TEXT.into() }, "SignInvoiceRequest");
        shows_no_secret(
            &signer::SignCounterpartyCommitmentRequest {
                inbound_htlc_preimages: vec![secret.clone()],
                outbound_htlc_preimages: vec![secret.clone()],
                ..Default::default()
            },
            "SignCounterpartyCommitmentRequest",
        );
        shows_no_secret(
            &signer::ValidateHolderCommitmentRequest {
                outbound_htlc_preimages: vec![secret.clone()],
                ..Default::default()
            },
            "ValidateHolderCommitmentRequest",
        );
        shows_no_secret(
            &signer::ReleaseCommitmentSecretResponse { secret: secret.clone() },
            "ReleaseCommitmentSecretResponse",
        );
        shows_no_secret(
            &signer::ValidateCounterpartyRevocationRequest { secret: secret.clone(), ..Default::default() },
            "ValidateCounterpartyRevocationRequest",
        );
        shows_no_secret(
            &signer::SignHolderHtlcRequest { preimage: Some(secret.clone()), ..Default::default() },
            "SignHolderHtlcRequest",
        );
        shows_no_secret(
            &signer::SignCounterpartyHtlcRequest { transaction: secret.clone(), ..Default::default() },
            "SignCounterpartyHtlcRequest",
        );
        shows_no_secret(
            &signer::SignJusticeRequest { per_commitment_secret: secret, ..Default::default() },
            "SignJusticeRequest",
        );
        shows_no_secret(
            &node::CreateInvoiceResponse { invoice: TEXT.into(), ..Default::default() },
            "CreateInvoiceResponse",
        );
        shows_no_secret(&node::PayInvoiceRequest { invoice: TEXT.into(), ..Default::default() }, "PayInvoiceRequest");
        let settle = node::SettleInvoiceRequest { preimage: TEXT.into(), ..Default::default() };
        shows_no_secret(&settle, "SettleInvoiceRequest");
        let claim = node::ClaimRefundRequest { refund: TEXT.into(), ..Default::default() };
        shows_no_secret(&claim, "ClaimRefundRequest");
        let payment = node::Payment {
            preimage: TEXT.into(),
            invoice: TEXT.into(),
            offer: TEXT.into(),
            metadata: TEXT.into(),
            ..Default::default()
        };
        let refund = node::CreateRefundResponse { refund: TEXT.into(), payment: Some(payment.clone()) };
        shows_no_secret(&refund, "CreateRefundResponse");
        shows_no_secret(&payment, "Payment");
        shows_no_secret(&node::ListPaymentsResponse { payments: vec![payment] }, "ListPaymentsResponse");
    }
}
