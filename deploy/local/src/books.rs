//! Double-entry book-keeping over all nodes: every payment ended once, in the same way, on both sides, and the
//! channels' balances moved by exactly that, to the millisatoshi.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use holdfast_proto::node::v1::{self, PaymentDirection, PaymentStatus};

use crate::{
    counterparty::{Counterparty, Outcome},
    deployment::Deployment,
    load::Sent,
    wait::Probe,
};

const SETTLE: Duration = Duration::from_secs(90);

/// What everybody can spend, when nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balances {
    /// Our side of each channel of ours above the reserve, in millisatoshi.
    pub channels: BTreeMap<String, u64>,
    /// The sum for our node (`ours`) and for each counterparty.
    pub totals: BTreeMap<String, u64>,
}

/// What the books show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub succeeded: usize,
    pub failed: usize,
    pub received_msat: u64,
    pub sent_msat: u64,
    pub fees_paid_msat: u64,
    pub fees_earned_msat: u64,
}

impl Deployment {
    /// Waits until no HTLC is pending and both ends of every channel agree on its balance.
    pub async fn balances(&self) -> Result<Balances> {
        self.wait_for("both ends of all channels to agree", SETTLE, async || {
            let ours = self.channels().await?;
            let theirs: HashMap<String, (&Counterparty, ldk_node::ChannelDetails)> = self
                .counterparties()
                .iter()
                .flat_map(|node| node.channels().into_iter().map(move |channel| (node, channel)))
                .map(|(node, channel)| (channel.channel_id.to_string(), (node, channel)))
                .collect();
            let mut balances = Balances { channels: BTreeMap::new(), totals: BTreeMap::new() };
            for channel in &ours {
                let Some((node, other)) = theirs.get(&channel.channel_id) else {
                    return Ok(Probe::Waiting(format!("nobody shares our channel {}", channel.channel_id)));
                };
                let agreed = channel.outbound_msat == other.inbound_capacity_msat
                    && channel.inbound_msat == other.outbound_capacity_msat;
                if !agreed || channel.pending_htlcs > 0 {
                    return Ok(Probe::Waiting(format!(
                        "{channel:?}; {} can send {} and receive {}",
                        node.name(),
                        other.outbound_capacity_msat,
                        other.inbound_capacity_msat
                    )));
                }
                balances.channels.insert(channel.channel_id.clone(), channel.outbound_msat);
                *balances.totals.entry("ours".into()).or_default() += channel.outbound_msat;
                *balances.totals.entry(node.name().to_owned()).or_default() += other.outbound_capacity_msat;
            }
            Ok(Probe::when(theirs.len() == ours.len(), balances, || {
                format!("{} channels of ours and {} of theirs", ours.len(), theirs.len())
            }))
        })
        .await
    }

    /// Checks that all payments in `sent`, and nothing else, happened between `before` and now, exactly once each, and
    /// that no channel was closed. The balances must lie above the channels' reserves all the time.
    pub async fn check_books(&self, before: &Balances, sent: &[Sent]) -> Result<Summary> {
        let after = self.balances().await?;
        self.check_no_channel_closed(before, &after)?;
        let records = self.payments().await?;
        let mut summary = Summary::default();
        let mut moved: BTreeMap<String, i128> = BTreeMap::new();
        for payment in sent {
            self.check_payment(payment, &records)?;
            let Outcome::Succeeded { fee_msat } = payment.outcome else {
                summary.failed += 1;
                continue;
            };
            summary.succeeded += 1;
            let (amount, fee) = (i128::from(payment.amount_msat), i128::from(fee_msat));
            *moved.entry(payment.from.clone()).or_default() -= amount + fee;
            *moved.entry(payment.to.clone()).or_default() += amount;
            *moved.entry("ours".into()).or_default() += fee;
            match (payment.from.as_str(), payment.to.as_str()) {
                ("ours", _) => {
                    summary.sent_msat += payment.amount_msat;
                    summary.fees_paid_msat += fee_msat;
                }
                (_, "ours") => summary.received_msat += payment.amount_msat,
                _ => summary.fees_earned_msat += fee_msat,
            }
        }
        for (name, &was) in &before.totals {
            let is = after.totals.get(name).copied().unwrap_or(0);
            let expected = i128::from(was) + moved.get(name).copied().unwrap_or(0);
            ensure!(i128::from(is) == expected, "{name} had {was} msat and should have {expected}, but has {is}");
        }
        Ok(summary)
    }

    fn check_no_channel_closed(&self, before: &Balances, after: &Balances) -> Result<()> {
        for counterparty in self.counterparties() {
            let closed = counterparty.closed();
            ensure!(closed.is_empty(), "{} saw channels closed: {closed:?}", counterparty.name());
        }
        let (was, is) = (before.channels.keys(), after.channels.keys());
        ensure!(was.clone().eq(is.clone()), "the channels were {was:?} and are {is:?}");
        Ok(())
    }

    fn check_payment(&self, payment: &Sent, records: &[v1::Payment]) -> Result<()> {
        let hash = payment.hash.to_string();
        let ours = |direction: PaymentDirection| {
            let mine = records.iter().filter(|record| record.payment_hash == hash && record.direction() == direction);
            mine.collect::<Vec<_>>()
        };
        let succeeded = matches!(payment.outcome, Outcome::Succeeded { .. });

        if payment.from == "ours" {
            let [record] = ours(PaymentDirection::Outbound)[..] else {
                bail!("our node should know one payment {hash}: {payment:?}")
            };
            let status = if succeeded { PaymentStatus::Succeeded } else { PaymentStatus::Failed };
            ensure!(record.status() == status, "ended otherwise in the end: {record:?}, {payment:?}");
        } else {
            let outcomes = self.counterparty(&payment.from).outcomes(payment.hash);
            ensure!(outcomes == [payment.outcome.clone()], "ended more than once: {outcomes:?}, {payment:?}");
        }

        let arrived: Vec<u64> = if payment.to == "ours" {
            let records = ours(PaymentDirection::Inbound);
            let done = records.iter().filter(|record| record.status() == PaymentStatus::Succeeded);
            done.map(|record| record.amount_msat.unwrap_or(0)).collect()
        } else {
            self.counterparty(&payment.to).received_msat(payment.hash)
        };
        let expected: &[u64] = if succeeded { &[payment.amount_msat] } else { &[] };
        ensure!(arrived == expected, "arrived: {arrived:?}, expected: {expected:?}, {payment:?}");
        Ok(())
    }
}
