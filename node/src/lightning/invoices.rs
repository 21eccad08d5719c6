//! Being paid by BOLT 11: invoices, and those that wait for an operator's word when they are paid.

use std::{sync::Arc, time::Duration};

use bitcoin::hashes::{Hash, sha256};
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::channelmanager::{Bolt11InvoiceParameters, MIN_FINAL_CLTV_EXPIRY_DELTA},
    sign::{NodeSigner, Recipient},
    types::payment::{PaymentHash, PaymentPreimage},
};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description, RawTaggedField, TaggedField};
use tokio::task::block_in_place;

use super::{
    holds::{MARGIN_BLOCKS, Word},
    limits,
    node::LightningNode,
    payments::{hash, label},
    records::payment_message,
    settled::Settled,
};
use crate::store::{
    Effect,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
};

const DEFAULT_EXPIRY_SECONDS: u32 = 3600;
/// A day; most of it is time to settle.
const DEFAULT_HOLD_DELTA: u16 = 144;
/// Some hours between being paid and being cancelled.
const MIN_HOLD_DELTA: u16 = MIN_FINAL_CLTV_EXPIRY_DELTA + MARGIN_BLOCKS as u16 + 6;
/// Payers bound the whole of a route's delay, most of them by two weeks.
const MAX_DELTA: u16 = 1008;
const MAX_METADATA_BYTES: usize = 512;
/// How long an operator waits for a claim that is already committed.
const CLAIMED_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

impl LightningNode {
    pub(super) async fn make_invoice(
        &self,
        request: v1::CreateInvoiceRequest,
    ) -> Result<v1::CreateInvoiceResponse, Error> {
        self.must_run()?;
        limits::msat("amount_msat", request.amount_msat)?;
        limits::seconds("expiry_seconds", request.expiry_seconds)?;
        let expiry = match request.expiry_seconds {
            0 => DEFAULT_EXPIRY_SECONDS,
            seconds => seconds,
        };
        let given_hash = match request.payment_hash.as_str() {
            "" => None,
            hex => Some(PaymentHash(hash("payment_hash", hex)?)),
        };
        let holds = request.hold || given_hash.is_some();
        if let Some(given) = given_hash
            && self.reader.payment_in(given.0, Direction::Inbound).await?.is_some()
        {
            return Err(Error::misuse("payment_hash", "there is an invoice for it: a hash is used once"));
        }
        let label = label(request.label)?;
        let metadata = hex::decode(&request.metadata).map_err(|_| Error::misuse("metadata", "is not hex"))?;
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(Error::misuse("metadata", format!("it is longer than {MAX_METADATA_BYTES} bytes")));
        }
        let description =
            Description::new(request.description).map_err(|e| Error::misuse("description", e.to_string()))?;
        let params = Bolt11InvoiceParameters {
            amount_msats: request.amount_msat,
            description: Bolt11InvoiceDescription::Direct(description),
            invoice_expiry_delta_secs: Some(expiry),
            min_final_cltv_expiry_delta: final_delta(request.final_cltv_delta, holds)?,
            payment_hash: given_hash,
        };
        // The signer signs it, so this may block.
        let invoice = block_in_place(|| {
            let invoice = self.manager.create_bolt11_invoice(params);
            let invoice = invoice.map_err(|e| Error::refused("invoice", format!("{e:?}")))?;
            if metadata.is_empty() { Ok(invoice) } else { self.with_metadata(invoice, metadata.clone()) }
        })?;
        let payment_hash: [u8; 32] = *AsRef::<[u8; 32]>::as_ref(invoice.payment_hash());
        let expires = invoice.duration_since_epoch() + invoice.expiry_time();
        let text = invoice.to_string();
        self.queue.with_state(|| {
            let (made, lasts) = (invoice.duration_since_epoch().as_secs(), invoice.expiry_time().as_secs());
            if holds && !self.holds.add(payment_hash, made, lasts) {
                return Err(Error::misuse("payment_hash", "there is an invoice for it: a hash is used once"));
            }
            let row =
                PaymentChange::of_hash(payment_hash, Direction::Inbound, PaymentKind::Bolt11, PaymentStatus::Pending);
            self.queue.effect(Effect::Payment(PaymentChange {
                amount_msat: request.amount_msat,
                invoice: Some(text.clone()),
                label,
                metadata: (!metadata.is_empty()).then_some(metadata),
                ..row
            }));
            Ok(())
        })?;
        self.committed().await?;
        Ok(v1::CreateInvoiceResponse {
            invoice: text,
            payment_hash: hex::encode(payment_hash),
            expires_at_ms: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// LDK makes no invoices with metadata, so what it made is signed once more, with it. Payers that do not know
    /// metadata must not pay: they would leave it out.
    fn with_metadata(&self, invoice: Bolt11Invoice, metadata: Vec<u8>) -> Result<Bolt11Invoice, Error> {
        let (mut raw, _, _) = invoice.into_signed_raw().into_parts();
        for field in &mut raw.data.tagged_fields {
            if let RawTaggedField::KnownSemantics(TaggedField::Features(features)) = field {
                features.set_payment_metadata_required();
            }
        }
        raw.data.tagged_fields.push(TaggedField::PaymentMetadata(metadata).into());
        let signature = self.keys.sign_invoice(&raw, Recipient::Node);
        let signed = raw.sign(|_| signature).map_err(|()| Error::refused("invoice", "the signer does not sign it"))?;
        Bolt11Invoice::from_signed(signed).map_err(|e| Error::Internal(format!("an invoice with metadata: {e}")))
    }

    pub(super) async fn settle(&self, request: v1::SettleInvoiceRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        let preimage = match request.preimage.as_str() {
            "" => None,
            hex => Some(PaymentPreimage(hash("preimage", hex)?)),
        };
        let of_preimage = preimage.map(|preimage| sha256::Hash::hash(&preimage.0).to_byte_array());
        let payment_hash = match (request.payment_hash.as_str(), of_preimage) {
            ("", Some(of_preimage)) => of_preimage,
            (hex, of_preimage) => {
                let given = hash("payment_hash", hex)?;
                if of_preimage.is_some_and(|of_preimage| of_preimage != given) {
                    return Err(Error::misuse("preimage", "it is not the hash's"));
                }
                given
            }
        };
        let over = self.settled.watch(payment_hash);
        block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                let height = self.manager.current_best_block().height;
                match self.holds.settle(payment_hash, preimage, height).map_err(hold_misuse)? {
                    Word::Claim(Ok(preimage)) => self.manager.claim_funds(preimage),
                    Word::Claim(Err(secret)) => {
                        let preimage = self.manager.get_payment_preimage(PaymentHash(payment_hash), secret);
                        let preimage = preimage.map_err(|e| Error::Internal(format!("a preimage of ours: {e:?}")))?;
                        // Asked again with the preimage, so that it is written down that it is on its way.
                        self.holds.settle(payment_hash, Some(preimage), height).map_err(hold_misuse)?;
                        self.manager.claim_funds(preimage);
                    }
                    Word::Fail | Word::Nothing => {}
                }
                Ok::<_, Error>(())
            })
        })?;
        self.committed().await?;
        let row = self.inbound(payment_hash).await?;
        if row.status() == v1::PaymentStatus::Succeeded {
            return Ok(row);
        }
        Settled::wait(over, CLAIMED_WITHIN).await;
        self.committed().await?;
        self.inbound(payment_hash).await
    }

    pub(super) async fn cancel(&self, request: v1::CancelInvoiceRequest) -> Result<v1::Payment, Error> {
        self.must_run()?;
        let payment_hash = hash("payment_hash", &request.payment_hash)?;
        block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                if self.holds.cancel(payment_hash).map_err(hold_misuse)? == Word::Fail {
                    self.give_back(payment_hash, "cancelled by the operator");
                }
                Ok::<_, Error>(())
            })
        })?;
        self.committed().await?;
        self.inbound(payment_hash).await
    }

    /// Cancels what has waited for too long, until the node ends.
    pub(super) async fn guard_holds(node: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let height = node.manager.current_best_block().height;
            block_in_place(|| {
                node.queue.with_state(|| {
                    for payment_hash in node.holds.take_due(height) {
                        tracing::warn!(%height, payment_hash = hex::encode(payment_hash), "cancelled a held payment: nobody settled it in time");
                        node.give_back(payment_hash, "cancelled by the node: it was not settled before its deadline");
                    }
                    node.holds.forget();
                    for payment_id in node.offers.take_unanswered() {
                        node.manager.abandon_payment(payment_id);
                    }
                });
            });
        }
    }

    /// Under the state's mutex.
    fn give_back(&self, payment_hash: [u8; 32], why: &str) {
        // Nothing happens if LDK has given it back already, or if nobody has paid.
        self.manager.fail_htlc_backwards(&PaymentHash(payment_hash));
        let row = PaymentChange::of_hash(payment_hash, Direction::Inbound, PaymentKind::Bolt11, PaymentStatus::Failed);
        self.queue.effect(Effect::Payment(PaymentChange { failure: Some(why.to_owned()), ..row }));
    }

    async fn inbound(&self, payment_hash: [u8; 32]) -> Result<v1::Payment, Error> {
        let row = self.reader.payment_in(payment_hash, Direction::Inbound).await?;
        row.map(payment_message).ok_or_else(|| Error::Internal("a committed invoice has no row".into()))
    }
}

fn hold_misuse(why: &'static str) -> Error {
    Error::misuse("payment_hash", why)
}

/// The blocks that the last hop must leave us, as LDK takes them.
fn final_delta(asked: u32, holds: bool) -> Result<Option<u16>, Error> {
    let min = if holds { MIN_HOLD_DELTA } else { MIN_FINAL_CLTV_EXPIRY_DELTA };
    match u16::try_from(asked) {
        Ok(0) if holds => Ok(Some(DEFAULT_HOLD_DELTA)),
        Ok(0) => Ok(None),
        Ok(delta) if (min..=MAX_DELTA).contains(&delta) => Ok(Some(delta)),
        _ => Err(Error::misuse("final_cltv_delta", format!("it must be from {min} to {MAX_DELTA} blocks"))),
    }
}
