//! Fee rates by purpose, from bitcoind, refreshed beside the node so that nothing waits for an estimate.

use std::{
    collections::HashMap,
    io,
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bitcoin::Network;
use lightning::chain::chaininterface::{ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator};

use super::Bitcoind;

/// The rates that LDK and the wallet ask for, in satoshi per 1000 weight units.
pub struct FeeEstimates {
    network: Network,
    rates: RwLock<HashMap<ConfirmationTarget, u32>>,
    known: AtomicBool,
}

impl FeeEstimates {
    pub fn new(network: Network) -> Self {
        Self { network, rates: RwLock::default(), known: AtomicBool::new(false) }
    }

    /// False until the first estimates arrived. On the main network a leader waits for them: a wrong guess of today's
    /// rates closes channels.
    pub fn ready(&self) -> bool {
        self.network != Network::Bitcoin || self.known.load(Ordering::Acquire)
    }

    /// Asks bitcoind for all rates. What cannot be learnt stays as it was.
    pub async fn refresh(&self, bitcoind: &Bitcoind) -> io::Result<()> {
        let floor = bitcoind.mempool_min_fee().await?;
        let mut fresh = HashMap::new();
        for (target, source) in SOURCES {
            let estimate = match source {
                Source::MempoolMinimum => Some(floor),
                Source::Blocks { blocks, conservative } => bitcoind.estimate_fee(blocks, conservative).await?,
            };
            if let Some(rate) = estimate {
                fresh.insert(target, adjust(target, rate));
            }
        }
        // bitcoind estimates nothing until it has seen enough blocks; on test networks the fallbacks serve.
        let complete = fresh.len() == SOURCES.len();
        self.rates.write().unwrap_or_else(|e| e.into_inner()).extend(fresh);
        if complete {
            self.known.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The rate for a funding transaction.
    pub fn funding(&self) -> u32 {
        self.get_est_sat_per_1000_weight(ConfirmationTarget::NonAnchorChannelFee)
    }
}

impl FeeEstimator for FeeEstimates {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let known = self.rates.read().unwrap_or_else(|e| e.into_inner()).get(&target).copied();
        known.unwrap_or_else(|| fallback(target)).max(FEERATE_FLOOR_SATS_PER_KW)
    }
}

#[derive(Clone, Copy)]
enum Source {
    MempoolMinimum,
    Blocks { blocks: u16, conservative: bool },
}

const SOURCES: [(ConfirmationTarget, Source); 8] = {
    use ConfirmationTarget::*;
    const fn within(blocks: u16) -> Source {
        Source::Blocks { blocks, conservative: false }
    }
    const fn surely_within(blocks: u16) -> Source {
        Source::Blocks { blocks, conservative: true }
    }
    [
        (MaximumFeeEstimate, surely_within(1)),
        (UrgentOnChainSweep, surely_within(6)),
        (MinAllowedAnchorChannelRemoteFee, Source::MempoolMinimum),
        (MinAllowedNonAnchorChannelRemoteFee, within(144)),
        // A commitment with anchors need only enter the mempool; its anchor pays for the rest.
        (AnchorChannelFee, within(1008)),
        (NonAnchorChannelFee, within(12)),
        (ChannelCloseMinimum, within(144)),
        (OutputSpendingFee, within(12)),
    ]
};

/// LDK's semantics differ from a plain estimate for two targets.
fn adjust(target: ConfirmationTarget, rate: u32) -> u32 {
    match target {
        // What a peer may pay at least: a little under our own idea of it.
        ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => rate.saturating_sub(250),
        // What a peer may pay at most: generous, it only guards against absurd rates.
        ConfirmationTarget::MaximumFeeEstimate => rate.saturating_add(rate / 10).saturating_add(2500),
        _ => rate,
    }
}

fn fallback(target: ConfirmationTarget) -> u32 {
    use ConfirmationTarget::*;
    match target {
        MaximumFeeEstimate => 8000,
        UrgentOnChainSweep => 5000,
        MinAllowedAnchorChannelRemoteFee | MinAllowedNonAnchorChannelRemoteFee => FEERATE_FLOOR_SATS_PER_KW,
        AnchorChannelFee | ChannelCloseMinimum => 500,
        NonAnchorChannelFee | OutputSpendingFee => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_below_the_relay_floor() {
        let fees = FeeEstimates::new(Network::Regtest);
        fees.rates.write().unwrap().insert(ConfirmationTarget::OutputSpendingFee, 1);
        for (target, _) in SOURCES {
            assert!(fees.get_est_sat_per_1000_weight(target) >= FEERATE_FLOOR_SATS_PER_KW, "{target:?}");
        }
    }

    #[test]
    fn the_main_network_needs_real_estimates() {
        assert!(!FeeEstimates::new(Network::Bitcoin).ready());
        assert!(FeeEstimates::new(Network::Regtest).ready());
    }
}
