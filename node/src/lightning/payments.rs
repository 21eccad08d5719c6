//! Paying: BOLT 11, keysend and, with [`super::offers`], BOLT 12. Being paid is in [`super::invoices`].

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::channelmanager::{
        Bolt11PaymentError, PaymentId, RecentPaymentDetails, RecipientOnionFields, Retry, RetryableSendFailure,
    },
    routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig},
    sign::EntropySource,
    types::payment::{PaymentHash, PaymentPreimage},
};
use lightning_invoice::Bolt11Invoice;

use super::{keyed::Key, limits, node::LightningNode, records::payment_message, settled::Settled};
use crate::store::{
    Effect,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
    postgres::{PaymentRow, storable},
};

const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// How long LDK goes on trying other routes, unless the payer says otherwise.
const DEFAULT_TIMEOUT: u32 = 15;
/// BOLT 11's default (min_final_cltv_expiry_delta is 18) and room for blocks found on the way.
pub(super) const KEYSEND_FINAL_CLTV_DELTA: u32 = 42;
const LABEL_BYTES: usize = 1024;

/// What a payment may cost, in money and in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    max_fee_msat: u64,
    /// No new attempt is made after this. HTLCs that are on their way cannot be called back.
    pub timeout: Duration,
}

impl Budget {
    pub fn of(
        amount_msat: u64,
        max_fee_msat: Option<u64>,
        timeout_s: u32,
        default_timeout_s: u32,
    ) -> Result<Self, Error> {
        limits::msat("max_fee_msat", max_fee_msat)?;
        limits::seconds("timeout_seconds", timeout_s)?;
        let seconds = [timeout_s, default_timeout_s, DEFAULT_TIMEOUT].into_iter().find(|seconds| *seconds > 0);
        Ok(Self {
            max_fee_msat: max_fee_msat.unwrap_or_else(|| default_max_fee(amount_msat)),
            timeout: Duration::from_secs(seconds.unwrap_or(DEFAULT_TIMEOUT).into()),
        })
    }

    pub fn retry(&self) -> Retry {
        Retry::Timeout(self.timeout)
    }

    pub fn route(&self) -> RouteParametersConfig {
        RouteParametersConfig { max_total_routing_fee_msat: Some(self.max_fee_msat), ..Default::default() }
    }
}

/// A payment about to be made.
pub(super) struct Outgoing {
    row: PaymentChange,
    key: Option<Key>,
    wait: Duration,
}

impl Outgoing {
    /// `payee` and the row's amount are what an idempotency key stands for.
    pub fn new(row: PaymentChange, key: &str, payee: &[&[u8]], wait: Duration) -> Result<Self, Error> {
        limits::msat("amount_msat", row.amount_msat)?;
        let amount = row.amount_msat.unwrap_or(0).to_be_bytes();
        let asked: Vec<&[u8]> = payee.iter().copied().chain([&amount[..]]).collect();
        let key = Key::parse(key, &asked)?;
        // LDK must not begin what could never be written down.
        storable(&Effect::Payment(row.clone())).map_err(Error::Internal)?;
        Ok(Self { key, row, wait })
    }
}

/// What became of the attempt to begin a payment.
pub(super) enum Begun {
    Now,
    /// It stands on a BOLT 12 string that was made just now.
    WithOffer(String),
    /// LDK is at it already.
    Before,
    /// There is no way to the payee, or none within the budget. Nothing was sent.
    NoRoute,
}

impl LightningNode {
    pub(super) async fn pay(&self, request: v1::PayInvoiceRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        match request.invoice.trim().get(..3).map(str::to_ascii_lowercase).as_deref() {
            Some("lno") => return self.pay_offer(request).await,
            Some("lnr") => return Err(Error::misuse("invoice", "it is a refund: it can be claimed, not paid")),
            _ => {}
        }
        let text = request.invoice.trim().to_owned();
        let neither = |e| Error::misuse("invoice", format!("neither a BOLT 11 invoice nor a BOLT 12 offer: {e}"));
        let invoice = Bolt11Invoice::from_str(&text).map_err(neither)?;
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
        if !request.payer_note.is_empty() {
            return Err(Error::misuse("payer_note", "only the payee of an offer can be told something"));
        }
        let payment_hash: [u8; 32] = *AsRef::<[u8; 32]>::as_ref(invoice.payment_hash());
        let budget = Budget::of(amount_msat, request.max_fee_msat, request.timeout_seconds, DEFAULT_TIMEOUT)?;
        let row = PaymentChange {
            amount_msat: Some(amount_msat),
            metadata: invoice.payment_metadata().cloned(),
            label: label(request.label)?,
            invoice: Some(text),
            ..PaymentChange::of_hash(payment_hash, Direction::Outbound, PaymentKind::Bolt11, PaymentStatus::Pending)
        };
        let out = Outgoing::new(row, &request.idempotency_key, &[b"bolt11", &payment_hash], wait(request.wait_ms))?;
        self.send(out, move |node| {
            if invoice.would_expire(Duration::from_secs(unix_now())) {
                return Err(Error::misuse("invoice", "it has expired"));
            }
            let given = invoice.amount_milli_satoshis().is_none().then_some(amount_msat);
            let id = PaymentId(payment_hash);
            match node.manager.pay_for_bolt11_invoice(&invoice, id, given, budget.route(), budget.retry()) {
                Ok(()) => Ok(Begun::Now),
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
        let budget = Budget::of(request.amount_msat, request.max_fee_msat, request.timeout_seconds, DEFAULT_TIMEOUT)?;
        let row = PaymentChange {
            amount_msat: Some(request.amount_msat),
            label: label(request.label)?,
            ..PaymentChange::of_hash(payment_hash.0, Direction::Outbound, PaymentKind::Keysend, PaymentStatus::Pending)
        };
        let asked = [b"keysend".as_slice(), &payee.serialize()];
        let out = Outgoing::new(row, &request.idempotency_key, &asked, wait(request.wait_ms))?;
        let params = PaymentParameters::for_keysend(payee, KEYSEND_FINAL_CLTV_DELTA, false);
        let mut route = RouteParameters::from_payment_params_and_value(params, request.amount_msat);
        route.max_total_routing_fee_msat = Some(budget.max_fee_msat);
        self.send(out, move |node| {
            let (onion, id) = (RecipientOnionFields::spontaneous_empty(), PaymentId(payment_hash.0));
            match node.manager.send_spontaneous_payment(Some(preimage), onion, id, route, budget.retry()) {
                Ok(_) => Ok(Begun::Now),
                Err(failure) => not_sent(failure),
            }
        })
        .await
    }

    /// Begins a payment with its row and its key, or joins the one that is there, and answers when it is over or the wait
    /// is. Whoever asked may go away: what has begun is seen through to its commit.
    pub(super) async fn send(
        &self,
        out: Outgoing,
        begin: impl FnOnce(&Self) -> Result<Begun, Error> + Send + 'static,
    ) -> Result<v1::Payment, Error> {
        let Outgoing { row, key, wait } = out;
        let node = self.this.upgrade().ok_or_else(|| Error::unavailable("this replica no longer leads"))?;
        let turn = key.as_ref().map(|key| key.key.clone());
        let begun = async move {
            if let Some(known) = node.paid_under(key.as_ref()).await? {
                return Ok(known);
            }
            let payment_id = row.payment_id;
            node.begin(row, key, begin).await?;
            Ok(payment_id)
        };
        let payment_id = self.turns.see_through(turn.as_deref(), begun).await?;
        self.outcome(payment_id, wait).await
    }

    /// The payment that was asked for under a key before.
    pub(super) async fn paid_under(&self, key: Option<&Key>) -> Result<Option<[u8; 32]>, Error> {
        let Some(key) = key else { return Ok(None) };
        match self.reader.payment_key(&key.key).await? {
            Some(known) if known.request == key.request => Ok(Some(known.payment_id)),
            Some(_) => Err(Error::misuse("idempotency_key", "it was used for something else")),
            None => Ok(None),
        }
    }

    /// Returns when the payment's beginning is durable.
    async fn begin(
        &self,
        mut row: PaymentChange,
        key: Option<Key>,
        begin: impl FnOnce(&Self) -> Result<Begun, Error>,
    ) -> Result<(), Error> {
        let payment_id = row.payment_id;
        // LDK forgets payments some time after they are settled; the table does not.
        let known = self.outbound_row(payment_id).await?.map(|known| known.status);
        // A row that waits for its end gets it from LDK, which may have sent word of it and forgotten the payment since.
        let is_known = matches!(known, Some(PaymentStatus::Succeeded | PaymentStatus::Pending));
        if !is_known {
            self.forwards.wait(&self.manager, &self.dialer).await;
        }
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                // Asked under the mutex, so that a handover that has begun to disconnect finds no payment begun after it.
                self.must_run()?;
                let may_get_a_route = self.forwards.peers_may_come(&self.manager, &self.dialer);
                // LDK looks for a route before it looks whether it is at this payment already, whose HTLCs take the room
                // that the route would need: it would find none, and a payment under way would be called failed.
                let is_before = is_known || is_under_way(&self.manager.list_recent_payments(), payment_id);
                match if is_before { Begun::Before } else { begin(self)? } {
                    Begun::Now => self.queue.effect(Effect::Payment(row)),
                    Begun::WithOffer(offer) => {
                        row.offer = Some(offer);
                        self.queue.effect(Effect::Payment(row));
                    }
                    Begun::Before => {}
                    Begun::NoRoute if may_get_a_route => {
                        return Err(Error::unavailable("a route to the payee: peers are not connected yet"));
                    }
                    Begun::NoRoute => {
                        self.queue.effect(Effect::Payment(PaymentChange {
                            status: PaymentStatus::Failed,
                            failure: Some("RouteNotFound".into()),
                            ..row
                        }));
                        self.settled.notify(&payment_id);
                    }
                }
                if let Some(Key { key, request }) = key {
                    self.queue.effect(Effect::PaymentKey { key, request, payment_id });
                }
                Ok(())
            })
        })?;
        self.committed().await
    }

    /// The row of a payment when it is over, or the wait is.
    async fn outcome(&self, payment_id: [u8; 32], wait: Duration) -> Result<v1::Payment, Error> {
        let over = self.settled.watch(payment_id);
        // What came before the watch is durable after this.
        self.committed().await?;
        let mut row = self.outbound_row(payment_id).await?;
        if row.as_ref().is_some_and(|row| row.status == PaymentStatus::Pending) && !wait.is_zero() {
            Settled::wait(over, wait).await;
            // What came last must be durable before anybody hears of it.
            self.committed().await?;
            row = self.outbound_row(payment_id).await?;
        }
        row.map(payment_message).ok_or_else(|| Error::Internal("a committed payment has no row".into()))
    }

    async fn outbound_row(&self, payment_id: [u8; 32]) -> Result<Option<PaymentRow>, Error> {
        Ok(self.reader.payment_in(payment_id, Direction::Outbound).await?)
    }
}

/// Whether LDK would call it a duplicate. One that is fulfilled or given up is known to it until its last HTLC is gone.
fn is_under_way(recent: &[RecentPaymentDetails], payment_id: [u8; 32]) -> bool {
    use RecentPaymentDetails::{Abandoned, AwaitingInvoice, Fulfilled, Pending};
    recent.iter().any(|payment| match payment {
        AwaitingInvoice { payment_id: id }
        | Pending { payment_id: id, .. }
        | Fulfilled { payment_id: id, .. }
        | Abandoned { payment_id: id, .. } => id.0 == payment_id,
    })
}

/// Why LDK did not even begin.
fn not_sent(failure: RetryableSendFailure) -> Result<Begun, Error> {
    match failure {
        RetryableSendFailure::DuplicatePayment => Ok(Begun::Before),
        RetryableSendFailure::PaymentExpired => Err(Error::misuse("invoice", "it has expired")),
        RetryableSendFailure::RouteNotFound => Ok(Begun::NoRoute),
        RetryableSendFailure::OnionPacketSizeExceeded => {
            Err(Error::misuse("invoice", "its route does not fit an onion"))
        }
    }
}

/// LDK's and lnd's habit: one percent, and enough for small payments to find a way.
pub(super) fn default_max_fee(amount_msat: u64) -> u64 {
    (amount_msat / 100).saturating_add(50_000)
}

/// How long an operator waits; 0 stands for the default.
pub(super) fn wait(wait_ms: u32) -> Duration {
    match wait_ms {
        0 => DEFAULT_WAIT,
        ms => Duration::from_millis(ms.into()),
    }
}

/// An operator's note. An empty one is none.
pub(super) fn label(label: String) -> Result<Option<String>, Error> {
    match label.len() {
        0 => Ok(None),
        1..=LABEL_BYTES => Ok(Some(label)),
        _ => Err(Error::misuse("label", format!("it is longer than {LABEL_BYTES} bytes"))),
    }
}

/// 64 hex digits in the field of this name.
pub(super) fn hash(field: &str, hex: &str) -> Result<[u8; 32], Error> {
    let mut hash = [0; 32];
    hex::decode_to_slice(hex, &mut hash).map_err(|_| Error::misuse(field, "is not 64 hex digits"))?;
    Ok(hash)
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 32] = [7; 32];

    #[test]
    fn a_payment_that_ldk_still_knows_is_not_begun_again() {
        let (payment_id, payment_hash) = (PaymentId(ID), PaymentHash(ID));
        for known in [
            RecentPaymentDetails::AwaitingInvoice { payment_id },
            RecentPaymentDetails::Pending { payment_id, payment_hash, total_msat: 1 },
            RecentPaymentDetails::Fulfilled { payment_id, payment_hash: None },
            RecentPaymentDetails::Abandoned { payment_id, payment_hash },
        ] {
            let recent = [known];
            assert!(is_under_way(&recent, ID), "{recent:?}");
            assert!(!is_under_way(&recent, [8; 32]));
        }
        assert!(!is_under_way(&[], ID));
    }

    #[test]
    fn what_no_row_can_hold_is_refused_before_it_is_begun() {
        let asked = |amount_msat, max_fee_msat, timeout_s| {
            let row = PaymentChange {
                amount_msat: Some(amount_msat),
                ..PaymentChange::of_hash(ID, Direction::Outbound, PaymentKind::Keysend, PaymentStatus::Pending)
            };
            Budget::of(amount_msat, max_fee_msat, timeout_s, 0)?;
            Outgoing::new(row, "", &[], Duration::ZERO).map(drop)
        };
        let huge = 10_000_000_000_000_000_000;
        assert!(asked(1000, Some(10), 60).is_ok());
        for (refused, name) in [
            (asked(huge, None, 0), "amount_msat"),
            (asked(1, Some(huge), 0), "max_fee_msat"),
            (asked(1, None, u32::MAX), "timeout_seconds"),
        ] {
            assert!(matches!(&refused, Err(Error::Misuse { field, .. }) if field == name), "{refused:?}");
        }
    }
}
