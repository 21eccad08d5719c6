//! The commands about payments: ask the node, show the answer.

use std::{io::Read, time::Duration};

use holdfast_proto::node::v1::{self, PaymentStatus};
use serde_json::json;

use super::{
    Output,
    args::AmountOrAny,
    cluster::{Call, Cluster},
    failure::{Exit, Failure},
    json as to_json,
    payment_args::{Budget, Hash, OfferCommand, Payee, PaymentCommand, RefundCommand},
    text,
};

pub(super) async fn run(cluster: &Cluster, command: PaymentCommand) -> Result<Output, Failure> {
    match command {
        PaymentCommand::Invoice {
            amount: AmountOrAny(amount),
            description,
            expiry,
            label,
            hold,
            hash,
            final_cltv_delta,
            metadata,
        } => {
            let request = v1::CreateInvoiceRequest {
                amount_msat: amount.map(|amount| amount.msat),
                description,
                expiry_seconds: seconds("--expiry", expiry)?,
                label,
                hold,
                payment_hash: hash.map(|Hash(hash)| hash).unwrap_or_default(),
                final_cltv_delta,
                metadata,
            };
            let made = cluster.on_leader(Call::Makes, async |mut c| c.create_invoice(request.clone()).await).await?;
            Ok(Output::ok(to_json::invoice(&made), made.invoice))
        }
        PaymentCommand::Settle { hash, preimage } => {
            let request = v1::SettleInvoiceRequest {
                payment_hash: hash.map(|Hash(hash)| hash).unwrap_or_default(),
                preimage: preimage.map(read_preimage).transpose()?.unwrap_or_default(),
            };
            // Settled twice is settled once.
            let payment = cluster.on_leader(Call::Reads, async |mut c| c.settle_invoice(request.clone()).await).await?;
            paid(&payment)
        }
        PaymentCommand::Cancel { hash: Hash(payment_hash) } => {
            let request = v1::CancelInvoiceRequest { payment_hash };
            let payment = cluster.on_leader(Call::Reads, async |mut c| c.cancel_invoice(request.clone()).await).await?;
            Ok(Output::ok(to_json::payment(&payment), text::payment(&payment)))
        }
        PaymentCommand::Offer(command) => offer(cluster, command).await,
        PaymentCommand::Pay { invoice, amount, limits, note } => {
            let Budget { max_fee, retry_for, label, idempotency_key } = limits.budget;
            let call = repeatable(&idempotency_key);
            let request = v1::PayInvoiceRequest {
                invoice,
                amount_msat: amount.map(|amount| amount.msat),
                max_fee_msat: max_fee.map(|fee| fee.msat),
                wait_ms: wait_ms(limits.wait)?,
                timeout_seconds: retry_seconds(retry_for)?,
                label,
                idempotency_key,
                payer_note: note,
            };
            paid(&cluster.on_leader(call, async |mut c| c.pay_invoice(request.clone()).await).await?)
        }
        PaymentCommand::Keysend { node_id, amount, limits } => {
            let Budget { max_fee, retry_for, label, idempotency_key } = limits.budget;
            let call = repeatable(&idempotency_key);
            let request = v1::SendKeysendRequest {
                node_id: node_id.0,
                amount_msat: amount.msat,
                max_fee_msat: max_fee.map(|fee| fee.msat),
                wait_ms: wait_ms(limits.wait)?,
                timeout_seconds: retry_seconds(retry_for)?,
                label,
                idempotency_key,
            };
            paid(&cluster.on_leader(call, async |mut c| c.send_keysend(request.clone()).await).await?)
        }
        PaymentCommand::Refund(command) => refund(cluster, command).await,
        PaymentCommand::Probe { payee, amount, max_fee, retry_for } => {
            let (node_id, invoice) = match payee {
                Payee::Node(_) if amount.is_none() => {
                    return Err(Failure::new(Exit::Usage, "how much? say `probe NODE_ID 2500sat`"));
                }
                Payee::Node(node_id) => (node_id.0, String::new()),
                Payee::Invoice(invoice) => (String::new(), invoice),
            };
            let request = v1::ProbeRequest {
                node_id,
                invoice,
                amount_msat: amount.map_or(0, |amount| amount.msat),
                max_fee_msat: max_fee.map(|fee| fee.msat),
                timeout_seconds: seconds("--retry-for", retry_for)?,
            };
            let found = cluster.on_leader(Call::Reads, async |mut c| c.probe(request.clone()).await).await?;
            let exit = if found.reachable { Exit::Ok } else { Exit::PaymentFailed };
            Ok(Output { json: to_json::probe(&found), text: text::probe(&found), exit })
        }
        PaymentCommand::Payments { hash: Some(payment_hash), .. } => {
            let request = v1::GetPaymentRequest { payment_hash };
            let payment = cluster.on_any(async |mut c| c.get_payment(request.clone()).await).await?;
            Ok(Output::ok(to_json::payment(&payment), text::payment(&payment)))
        }
        PaymentCommand::Payments { hash: None, limit, before } => {
            let request = v1::ListPaymentsRequest { limit, before };
            let list = cluster.on_any(async |mut c| c.list_payments(request).await).await?;
            let all: Vec<_> = list.payments.iter().map(to_json::payment).collect();
            Ok(Output::ok(json!({ "payments": all }), text::payments(&list.payments)))
        }
    }
}

async fn offer(cluster: &Cluster, command: OfferCommand) -> Result<Output, Failure> {
    match command {
        OfferCommand::Create { amount: AmountOrAny(amount), description, expiry, label } => {
            let request = v1::CreateOfferRequest {
                amount_msat: amount.map(|amount| amount.msat),
                description,
                expiry_seconds: expiry.map_or(0, |expiry| expiry.as_secs()),
                label,
            };
            let made = cluster.on_leader(Call::Makes, async |mut c| c.create_offer(request.clone()).await).await?;
            Ok(Output::ok(to_json::offer(&made), made.offer))
        }
        OfferCommand::List { limit, before } => {
            let request = v1::ListOffersRequest { limit, before };
            let list = cluster.on_any(async |mut c| c.list_offers(request).await).await?;
            let all: Vec<_> = list.offers.iter().map(to_json::offer).collect();
            Ok(Output::ok(json!({ "offers": all }), text::offers(&list.offers)))
        }
        OfferCommand::Disable { offer_id: Hash(offer_id) } => {
            let request = v1::DisableOfferRequest { offer_id };
            let offer = cluster.on_leader(Call::Reads, async |mut c| c.disable_offer(request.clone()).await).await?;
            Ok(Output::ok(to_json::offer(&offer), format!("disabled {}", offer.offer_id)))
        }
    }
}

async fn refund(cluster: &Cluster, command: RefundCommand) -> Result<Output, Failure> {
    match command {
        RefundCommand::Create { amount, description, expiry, budget } => {
            let Budget { max_fee, retry_for, label, idempotency_key } = budget;
            let call = repeatable(&idempotency_key);
            let request = v1::CreateRefundRequest {
                amount_msat: amount.msat,
                description,
                expiry_seconds: seconds("--expiry", expiry)?,
                max_fee_msat: max_fee.map(|fee| fee.msat),
                timeout_seconds: retry_seconds(retry_for)?,
                label,
                idempotency_key,
            };
            let made = cluster.on_leader(call, async |mut c| c.create_refund(request.clone()).await).await?;
            let payment = made.payment.as_ref().map(to_json::payment);
            Ok(Output::ok(json!({ "refund": made.refund, "payment": payment }), made.refund))
        }
        RefundCommand::Claim { refund, label, wait } => {
            let request = v1::ClaimRefundRequest { refund, label, wait_ms: wait_ms(wait)? };
            paid(&cluster.on_leader(Call::Acts, async |mut c| c.claim_refund(request.clone()).await).await?)
        }
    }
}

/// Under an idempotency key, a payment that is asked for again is not made again.
pub(super) fn repeatable(idempotency_key: &str) -> Call {
    if idempotency_key.is_empty() { Call::Acts } else { Call::Reads }
}

/// 0 means "as the node likes" on the wire, so a wait of nothing is the shortest there is.
fn wait_ms(wait: Duration) -> Result<u32, Failure> {
    let ms = u32::try_from(wait.as_millis()).map_err(|_| Failure::new(Exit::Usage, "--wait is longer than 49 days"))?;
    Ok(ms.max(1))
}

fn seconds(option: &str, time: Duration) -> Result<u32, Failure> {
    let whole = u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds > 0);
    whole.ok_or_else(|| Failure::new(Exit::Usage, format!("{option} must be at least 1s and at most 136 years")))
}

fn retry_seconds(time: Option<Duration>) -> Result<u32, Failure> {
    time.map_or(Ok(0), |time| seconds("--retry-for", time))
}

/// A preimage is worth money until it is used, and a command line is seen by everybody on the machine.
fn read_preimage(given: String) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given);
    }
    let mut text = String::new();
    let read = std::io::stdin().take(200).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::Io, format!("the preimage on the standard input: {error}")))?;
    Ok(text.trim().to_owned())
}

fn paid(payment: &v1::Payment) -> Result<Output, Failure> {
    let exit = match payment.status() {
        PaymentStatus::Succeeded => Exit::Ok,
        PaymentStatus::Failed => Exit::PaymentFailed,
        PaymentStatus::Pending | PaymentStatus::Accepted | PaymentStatus::Unspecified => Exit::TryAgain,
    };
    Ok(Output { json: to_json::payment(payment), text: text::payment(payment), exit })
}
