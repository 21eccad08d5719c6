//! Probing: whether an amount can reach a node, and for what fee, found out by HTLCs that nobody can claim.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bitcoin::secp256k1::PublicKey;
use futures::future::join_all;
use holdfast_proto::{error::Error, node::v1};
use lightning::routing::router::{Path, PaymentParameters, RouteParameters, Router as _};
use lightning_invoice::Bolt11Invoice;
use tokio::{sync::oneshot, time::Instant};

use super::{
    channels::scid_text,
    limits,
    node::LightningNode,
    payments::{KEYSEND_FINAL_CLTV_DELTA, default_max_fee},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Each failure teaches the scorer a channel; after so many the answer is no.
const MAX_ATTEMPTS: u32 = 12;

/// How one probe ended: at the payee, or at a channel, if it is known.
type Outcome = Result<(), Option<u64>>;

/// Who waits for which probe.
#[derive(Default)]
pub struct Probes(Mutex<HashMap<[u8; 32], oneshot::Sender<Outcome>>>);

impl Probes {
    fn wait_for(&self, payment_id: [u8; 32]) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, sender| !sender.is_closed());
        waiting.insert(payment_id, sender);
        receiver
    }

    pub fn ended(&self, payment_id: &[u8; 32], outcome: Outcome) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(payment_id) {
            // Who asked may have gone.
            let _ = sender.send(outcome);
        }
    }
}

impl LightningNode {
    pub(super) async fn find_out(&self, request: v1::ProbeRequest) -> Result<v1::ProbeResponse, Error> {
        self.must_run()?;
        let route_params = self.probed(&request)?;
        let timeout = match request.timeout_seconds {
            0 => DEFAULT_TIMEOUT,
            seconds => Duration::from_secs(seconds.into()),
        };
        let deadline = Instant::now() + timeout;
        self.forwards.wait(&self.manager, &self.dialer).await;

        let mut answer = v1::ProbeResponse::default();
        while answer.attempts < MAX_ATTEMPTS {
            let channels = self.manager.list_usable_channels();
            let first_hops: Vec<_> = channels.iter().collect();
            let inflight = self.manager.compute_inflight_htlcs();
            let us = self.manager.get_our_node_id();
            let found =
                tokio::task::block_in_place(|| self.router.find_route(&us, &route_params, Some(&first_hops), inflight));
            let route = match found {
                Ok(route) => route,
                Err(why) if answer.attempts == 0 => return Ok(v1::ProbeResponse { failure: why.to_owned(), ..answer }),
                Err(_) => break,
            };
            answer.attempts += 1;
            answer.parts = route.paths.len() as u32;
            answer.fee_msat = route.get_total_fees();
            answer.hops = route.paths.first().map(hops).unwrap_or_default();
            let waiting = tokio::task::block_in_place(|| {
                // Under the mutex that events are handled under, so that no probe ends before somebody waits for it.
                self.queue.with_state(|| {
                    self.must_run()?;
                    let public: Vec<Path> = route.paths.into_iter().filter_map(public_part).collect();
                    Ok::<_, Error>(public.into_iter().map(|path| self.begin_probe(path)).collect::<Vec<_>>())
                })
            })?;
            let outcomes = tokio::time::timeout_at(deadline, join_all(waiting)).await;
            let Ok(outcomes) = outcomes else {
                answer.failure = format!("no answer within {} s", timeout.as_secs());
                return Ok(answer);
            };
            match outcomes.into_iter().find_map(Result::err) {
                None => {
                    answer.reachable = true;
                    (answer.failure, answer.failed_channel) = Default::default();
                    return Ok(answer);
                }
                Some(channel) => {
                    answer.failed_channel = channel.map(scid_text).unwrap_or_default();
                    answer.failure = "a channel on the way could not pass it on".into();
                }
            }
        }
        answer.failure = format!("{}, and there is no other way", answer.failure);
        Ok(answer)
    }

    /// A probe on its way, or the reason why it could not even start.
    fn begin_probe(&self, path: Path) -> impl Future<Output = Outcome> + use<> {
        let first = path.hops.first().map(|hop| hop.short_channel_id);
        let waiting = match self.manager.send_probe(path) {
            Ok((_, payment_id)) => Ok(self.probes.wait_for(payment_id.0)),
            Err(error) => {
                tracing::debug!(?error, "a probe could not start");
                Err(first)
            }
        };
        async move {
            match waiting {
                // The sender goes only when this node does.
                Ok(receiver) => receiver.await.unwrap_or(Err(None)),
                Err(channel) => Err(channel),
            }
        }
    }

    fn probed(&self, request: &v1::ProbeRequest) -> Result<RouteParameters, Error> {
        let (params, amount_msat) = match (request.node_id.as_str(), request.invoice.trim()) {
            ("", "") => return Err(Error::misuse("node_id", "give a node id or an invoice")),
            (node_id, "") => {
                let payee = PublicKey::from_str(node_id).map_err(|e| Error::misuse("node_id", e.to_string()))?;
                if payee == self.manager.get_our_node_id() {
                    return Err(Error::misuse("node_id", "it is our own"));
                }
                (PaymentParameters::for_keysend(payee, KEYSEND_FINAL_CLTV_DELTA, true), request.amount_msat)
            }
            ("", text) => {
                let invoice = Bolt11Invoice::from_str(text).map_err(|e| Error::misuse("invoice", e.to_string()))?;
                if invoice.network() != self.network {
                    return Err(Error::misuse("invoice", format!("it is for {}", invoice.network())));
                }
                let amount_msat = match request.amount_msat {
                    0 => invoice.amount_milli_satoshis().unwrap_or(0),
                    amount => amount,
                };
                (PaymentParameters::from_bolt11_invoice(&invoice), amount_msat)
            }
            _ => return Err(Error::misuse("node_id", "give a node id or an invoice, not both")),
        };
        if amount_msat == 0 {
            return Err(Error::misuse("amount_msat", "it is 0"));
        }
        limits::msat("amount_msat", amount_msat)?;
        limits::msat("max_fee_msat", request.max_fee_msat)?;
        let mut route = RouteParameters::from_payment_params_and_value(params, amount_msat);
        route.max_total_routing_fee_msat = Some(request.max_fee_msat.unwrap_or_else(|| default_max_fee(amount_msat)));
        Ok(route)
    }
}

/// The part of a path that a probe can test: a channel that is not public could tell a probe from a payment, and what is
/// left of a path to a peer of ours is our own channel, of which we know everything.
fn public_part(mut path: Path) -> Option<Path> {
    while path.hops.last().is_some_and(|hop| !hop.maybe_announced_channel) {
        let value = path.final_value_msat();
        path.hops.pop();
        if let Some(last) = path.hops.last_mut() {
            last.fee_msat += value;
        }
    }
    (path.hops.len() >= 2).then_some(path)
}

fn hops(path: &Path) -> Vec<v1::PaymentHop> {
    super::records::hops(path).into_iter().map(super::records::hop_message).collect()
}
