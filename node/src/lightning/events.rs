//! What LDK tells the node, and what the node does about it.
//!
//! Every event is handled under the commit queue's mutex: what it changes, the rows that people will read of it, and its
//! removal from LDK's list are committed together. A crash before that commit brings the event back, and then nothing of
//! the first handling is left; so handling needs no memory of its own.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::{Amount, OutPoint, secp256k1::PublicKey};
use holdfast_signer_client::RemoteKeys;
use lightning::{
    chain::chaininterface::BroadcasterInterface,
    events::{Event, EventHandler, FundingInfo, InboundChannelFunds, PathFailure, PaymentPurpose, ReplayEvent},
    ln::{
        channelmanager::{FailureCode, PaymentId},
        types::ChannelId,
    },
    routing::scoring::ScoreUpdate,
    sign::{EntropySource, SpendableOutputDescriptor},
    types::payment::PaymentHash,
};

use super::{
    BufferedBroadcaster, CommitQueue,
    acceptance::{Acceptance, Wanted},
    channel_backup::ChannelBackups,
    funding::Fundings,
    holds::{Arrival, Holds},
    metrics::PaymentMetrics,
    offers::Offers,
    pace::Pace,
    peers::Dialer,
    probes::Probes,
    received::{self, Received},
    records,
    settled::Settled,
    signing_wallet::SigningWallet,
    types::{ChannelManager, FeeBumper, Graph, Scorer, Sweeper},
};
use crate::{
    chain::{FeeEstimates, Wallet},
    store::{
        Effect,
        batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
    },
};

/// All that handling an event may need.
pub struct Events {
    pub manager: Arc<ChannelManager>,
    pub queue: Arc<CommitQueue>,
    pub broadcaster: Arc<BufferedBroadcaster>,
    pub keys: Arc<RemoteKeys>,
    pub wallet: Arc<Wallet>,
    pub signing_wallet: Arc<SigningWallet>,
    pub fundings: Arc<Fundings>,
    pub fees: Arc<FeeEstimates>,
    pub fee_bumper: Arc<FeeBumper>,
    pub sweeper: Arc<Sweeper>,
    pub graph: Arc<Graph>,
    pub scorer: Arc<Mutex<Scorer>>,
    pub settled: Arc<Settled>,
    pub received: Received,
    pub holds: Arc<Holds>,
    pub offers: Arc<Offers>,
    pub probes: Arc<Probes>,
    pub dialer: Arc<Dialer>,
    pub backups: Arc<ChannelBackups>,
    pub acceptance: Acceptance,
    pub(super) pace: Mutex<Pace>,
    pub metrics: PaymentMetrics,
}

impl EventHandler for Events {
    fn handle_event(&self, event: Event) -> Result<(), ReplayEvent> {
        self.handle(event);
        Ok(())
    }
}

impl Events {
    fn handle(&self, event: Event) {
        match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => {
                let built = self.wallet.build_payment(
                    output_script.clone(),
                    Amount::from_sat(channel_value_satoshis),
                    self.fundings.feerate(user_channel_id).unwrap_or_else(|| self.fees.funding()),
                    self.manager.current_best_block().height,
                    self.reserve(0),
                );
                let psbt = match built {
                    Ok(psbt) => psbt,
                    Err(error) => {
                        tracing::warn!(%error, channel = %temporary_channel_id, "cannot fund a channel");
                        return self.abandon(
                            temporary_channel_id,
                            counterparty_node_id,
                            "the channel cannot be funded",
                        );
                    }
                };
                let tx = &psbt.unsigned_tx;
                let outpoint =
                    tx.output.iter().position(|output| output.script_pubkey == output_script).and_then(|at| {
                        Some(lightning::chain::transaction::OutPoint {
                            txid: tx.compute_txid(),
                            index: at.try_into().ok()?,
                        })
                    });
                let given = outpoint.map(|funding| {
                    self.manager.unsafe_manual_funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        funding,
                    )
                });
                match given {
                    Some(Ok(())) => self.fundings.insert(user_channel_id, psbt),
                    other => {
                        tracing::warn!(channel = %temporary_channel_id, ?other, "a channel went away before it was funded");
                        self.wallet.release(&psbt.unsigned_tx);
                    }
                }
            }

            Event::FundingTxBroadcastSafe { channel_id, user_channel_id, counterparty_node_id, .. } => {
                let Some(psbt) = self.fundings.remove(user_channel_id) else {
                    tracing::error!(channel = %channel_id, "there is no funding transaction for a channel that waits for it");
                    return self.abandon(channel_id, counterparty_node_id, "the funding transaction is lost");
                };
                let unsigned = psbt.unsigned_tx.clone();
                match self.signing_wallet.sign(psbt) {
                    Ok(tx) => {
                        self.wallet.saw_unconfirmed(&tx);
                        self.broadcaster.broadcast_transactions(&[&tx]);
                    }
                    Err(error) => {
                        tracing::error!(%error, channel = %channel_id, "the signer does not fund a channel");
                        self.wallet.release(&unsigned);
                        self.abandon(channel_id, counterparty_node_id, "the channel cannot be funded");
                    }
                }
            }

            Event::DiscardFunding { funding_info, .. } => {
                let outpoint = match funding_info {
                    FundingInfo::Tx { transaction } => OutPoint { txid: transaction.compute_txid(), vout: 0 },
                    FundingInfo::OutPoint { outpoint } => outpoint.into_bitcoin_outpoint(),
                };
                if let Some(user_channel_id) = self.fundings.channel_of(outpoint) {
                    self.release_funding(user_channel_id);
                }
            }

            Event::PaymentClaimable { payment_hash, purpose, amount_msat, onion_fields, claim_deadline, .. } => {
                let unknown =
                    onion_fields.as_ref().and_then(|fields| fields.custom_tlvs().iter().find(|(id, _)| id % 2 == 0));
                if let Some((id, _)) = unknown {
                    tracing::info!(%payment_hash, id, "refused a payment with a record that must be understood");
                    let code = FailureCode::InvalidOnionPayload(Some((*id, 0)));
                    return self.manager.fail_htlc_backwards_with_reason(&payment_hash, code);
                }
                let arrived = PaymentChange {
                    amount_msat: Some(amount_msat),
                    metadata: onion_fields.and_then(|fields| fields.payment_metadata),
                    ..inbound(payment_hash, &purpose, PaymentStatus::Pending)
                };
                self.claim_or_hold(payment_hash, &purpose, claim_deadline, arrived);
            }
            Event::PaymentClaimed { payment_hash, purpose, amount_msat, htlcs, payment_id, .. } => {
                let parts = received::parts(payment_hash, payment_id, &htlcs);
                if self.received.is_new(payment_hash, &parts) {
                    tracing::info!(%payment_hash, amount_msat, "received a payment");
                    self.metrics.received(amount_msat);
                }
                let preimage = self.holds.claimed(payment_hash.0).or(purpose.preimage());
                self.queue.effect(Effect::Payment(PaymentChange {
                    amount_msat: Some(amount_msat),
                    preimage: preimage.map(|preimage| preimage.0),
                    ..inbound(payment_hash, &purpose, PaymentStatus::Succeeded)
                }));
                for part in parts {
                    self.queue.effect(Effect::PaymentPart(part));
                }
                self.settled.notify(&payment_hash.0);
            }

            Event::InvoiceReceived { payment_id, invoice, context, .. } => {
                self.invoice_received(payment_id, &invoice, context.as_ref());
            }
            Event::PaymentSent { payment_id, payment_hash, payment_preimage, amount_msat, fee_paid_msat, .. } => {
                tracing::info!(%payment_hash, amount_msat, fee_msat = fee_paid_msat, "a payment succeeded");
                self.metrics.sent(amount_msat);
                let payment_id = payment_id.unwrap_or(PaymentId(payment_hash.0));
                self.queue.effect(Effect::Payment(PaymentChange {
                    amount_msat,
                    fee_msat: fee_paid_msat,
                    preimage: Some(payment_preimage.0),
                    ..self.outbound(payment_id, Some(payment_hash), PaymentStatus::Succeeded)
                }));
                self.settled.notify(&payment_id.0);
            }
            Event::PaymentFailed { payment_id, payment_hash, reason } => {
                tracing::info!(%payment_id, ?reason, "a payment failed");
                self.metrics.failed();
                self.offers.answered(&payment_id.0);
                self.queue.effect(Effect::Payment(PaymentChange {
                    failure: Some(records::payment_failure(reason)),
                    ..self.outbound(payment_id, payment_hash, PaymentStatus::Failed)
                }));
                self.settled.notify(&payment_id.0);
            }

            Event::PaymentPathSuccessful { payment_id, path, hold_times, .. } => {
                self.score(|scorer, now| scorer.payment_path_successful(&path, now));
                let name = records::succeeded_part_id(payment_id.0, &path);
                let part = records::outbound_part(name, payment_id.0, &path, &hold_times, None, None);
                self.queue.effect(Effect::PaymentPart(part));
            }
            Event::PaymentPathFailed {
                payment_id,
                payment_hash,
                path,
                short_channel_id,
                payment_failed_permanently,
                failure,
                hold_times,
                ..
            } => {
                if let PathFailure::OnPath { network_update: Some(update) } = &failure {
                    self.graph.handle_network_update(update);
                }
                match short_channel_id {
                    Some(scid) => self.score(|scorer, now| scorer.payment_path_failed(&path, scid, now)),
                    // It reached the payee, who refused it: the path itself is fine.
                    None if payment_failed_permanently => self.score(|scorer, now| scorer.probe_successful(&path, now)),
                    None => {}
                }
                let payment_id = payment_id.unwrap_or(PaymentId(payment_hash.0));
                let why = records::path_failure(&failure, payment_failed_permanently);
                let name = self.new_name();
                let part = records::outbound_part(name, payment_id.0, &path, &hold_times, Some(why), short_channel_id);
                self.queue.effect(Effect::PaymentPart(part));
            }
            Event::ProbeSuccessful { payment_id, path, .. } => {
                self.score(|scorer, now| scorer.probe_successful(&path, now));
                self.probes.ended(&payment_id.0, Ok(()));
            }
            Event::ProbeFailed { payment_id, path, short_channel_id, .. } => {
                if let Some(scid) = short_channel_id {
                    self.score(|scorer, now| scorer.probe_failed(&path, scid, now));
                }
                self.probes.ended(&payment_id.0, Err(short_channel_id));
            }

            Event::PaymentForwarded {
                prev_channel_id,
                next_channel_id,
                total_fee_earned_msat,
                outbound_amount_forwarded_msat,
                ..
            } => {
                // Without a fee the incoming channel has closed, and it may have been told of before.
                if let Some(fee_msat) = total_fee_earned_msat {
                    tracing::info!(amount_msat = outbound_amount_forwarded_msat, fee_msat, "forwarded a payment");
                    self.metrics.forwarded(fee_msat);
                }
                let named = self.manager.next_forwarded_htlc().filter(|(channel, _)| Some(*channel) == prev_channel_id);
                self.queue.effect(Effect::Forward {
                    event_id: named.map_or_else(|| self.new_name(), |(id, htlc)| records::forward_id(id, htlc)),
                    incoming_channel: prev_channel_id.map_or([0; 32], |id| id.0),
                    outgoing_channel: next_channel_id.map_or([0; 32], |id| id.0),
                    amount_msat: outbound_amount_forwarded_msat,
                    fee_msat: total_fee_earned_msat,
                });
            }
            Event::HTLCHandlingFailed { prev_channel_id, failure_type, failure_reason } => {
                tracing::debug!(channel = %prev_channel_id, ?failure_type, ?failure_reason, "failed an HTLC");
            }
            Event::HTLCIntercepted { intercept_id, .. } => {
                // Interception is off; what comes all the same has nobody to forward it.
                let _ = self.manager.fail_intercepted_htlc(intercept_id);
            }

            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                funding_satoshis,
                channel_negotiation_type: funds,
                channel_type,
                is_announced,
                ..
            } => {
                let wanted = Wanted {
                    peer: counterparty_node_id,
                    capacity_sat: funding_satoshis,
                    push_msat: if let InboundChannelFunds::PushMsat(msat) = funds { msat } else { 0 },
                    is_announced,
                    kind: channel_type,
                };
                self.channel_requested(temporary_channel_id, &wanted);
            }
            Event::ChannelPending { channel_id, user_channel_id, counterparty_node_id, funding_txo, .. } => {
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, funding = %funding_txo, "a channel waits for its confirmation");
                self.queue.effect(Effect::ChannelPending {
                    channel_id: channel_id.0,
                    user_channel_id,
                    counterparty: counterparty_node_id.serialize(),
                    funding: funding_txo,
                });
                self.dialer.has_channel(counterparty_node_id);
                self.backups.refresh();
            }
            Event::ChannelReady { channel_id, user_channel_id, counterparty_node_id, .. } => {
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, "a channel is ready");
                self.queue.effect(Effect::ChannelReady { channel_id: channel_id.0, user_channel_id });
                // A splice has another funding output.
                self.backups.refresh();
            }
            Event::ChannelClosed { channel_id, user_channel_id, reason, counterparty_node_id, .. } => {
                tracing::info!(channel = %channel_id, %reason, "a channel closed");
                self.metrics.channel_closed();
                self.queue.effect(Effect::ChannelClosed {
                    channel_id: channel_id.0,
                    user_channel_id,
                    counterparty: counterparty_node_id.map(|id| id.serialize()),
                    reason: reason.to_string(),
                });
                self.backups.refresh();
                if let Some(peer) = counterparty_node_id
                    && self.manager.list_channels_with_counterparty(&peer).is_empty()
                {
                    self.dialer.has_no_channel(&peer);
                }
                // Its funding transaction was not sent yet, so it never will be.
                self.release_funding(user_channel_id);
            }

            Event::SpendableOutputs { outputs, channel_id } => {
                self.sweep(outputs, channel_id);
            }
            Event::BumpTransaction(bump) => self.fee_bumper.handle_event(&bump),
            Event::ConnectionNeeded { node_id, addresses } => {
                self.dialer.dial_in_background(node_id, addresses.iter().map(|address| address.to_string()).collect());
            }

            // Splices, intercepted onion messages and static invoices are not asked for, so none of these come.
            other @ (Event::SplicePending { .. }
            | Event::SpliceFailed { .. }
            | Event::FundingTransactionReadyForSigning { .. }
            | Event::OnionMessageIntercepted { .. }
            | Event::OnionMessagePeerConnected { .. }
            | Event::PersistStaticInvoice { .. }
            | Event::StaticInvoiceRequested { .. }) => tracing::debug!(?other, "passed over an event"),
        }
    }

    /// What the wallet has to keep for the open channels and `more`.
    pub(super) fn reserve(&self, more: u64) -> Amount {
        let channels = self.manager.list_channels().len() as u64 + more;
        Amount::from_sat(channels.saturating_mul(self.wallet.reserve_per_channel_sat()))
    }

    /// Has the sweeper bring home what a closed channel left.
    pub fn sweep(&self, outputs: Vec<SpendableOutputDescriptor>, channel_id: Option<ChannelId>) {
        // What pays to the wallet's own scripts the wallet has seen already, and what a close paid to a destination of
        // the operator's is there. What is left are the scripts of a node that was imported.
        let info = self.keys.info();
        let to_signer =
            |script: &[u8]| [&info.destination_script, &info.shutdown_script].into_iter().any(|s| s == script);
        let outside: Vec<_> = outputs
            .into_iter()
            .filter(|output| match output {
                SpendableOutputDescriptor::StaticOutput { output, .. } => to_signer(output.script_pubkey.as_bytes()),
                _ => true,
            })
            .collect();
        if self.sweeper.track_spendable_outputs(outside, channel_id, false, None).is_err() {
            tracing::error!("the commit buffer refused outputs to sweep");
        }
    }

    /// Gives back the coins of a funding transaction that will never be sent.
    pub fn release_funding(&self, user_channel_id: u128) {
        if let Some(psbt) = self.fundings.remove(user_channel_id) {
            self.wallet.release(&psbt.unsigned_tx);
        }
    }

    /// Ends a channel whose funding is not on its way.
    pub(super) fn abandon(&self, channel: ChannelId, peer: PublicKey, why: &str) {
        if let Err(error) = self.manager.force_close_broadcasting_latest_txn(&channel, &peer, why.to_owned()) {
            tracing::debug!(%channel, ?error, "a channel was gone already");
        }
    }

    fn score(&self, update: impl FnOnce(&mut Scorer, Duration)) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Scores are estimates: one left half-updated by a panic is still one.
        update(&mut self.scorer.lock().unwrap_or_else(|e| e.into_inner()), now);
    }

    /// What becomes of a payment that has arrived.
    fn claim_or_hold(
        &self,
        payment_hash: PaymentHash,
        purpose: &PaymentPurpose,
        claim_deadline: Option<u32>,
        arrived: PaymentChange,
    ) {
        if let PaymentPurpose::Bolt12OfferPayment { payment_context, .. } = purpose
            && self.offers.is_disabled(&payment_context.offer_id)
        {
            tracing::info!(%payment_hash, "refused a payment for an offer that was disabled");
            return self.manager.fail_htlc_backwards(&payment_hash);
        }
        let height = self.manager.current_best_block().height;
        match (self.holds.arrived(payment_hash.0, purpose, claim_deadline, height), purpose.preimage()) {
            (Arrival::Hold { cancel_height }, _) => {
                tracing::info!(%payment_hash, cancel_height, "a payment waits to be settled or cancelled");
                let cancel_height = Some(cancel_height);
                let change = PaymentChange { status: PaymentStatus::Accepted, cancel_height, ..arrived };
                self.queue.effect(Effect::Payment(change));
            }
            (Arrival::Refuse, _) => {
                tracing::info!(%payment_hash, "refused a payment for a hold invoice: it has ended, it is too late, or it was sent without the invoice");
                self.manager.fail_htlc_backwards(&payment_hash);
            }
            (Arrival::NotHeld, Some(preimage)) => {
                self.queue.effect(Effect::Payment(arrived));
                self.manager.claim_funds(preimage);
            }
            (Arrival::NotHeld, None) => {
                tracing::warn!(%payment_hash, "refused a payment whose preimage is unknown");
                self.manager.fail_htlc_backwards(&payment_hash);
            }
        }
    }

    /// A change to a payment of ours. Its row, made when it began, knows the kind.
    pub(super) fn outbound(
        &self,
        payment_id: PaymentId,
        payment_hash: Option<PaymentHash>,
        status: PaymentStatus,
    ) -> PaymentChange {
        PaymentChange {
            payment_hash: payment_hash.map(|hash| hash.0),
            ..PaymentChange::new(payment_id.0, Direction::Outbound, PaymentKind::Bolt11, status)
        }
    }

    /// For what LDK has no name for. Events are committed once, so any name that is new will do.
    fn new_name(&self) -> [u8; 32] {
        self.keys.get_secure_random_bytes()
    }
}

fn inbound(payment_hash: PaymentHash, purpose: &PaymentPurpose, status: PaymentStatus) -> PaymentChange {
    let mut change = PaymentChange::of_hash(payment_hash.0, Direction::Inbound, kind_of(purpose), status);
    if let PaymentPurpose::Bolt12OfferPayment { payment_context, .. } = purpose {
        change.offer_id = Some(payment_context.offer_id.0);
        change.payer_note = payment_context.invoice_request.payer_note_truncated.as_ref().map(|note| note.0.clone());
    }
    change
}

fn kind_of(purpose: &PaymentPurpose) -> PaymentKind {
    match purpose {
        PaymentPurpose::SpontaneousPayment(_) => PaymentKind::Keysend,
        PaymentPurpose::Bolt11InvoicePayment { .. } => PaymentKind::Bolt11,
        PaymentPurpose::Bolt12OfferPayment { .. } => PaymentKind::Offer,
        PaymentPurpose::Bolt12RefundPayment { .. } => PaymentKind::Refund,
    }
}

/// A channel's name for its life. Random, so that no counter has to survive anything.
pub fn new_user_channel_id(entropy: &impl EntropySource) -> u128 {
    let bytes = entropy.get_secure_random_bytes();
    let (id, _) = bytes.split_at(16);
    id.iter().fold(0, |all, byte| all << 8 | u128::from(*byte))
}
