//! Paying and being paid: BOLT 11 and keysend.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::channelmanager::{
        Bolt11InvoiceParameters, Bolt11PaymentError, PaymentId, RecipientOnionFields, Retry, RetryableSendFailure,
    },
    routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig},
    sign::EntropySource,
    types::payment::{PaymentHash, PaymentPreimage},
};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use tokio::sync::watch;

use super::node::LightningNode;
use crate::store::{
    Effect,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
    postgres::PaymentRow,
};

const DEFAULT_EXPIRY_SECONDS: u32 = 3600;
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// How long LDK goes on trying other routes.
const RETRY: Retry = Retry::Timeout(Duration::from_secs(15));
/// BOLT 11's default (min_final_cltv_expiry_delta is 18) and room for blocks found on the way.
const KEYSEND_FINAL_CLTV_DELTA: u32 = 42;

impl LightningNode {
    pub(super) async fn make_invoice(
        &self,
        request: v1::CreateInvoiceRequest,
    ) -> Result<v1::CreateInvoiceResponse, Error> {
        self.must_run()?;
        let expiry = match request.expiry_seconds {
            0 => DEFAULT_EXPIRY_SECONDS,
            seconds => seconds,
        };
        let description =
            Description::new(request.description).map_err(|e| Error::misuse("description", e.to_string()))?;
        let params = Bolt11InvoiceParameters {
            amount_msats: request.amount_msat,
            description: Bolt11InvoiceDescription::Direct(description),
            invoice_expiry_delta_secs: Some(expiry),
            ..Default::default()
        };
        // The signer signs it, so this may block.
        let invoice = tokio::task::block_in_place(|| self.manager.create_bolt11_invoice(params));
        let invoice = invoice.map_err(|e| Error::refused("invoice", format!("{e:?}")))?;
        let payment_hash: [u8; 32] = *AsRef::<[u8; 32]>::as_ref(invoice.payment_hash());
        let text = invoice.to_string();
        self.queue.effect(Effect::Payment(PaymentChange {
            payment_hash,
            direction: Direction::Inbound,
            kind: PaymentKind::Bolt11,
            status: PaymentStatus::Pending,
            amount_msat: request.amount_msat,
            fee_msat: None,
            preimage: None,
            failure: None,
            invoice: Some(text.clone()),
        }));
        self.committed().await?;
        let expires = invoice.duration_since_epoch() + invoice.expiry_time();
        Ok(v1::CreateInvoiceResponse {
            invoice: text,
            payment_hash: hex::encode(payment_hash),
            expires_at_ms: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) async fn pay(&self, request: v1::PayInvoiceRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        let invoice =
            Bolt11Invoice::from_str(request.invoice.trim()).map_err(|e| Error::misuse("invoice", e.to_string()))?;
        if invoice.network() != self.network {
            return Err(Error::misuse(
                "invoice",
                format!("it is for {}, this node is on {}", invoice.network(), self.network),
            ));
        }
        let amount_msat = match (invoice.amount_milli_satoshis(), request.amount_msat) {
            (Some(amount), None) => amount,
            (None, Some(amount)) if amount > 0 => amount,
            (Some(amount), Some(asked)) if amount == asked => amount,
            (Some(amount), Some(_)) => {
                return Err(Error::misuse("amount_msat", format!("the invoice is for {amount} msat")));
            }
            (None, _) => return Err(Error::misuse("amount_msat", "the invoice names no amount, so you must")),
        };
        if invoice.recover_payee_pub_key() == self.manager.get_our_node_id() {
            return Err(Error::misuse("invoice", "it is our own"));
        }
        let payment_hash: [u8; 32] = *AsRef::<[u8; 32]>::as_ref(invoice.payment_hash());
        let limits = RouteParametersConfig {
            max_total_routing_fee_msat: Some(request.max_fee_msat.unwrap_or_else(|| default_max_fee(amount_msat))),
            ..Default::default()
        };
        let row = PaymentChange {
            payment_hash,
            direction: Direction::Outbound,
            kind: PaymentKind::Bolt11,
            status: PaymentStatus::Pending,
            amount_msat: Some(amount_msat),
            fee_msat: None,
            preimage: None,
            failure: None,
            invoice: Some(request.invoice.trim().to_owned()),
        };
        self.send(row, request.wait_ms, || {
            if invoice.would_expire(Duration::from_secs(unix_now())) {
                return Err(Error::misuse("invoice", "it has expired"));
            }
            let given = invoice.amount_milli_satoshis().is_none().then_some(amount_msat);
            let id = PaymentId(payment_hash);
            match self.manager.pay_for_bolt11_invoice(&invoice, id, given, limits, RETRY) {
                Ok(()) => Ok(true),
                Err(Bolt11PaymentError::InvalidAmount) => {
                    Err(Error::misuse("amount_msat", "it does not fit the invoice"))
                }
                Err(Bolt11PaymentError::SendingFailed(failure)) => not_sent(failure),
            }
        })
        .await
    }

    pub(super) async fn keysend(&self, request: v1::SendKeysendRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        let payee = PublicKey::from_str(&request.node_id).map_err(|e| Error::misuse("node_id", e.to_string()))?;
        if payee == self.manager.get_our_node_id() {
            return Err(Error::misuse("node_id", "it is our own"));
        }
        if request.amount_msat == 0 {
            return Err(Error::misuse("amount_msat", "it is 0"));
        }
        let preimage = PaymentPreimage(self.keys.get_secure_random_bytes());
        let payment_hash = PaymentHash::from(preimage);
        let row = PaymentChange {
            payment_hash: payment_hash.0,
            direction: Direction::Outbound,
            kind: PaymentKind::Keysend,
            status: PaymentStatus::Pending,
            amount_msat: Some(request.amount_msat),
            fee_msat: None,
            preimage: None,
            failure: None,
            invoice: None,
        };
        let params = PaymentParameters::for_keysend(payee, KEYSEND_FINAL_CLTV_DELTA, false);
        let mut route = RouteParameters::from_payment_params_and_value(params, request.amount_msat);
        route.max_total_routing_fee_msat =
            Some(request.max_fee_msat.unwrap_or_else(|| default_max_fee(request.amount_msat)));
        self.send(row, request.wait_ms, || {
            let onion = RecipientOnionFields::spontaneous_empty();
            match self.manager.send_spontaneous_payment(Some(preimage), onion, PaymentId(payment_hash.0), route, RETRY)
            {
                Ok(_) => Ok(true),
                Err(failure) => not_sent(failure),
            }
        })
        .await
    }

    /// Begins a payment with its row, or joins one that is under way, and answers when it is over or the wait is.
    ///
    /// `begin` says whether it began the payment; false means that LDK is at it already.
    async fn send(
        &self,
        row: PaymentChange,
        wait_ms: u32,
        begin: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<v1::Payment, Error> {
        let payment_hash = row.payment_hash;
        // LDK forgets payments some time after they are settled; the table does not.
        if let Some(known) = self.outbound_row(payment_hash).await?
            && known.status == PaymentStatus::Succeeded
        {
            return Ok(payment_message(known));
        }
        self.forwards.wait(&self.manager, &self.dialer).await;
        let over = self.settled.watch(payment_hash);
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                // Asked under the mutex, so that a handover that has begun to disconnect finds no payment begun after it.
                self.must_run()?;
                if begin()? {
                    self.queue.effect(Effect::Payment(row));
                }
                Ok::<_, Error>(())
            })
        })?;
        self.committed().await?;
        let wait = match wait_ms {
            0 => DEFAULT_WAIT,
            ms => Duration::from_millis(ms.into()),
        };
        wait_until_over(over, wait).await;
        // What came last must be durable before anybody hears of it.
        self.committed().await?;
        let row = self.outbound_row(payment_hash).await?;
        row.map(payment_message).ok_or_else(|| Error::Internal("a committed payment has no row".into()))
    }

    async fn outbound_row(&self, payment_hash: [u8; 32]) -> Result<Option<PaymentRow>, Error> {
        Ok(self.reader.payment_in(payment_hash, Direction::Outbound).await?)
    }
}

async fn wait_until_over(mut over: watch::Receiver<bool>, wait: Duration) {
    let _ = tokio::time::timeout(wait, over.wait_for(|over| *over)).await;
}

/// Why LDK did not even begin.
fn not_sent(failure: RetryableSendFailure) -> Result<bool, Error> {
    match failure {
        RetryableSendFailure::DuplicatePayment => Ok(false),
        RetryableSendFailure::PaymentExpired => Err(Error::misuse("invoice", "it has expired")),
        RetryableSendFailure::RouteNotFound => Err(Error::unavailable("a route to the payee with enough liquidity")),
        RetryableSendFailure::OnionPacketSizeExceeded => {
            Err(Error::misuse("invoice", "its route does not fit an onion"))
        }
    }
}

/// LDK's and lnd's habit: one percent, and enough for small payments to find a way.
fn default_max_fee(amount_msat: u64) -> u64 {
    (amount_msat / 100).saturating_add(50_000)
}

/// A row as operators see it.
pub fn payment_message(row: PaymentRow) -> v1::Payment {
    let direction = match row.direction {
        Direction::Inbound => v1::PaymentDirection::Inbound,
        Direction::Outbound => v1::PaymentDirection::Outbound,
    };
    let status = match row.status {
        PaymentStatus::Pending => v1::PaymentStatus::Pending,
        PaymentStatus::Succeeded => v1::PaymentStatus::Succeeded,
        PaymentStatus::Failed => v1::PaymentStatus::Failed,
    };
    v1::Payment {
        payment_hash: hex::encode(row.payment_hash),
        direction: direction.into(),
        status: status.into(),
        amount_msat: row.amount_msat,
        fee_msat: row.fee_msat,
        preimage: row.preimage.map(hex::encode).unwrap_or_default(),
        failure: row.failure.unwrap_or_default(),
        invoice: row.invoice.unwrap_or_default(),
        created_ms: row.created_ms,
        updated_ms: row.updated_ms,
        sequence: row.sequence,
        kind: match row.kind {
            PaymentKind::Bolt11 => "bolt11",
            PaymentKind::Keysend => "keysend",
        }
        .into(),
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
