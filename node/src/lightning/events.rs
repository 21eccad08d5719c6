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
    events::{Event, EventHandler, FundingInfo, PathFailure, PaymentPurpose, ReplayEvent},
    ln::{channelmanager::FailureCode, types::ChannelId},
    routing::scoring::ScoreUpdate,
    sign::{EntropySource, SpendableOutputDescriptor},
    types::payment::{PaymentHash, PaymentPreimage},
};

use super::{
    BufferedBroadcaster, CommitQueue,
    funding::Fundings,
    metrics::PaymentMetrics,
    peers::Dialer,
    settings,
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
    pub dialer: Arc<Dialer>,
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
                    self.fees.funding(),
                    self.manager.current_best_block().height,
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

            Event::PaymentClaimable { payment_hash, purpose, amount_msat, onion_fields, .. } => {
                let unknown =
                    onion_fields.as_ref().and_then(|fields| fields.custom_tlvs().iter().find(|(id, _)| id % 2 == 0));
                if let Some((id, _)) = unknown {
                    tracing::info!(%payment_hash, id, "refused a payment with a record that must be understood");
                    let code = FailureCode::InvalidOnionPayload(Some((*id, 0)));
                    return self.manager.fail_htlc_backwards_with_reason(&payment_hash, code);
                }
                let (kind, Some(preimage)) = (kind_of(&purpose), purpose.preimage()) else {
                    tracing::warn!(%payment_hash, "refused a payment whose preimage is unknown");
                    return self.manager.fail_htlc_backwards(&payment_hash);
                };
                self.inbound(payment_hash, kind, PaymentStatus::Pending, amount_msat, None);
                self.manager.claim_funds(preimage);
            }
            Event::PaymentClaimed { payment_hash, purpose, amount_msat, .. } => {
                tracing::info!(%payment_hash, amount_msat, "received a payment");
                self.metrics.received(amount_msat);
                let preimage = purpose.preimage();
                self.inbound(payment_hash, kind_of(&purpose), PaymentStatus::Succeeded, amount_msat, preimage);
            }

            Event::PaymentSent { payment_hash, payment_preimage, amount_msat, fee_paid_msat, .. } => {
                tracing::info!(%payment_hash, amount_msat, fee_msat = fee_paid_msat, "a payment succeeded");
                self.metrics.sent(amount_msat);
                self.queue.effect(Effect::Payment(PaymentChange {
                    amount_msat,
                    fee_msat: fee_paid_msat,
                    preimage: Some(payment_preimage.0),
                    ..self.outbound(payment_hash, PaymentStatus::Succeeded)
                }));
                self.settled.notify(&payment_hash.0);
            }
            Event::PaymentFailed { payment_id, payment_hash, reason } => {
                // Our payments' ids are their hashes.
                let payment_hash = payment_hash.unwrap_or(PaymentHash(payment_id.0));
                tracing::info!(%payment_hash, ?reason, "a payment failed");
                self.metrics.failed();
                self.queue.effect(Effect::Payment(PaymentChange {
                    failure: Some(reason.map_or("unknown".into(), |reason| format!("{reason:?}"))),
                    ..self.outbound(payment_hash, PaymentStatus::Failed)
                }));
                self.settled.notify(&payment_hash.0);
            }

            Event::PaymentPathSuccessful { path, .. } => {
                self.score(|scorer, now| scorer.payment_path_successful(&path, now))
            }
            Event::PaymentPathFailed { path, short_channel_id, payment_failed_permanently, failure, .. } => {
                if let PathFailure::OnPath { network_update: Some(update) } = &failure {
                    self.graph.handle_network_update(update);
                }
                match short_channel_id {
                    Some(scid) => self.score(|scorer, now| scorer.payment_path_failed(&path, scid, now)),
                    // It reached the payee, who refused it: the path itself is fine.
                    None if payment_failed_permanently => self.score(|scorer, now| scorer.probe_successful(&path, now)),
                    None => {}
                }
            }
            Event::ProbeSuccessful { path, .. } => self.score(|scorer, now| scorer.probe_successful(&path, now)),
            Event::ProbeFailed { path, short_channel_id, .. } => {
                if let Some(scid) = short_channel_id {
                    self.score(|scorer, now| scorer.probe_failed(&path, scid, now));
                }
            }

            Event::PaymentForwarded {
                prev_channel_id,
                next_channel_id,
                total_fee_earned_msat,
                outbound_amount_forwarded_msat,
                ..
            } => {
                tracing::info!(
                    amount_msat = outbound_amount_forwarded_msat,
                    fee_msat = total_fee_earned_msat,
                    "forwarded a payment"
                );
                self.metrics.forwarded(total_fee_earned_msat);
                self.queue.effect(Effect::Forward {
                    // LDK names no HTLC here. The event is committed once, so any name that is new will do.
                    event_id: self.keys.get_secure_random_bytes(),
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
                channel_type,
                ..
            } => {
                let channels = self.manager.list_channels().len() as u64;
                let spendable_sat = self.wallet.balance().spendable_sat;
                if let Some(why) = settings::reason_to_refuse(&channel_type, funding_satoshis, spendable_sat, channels)
                {
                    tracing::warn!(peer = %counterparty_node_id, capacity_sat = funding_satoshis, why, "refused a channel");
                    return self.abandon(temporary_channel_id, counterparty_node_id, "the channel is not accepted");
                }
                let user_channel_id = new_user_channel_id(&*self.keys);
                let accepted = self.manager.accept_inbound_channel(
                    &temporary_channel_id,
                    &counterparty_node_id,
                    user_channel_id,
                    None,
                );
                match accepted {
                    Ok(()) => {
                        tracing::info!(peer = %counterparty_node_id, capacity_sat = funding_satoshis, "accepted a channel")
                    }
                    Err(error) => {
                        tracing::warn!(peer = %counterparty_node_id, ?error, "a channel could not be accepted")
                    }
                }
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
            }
            Event::ChannelReady { channel_id, user_channel_id, counterparty_node_id, .. } => {
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, "a channel is ready");
                self.queue.effect(Effect::ChannelReady { channel_id: channel_id.0, user_channel_id });
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
                // Its funding transaction was not sent yet, so it never will be.
                self.release_funding(user_channel_id);
            }

            Event::SpendableOutputs { outputs, channel_id } => {
                // What pays to the wallet's own scripts the wallet has seen already.
                let outside: Vec<_> = outputs
                    .into_iter()
                    .filter(|output| !matches!(output,
                        SpendableOutputDescriptor::StaticOutput { output, .. } if self.wallet.is_mine(&output.script_pubkey)))
                    .collect();
                if self.sweeper.track_spendable_outputs(outside, channel_id, false, None).is_err() {
                    tracing::error!("the commit buffer refused outputs to sweep");
                }
            }
            Event::BumpTransaction(bump) => self.fee_bumper.handle_event(&bump),
            Event::ConnectionNeeded { node_id, addresses } => {
                self.dialer.dial_in_background(node_id, addresses.iter().map(|address| address.to_string()).collect());
            }

            // Splices, BOLT 12 invoices paid by hand, intercepted onion messages and static invoices are not asked for,
            // so none of these come.
            other @ (Event::SplicePending { .. }
            | Event::SpliceFailed { .. }
            | Event::FundingTransactionReadyForSigning { .. }
            | Event::InvoiceReceived { .. }
            | Event::OnionMessageIntercepted { .. }
            | Event::OnionMessagePeerConnected { .. }
            | Event::PersistStaticInvoice { .. }
            | Event::StaticInvoiceRequested { .. }) => tracing::debug!(?other, "passed over an event"),
        }
    }

    /// Gives back the coins of a funding transaction that will never be sent.
    pub fn release_funding(&self, user_channel_id: u128) {
        if let Some(psbt) = self.fundings.remove(user_channel_id) {
            self.wallet.release(&psbt.unsigned_tx);
        }
    }

    /// Ends a channel whose funding is not on its way.
    fn abandon(&self, channel: ChannelId, peer: PublicKey, why: &str) {
        if let Err(error) = self.manager.force_close_broadcasting_latest_txn(&channel, &peer, why.to_owned()) {
            tracing::debug!(%channel, ?error, "a channel was gone already");
        }
    }

    fn score(&self, update: impl FnOnce(&mut Scorer, Duration)) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Scores are estimates: one left half-updated by a panic is still one.
        update(&mut self.scorer.lock().unwrap_or_else(|e| e.into_inner()), now);
    }

    fn inbound(
        &self,
        payment_hash: PaymentHash,
        kind: PaymentKind,
        status: PaymentStatus,
        amount_msat: u64,
        preimage: Option<PaymentPreimage>,
    ) {
        self.queue.effect(Effect::Payment(PaymentChange {
            payment_hash: payment_hash.0,
            direction: Direction::Inbound,
            kind,
            status,
            amount_msat: Some(amount_msat),
            fee_msat: None,
            preimage: preimage.map(|preimage| preimage.0),
            failure: None,
            invoice: None,
        }));
    }

    /// The end of a payment of ours. Its row, made when it began, knows the kind.
    fn outbound(&self, payment_hash: PaymentHash, status: PaymentStatus) -> PaymentChange {
        PaymentChange {
            payment_hash: payment_hash.0,
            direction: Direction::Outbound,
            kind: PaymentKind::Bolt11,
            status,
            amount_msat: None,
            fee_msat: None,
            preimage: None,
            failure: None,
            invoice: None,
        }
    }
}

fn kind_of(purpose: &PaymentPurpose) -> PaymentKind {
    match purpose {
        PaymentPurpose::SpontaneousPayment(_) => PaymentKind::Keysend,
        _ => PaymentKind::Bolt11,
    }
}

/// A channel's name for its life. Random, so that no counter has to survive anything.
pub fn new_user_channel_id(entropy: &impl EntropySource) -> u128 {
    let bytes = entropy.get_secure_random_bytes();
    let (id, _) = bytes.split_at(16);
    id.iter().fold(0, |all, byte| all << 8 | u128::from(*byte))
}
