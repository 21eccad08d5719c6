//! BOLT 12: offers and refunds, made and taken.
//!
//! Their keys are derived for each from one that LDK keeps in the node and that can neither spend nor speak for the node
//! (SECURITY.md), so the signer has no part in them. LDK keeps no list of offers: any of ours is answered for as long as
//! it has not expired. What an operator has disabled is therefore remembered here and refused before LDK sees it.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::{constants::ChainHash, secp256k1::PublicKey};
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::channelmanager::{OptionalOfferPaymentParams, PaymentId, Retry},
    offers::{
        invoice_error::InvoiceError,
        offer::{Amount, Offer, OfferId},
        parse::Bolt12SemanticError,
        refund::Refund,
    },
    onion_message::{
        messenger::{MessageSendInstructions, Responder, ResponseInstruction},
        offers::{OffersMessage, OffersMessageHandler},
    },
    sign::EntropySource,
    util::persist::KVStoreSync,
};

use super::{
    BufferedKv, limits,
    node::LightningNode,
    payments::{Begun, Budget, Outgoing, label, wait},
    records::{offer_message, payment_message},
    settled::Settled,
    types::ChannelManager,
};
use crate::store::{
    Effect, KvKey,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
};

const NAMESPACE: &str = "disabled-offers";
const DEFAULT_REFUND_EXPIRY: u32 = 86_400;
/// How long a payee may take to answer and a payment to go through, unless the payer says otherwise.
const DEFAULT_OFFER_TIMEOUT: u32 = 60;

/// The offers that an operator has disabled, and the payees whose invoices we wait for.
pub struct Offers {
    kv: Arc<BufferedKv>,
    /// By the offer's id.
    disabled: Mutex<HashMap<[u8; 32], PublicKey>>,
    awaited: Mutex<HashMap<[u8; 32], Instant>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the record of a disabled offer `{0}` does not parse")]
pub struct OfferError(String);

impl Offers {
    pub fn load(loaded: &HashMap<KvKey, Vec<u8>>, kv: Arc<BufferedKv>) -> Result<Self, OfferError> {
        let parse = |(key, bytes): (&KvKey, &Vec<u8>)| {
            let mut id = [0; 32];
            let id = hex::decode_to_slice(&key.key, &mut id).ok().map(|()| id);
            id.zip(PublicKey::from_slice(bytes).ok()).ok_or_else(|| OfferError(key.key.clone()))
        };
        let disabled =
            loaded.iter().filter(|(key, _)| key.primary == NAMESPACE).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { kv, disabled: Mutex::new(disabled), awaited: Mutex::default() })
    }

    fn disable(&self, id: [u8; 32], key: PublicKey) {
        if let Err(error) = self.kv.write(NAMESPACE, "", &hex::encode(id), key.serialize().to_vec()) {
            tracing::error!(%error, "the commit buffer refused a disabled offer");
        }
        self.disabled().insert(id, key);
    }

    pub fn is_disabled(&self, id: &OfferId) -> bool {
        self.disabled().contains_key(&id.0)
    }

    /// Each offer of ours has a signing key of its own, which a request for it names.
    fn is_disabled_key(&self, key: &PublicKey) -> bool {
        self.disabled().values().any(|disabled| disabled == key)
    }

    /// The payee's invoice has come, or will not be paid any more.
    pub fn answered(&self, payment_id: &[u8; 32]) {
        self.awaited().remove(payment_id);
    }

    /// Payments whose payee had until now to send an invoice.
    pub fn take_unanswered(&self) -> Vec<PaymentId> {
        let now = Instant::now();
        self.awaited().extract_if(|_, until| *until <= now).map(|(id, _)| PaymentId(id)).collect()
    }

    fn disabled(&self) -> MutexGuard<'_, HashMap<[u8; 32], PublicKey>> {
        // Each change is a single insert.
        self.disabled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        // Each change is a single insert or remove.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes messages about offers to the channel manager, but for requests for an offer that was disabled.
pub struct OfferGate {
    manager: Arc<ChannelManager>,
    offers: Arc<Offers>,
}

impl OfferGate {
    pub fn new(manager: Arc<ChannelManager>, offers: Arc<Offers>) -> Self {
        Self { manager, offers }
    }
}

impl OffersMessageHandler for OfferGate {
    fn handle_message(
        &self,
        message: OffersMessage,
        context: Option<lightning::blinded_path::message::OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        if let OffersMessage::InvoiceRequest(request) = &message
            && request.issuer_signing_pubkey().is_some_and(|key| self.offers.is_disabled_key(&key))
        {
            let error = InvoiceError::from_string("the offer is no longer valid".into());
            return responder.map(|responder| (OffersMessage::InvoiceError(error), responder.respond()));
        }
        self.manager.handle_message(message, context, responder)
    }

    fn release_pending_messages(&self) -> Vec<(OffersMessage, MessageSendInstructions)> {
        self.manager.release_pending_messages()
    }
}

impl LightningNode {
    pub(super) async fn make_offer(&self, request: v1::CreateOfferRequest) -> Result<v1::Offer, Error> {
        self.must_run()?;
        let label = label(request.label)?;
        limits::msat("amount_msat", request.amount_msat)?;
        limits::seconds("expiry_seconds", request.expiry_seconds)?;
        let expires = match request.expiry_seconds {
            0 => None,
            seconds => Some(Duration::from_secs(super::payments::unix_now().saturating_add(seconds))),
        };
        let mut builder = self.manager.create_offer_builder().map_err(not_made)?;
        if !request.description.is_empty() {
            builder = builder.description(request.description.clone());
        }
        if let Some(amount_msat) = request.amount_msat {
            builder = builder.amount_msats(amount_msat);
        }
        if let Some(expires) = expires {
            builder = builder.absolute_expiry(expires);
        }
        let offer = builder.build().map_err(not_made)?;
        self.queue.effect(Effect::OfferCreated {
            offer_id: offer.id().0,
            offer: offer.to_string(),
            amount_msat: request.amount_msat,
            description: request.description,
            label,
            expires_at_s: expires.map(|expires| expires.as_secs()),
        });
        self.committed().await?;
        self.offer_row(offer.id().0).await
    }

    pub(super) async fn end_offer(&self, request: v1::DisableOfferRequest) -> Result<v1::Offer, Error> {
        self.must_run()?;
        let id = super::payments::hash("offer_id", &request.offer_id)?;
        let row = self.offer_row(id).await?;
        let offer = Offer::from_str(&row.offer).map_err(|e| Error::Internal(format!("a stored offer: {e:?}")))?;
        // LDK derives one for each offer that it makes.
        let key = offer.issuer_signing_pubkey().ok_or_else(|| Error::Internal("an offer without a key".into()))?;
        self.queue.with_state(|| {
            self.offers.disable(id, key);
            self.queue.effect(Effect::OfferDisabled { offer_id: id });
        });
        self.committed().await?;
        self.offer_row(id).await
    }

    async fn offer_row(&self, offer_id: [u8; 32]) -> Result<v1::Offer, Error> {
        let row = self.reader.offer(offer_id).await?;
        row.map(offer_message).ok_or_else(|| Error::misuse("offer_id", "we made no such offer"))
    }

    pub(super) async fn pay_offer(&self, request: v1::PayInvoiceRequest) -> Result<v1::Payment, Error> {
        let text = request.invoice.trim().to_owned();
        let offer = Offer::from_str(&text).map_err(|e| Error::misuse("invoice", format!("not an offer: {e:?}")))?;
        if !offer.supports_chain(ChainHash::using_genesis_block(self.network)) {
            return Err(Error::misuse("invoice", format!("the offer is not for {}", self.network)));
        }
        let amount_msat = match (offer.amount(), request.amount_msat) {
            (Some(Amount::Bitcoin { amount_msats }), None) => amount_msats,
            (Some(Amount::Bitcoin { amount_msats }), Some(asked)) if asked >= amount_msats => asked,
            (Some(Amount::Bitcoin { amount_msats }), Some(_)) => {
                return Err(Error::misuse("amount_msat", format!("the offer asks for {amount_msats} msat")));
            }
            (Some(Amount::Currency { .. }), _) => {
                return Err(Error::misuse("invoice", "the offer names a currency that is not bitcoin"));
            }
            (None, Some(asked)) if asked > 0 => asked,
            (None, _) => return Err(Error::misuse("amount_msat", "the offer names no amount, so you must")),
        };
        let payment_id = self.keys.get_secure_random_bytes();
        let payer_note = (!request.payer_note.is_empty()).then_some(request.payer_note);
        let budget = Budget::of(amount_msat, request.max_fee_msat, request.timeout_seconds, DEFAULT_OFFER_TIMEOUT)?;
        let row = PaymentChange {
            amount_msat: Some(amount_msat),
            offer: Some(text.clone()),
            label: label(request.label)?,
            payer_note: payer_note.clone(),
            ..PaymentChange::new(payment_id, Direction::Outbound, PaymentKind::Offer, PaymentStatus::Pending)
        };
        let out = Outgoing::new(row, &request.idempotency_key, &[b"offer", text.as_bytes()], wait(request.wait_ms))?;
        self.send(out, move |node| {
            // Only now: what was paid under the key before it expired is still what was paid.
            if offer.is_expired() {
                return Err(Error::misuse("invoice", "the offer has expired"));
            }
            let params = OptionalOfferPaymentParams {
                payer_note,
                route_params_config: budget.route(),
                retry_strategy: budget.retry(),
            };
            // Named even where the offer does, so that LDK takes no invoice over another amount.
            node.manager
                .pay_for_offer(&offer, Some(amount_msat), PaymentId(payment_id), params)
                .map_err(|e| not_begun("invoice", e))?;
            node.offers.awaited().insert(payment_id, Instant::now() + budget.timeout);
            Ok(Begun::Now)
        })
        .await
    }

    pub(super) async fn make_refund(
        &self,
        request: v1::CreateRefundRequest,
    ) -> Result<v1::CreateRefundResponse, Error> {
        self.must_run()?;
        let amount_msat = request.amount_msat;
        if amount_msat == 0 {
            return Err(Error::misuse("amount_msat", "it is 0"));
        }
        limits::msat("amount_msat", amount_msat)?;
        limits::seconds("expiry_seconds", request.expiry_seconds)?;
        let expiry = match request.expiry_seconds {
            0 => DEFAULT_REFUND_EXPIRY,
            seconds => seconds,
        };
        let expires = Duration::from_secs(super::payments::unix_now().saturating_add(expiry.into()));
        let budget = Budget::of(amount_msat, request.max_fee_msat, request.timeout_seconds, 0)?;
        let payment_id = self.keys.get_secure_random_bytes();
        let row = PaymentChange {
            amount_msat: Some(amount_msat),
            label: label(request.label)?,
            ..PaymentChange::new(payment_id, Direction::Outbound, PaymentKind::Refund, PaymentStatus::Pending)
        };
        let asked = [b"refund".as_slice(), request.description.as_bytes()];
        let out = Outgoing::new(row, &request.idempotency_key, &asked, Duration::ZERO)?;
        let payment = self
            .send(out, move |node| {
                let id = PaymentId(payment_id);
                let (retry, route): (Retry, _) = (budget.retry(), budget.route());
                let builder = node.manager.create_refund_builder(amount_msat, expires, id, retry, route);
                let mut builder = builder.map_err(|e| not_begun("amount_msat", e))?;
                if !request.description.is_empty() {
                    builder = builder.description(request.description);
                }
                match builder.build() {
                    Ok(refund) => Ok(Begun::WithOffer(refund.to_string())),
                    Err(error) => {
                        node.manager.abandon_payment(id);
                        Err(not_begun("description", error))
                    }
                }
            })
            .await?;
        Ok(v1::CreateRefundResponse { refund: payment.offer.clone(), payment: Some(payment) })
    }

    pub(super) async fn take_refund(&self, request: v1::ClaimRefundRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        let text = request.refund.trim().to_owned();
        let refund = Refund::from_str(&text).map_err(|e| Error::misuse("refund", format!("not a refund: {e:?}")))?;
        if refund.chain() != ChainHash::using_genesis_block(self.network) {
            return Err(Error::misuse("refund", format!("it is not for {}", self.network)));
        }
        if refund.is_expired() {
            return Err(Error::misuse("refund", "it has expired"));
        }
        let label = label(request.label)?;
        self.forwards.wait(&self.manager, &self.dialer).await;
        let (hash, over) = tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                let invoice = self.manager.request_refund_payment(&refund).map_err(|e| not_begun("refund", e))?;
                let hash = invoice.payment_hash().0;
                let mut bytes = Vec::new();
                // Writing to a Vec cannot fail.
                let _ = lightning::util::ser::Writeable::write(&invoice, &mut bytes);
                let row = PaymentChange::of_hash(hash, Direction::Inbound, PaymentKind::Refund, PaymentStatus::Pending);
                self.queue.effect(Effect::Payment(PaymentChange {
                    amount_msat: Some(refund.amount_msats()),
                    invoice: Some(hex::encode(bytes)),
                    offer: Some(text),
                    label,
                    ..row
                }));
                Ok::<_, Error>((hash, self.settled.watch(hash)))
            })
        })?;
        self.committed().await?;
        Settled::wait(over, wait(request.wait_ms)).await;
        self.committed().await?;
        let row = self.reader.payment_in(hash, Direction::Inbound).await?;
        row.map(payment_message).ok_or_else(|| Error::Internal("a committed payment has no row".into()))
    }
}

fn not_made(error: Bolt12SemanticError) -> Error {
    match error {
        Bolt12SemanticError::InvalidAmount => Error::misuse("amount_msat", "it is more than there is"),
        other => not_begun("description", other),
    }
}

fn not_begun(field: &str, error: Bolt12SemanticError) -> Error {
    match error {
        Bolt12SemanticError::MissingPaths => Error::unavailable(
            "a way for others to reach this node: it needs a public channel, or a connected peer that passes messages on",
        ),
        other => Error::misuse(field, format!("{other:?}")),
    }
}
