//! Commitment transactions in the words of BOLT 3.

use bitcoin::{
    Amount,
    secp256k1::{All, PublicKey, Secp256k1},
};
use lightning::{
    ln::chan_utils::{
        CommitmentTransaction, DirectedChannelTransactionParameters, HTLCOutputInCommitment, htlc_success_tx_weight,
        htlc_timeout_tx_weight,
    },
    types::features::ChannelTypeFeatures,
};

use super::parse;
use crate::{error::Error, signer::v1};

/// 483 HTLCs from each side (BOLT 2, max_accepted_htlcs).
pub const MAX_HTLCS: usize = 966;

/// 40,000 sat/vB: no commitment is ever worth that, and fees at it stay far from overflow.
pub const MAX_FEERATE_SAT_PER_KW: u32 = 10_000_000;

/// The number of a commitment, counted up from 0 as BOLT 3 does; at most 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitmentNumber(u64);

impl CommitmentNumber {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self((1 << 48) - 1);

    pub fn new(field: &str, number: u64) -> Result<Self, Error> {
        if number > Self::MAX.0 {
            return Err(Error::misuse(field, "is beyond 2^48 - 1"));
        }
        Ok(Self(number))
    }

    /// LDK counts down from 2^48 - 1.
    pub fn from_ldk(number: u64) -> Result<Self, Error> {
        Self::MAX.0.checked_sub(number).map(Self).ok_or_else(|| Error::misuse("number", "is beyond 2^48 - 1"))
    }

    pub const fn to_ldk(self) -> u64 {
        Self::MAX.0 - self.0
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one, unless this is the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then(|| Self(self.0 + 1))
    }

    /// The number before this one, unless this is the first.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl std::fmt::Display for CommitmentNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a commitment transaction is made of beyond the channel's parameters. Each field is in range for itself;
/// `build` checks them against each other and the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentFields {
    pub number: CommitmentNumber,
    pub per_commitment_point: PublicKey,
    pub to_broadcaster_sat: u64,
    pub to_countersignatory_sat: u64,
    pub feerate_sat_per_kw: u32,
    /// Without output indices; `build` finds them.
    pub htlcs: Vec<HTLCOutputInCommitment>,
}

impl CommitmentFields {
    pub fn from_wire(field: &str, wire: &v1::Commitment) -> Result<Self, Error> {
        let at = |name: &str| format!("{field}.{name}");
        if wire.htlcs.len() > MAX_HTLCS {
            return Err(Error::misuse(at("htlcs"), format!("has {} entries, more than {MAX_HTLCS}", wire.htlcs.len())));
        }
        Ok(Self {
            number: CommitmentNumber::new(&at("number"), wire.number)?,
            per_commitment_point: parse::public_key(&at("per_commitment_point"), &wire.per_commitment_point)?,
            to_broadcaster_sat: parse::amount(&at("to_broadcaster_sat"), wire.to_broadcaster_sat)?.to_sat(),
            to_countersignatory_sat: parse::amount(&at("to_countersignatory_sat"), wire.to_countersignatory_sat)?
                .to_sat(),
            feerate_sat_per_kw: feerate(&at("feerate_sat_per_kw"), wire.feerate_sat_per_kw)?,
            htlcs: wire
                .htlcs
                .iter()
                .enumerate()
                .map(|(i, htlc)| htlc_to_ldk(&at(&format!("htlcs[{i}]")), htlc))
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn from_ldk(commitment: &CommitmentTransaction) -> Result<Self, Error> {
        Ok(Self {
            number: CommitmentNumber::from_ldk(commitment.commitment_number())?,
            per_commitment_point: commitment.per_commitment_point(),
            to_broadcaster_sat: commitment.to_broadcaster_value_sat(),
            to_countersignatory_sat: commitment.to_countersignatory_value_sat(),
            feerate_sat_per_kw: commitment.negotiated_feerate_per_kw(),
            htlcs: commitment
                .nondust_htlcs()
                .iter()
                .map(|htlc| HTLCOutputInCommitment { transaction_output_index: None, ..htlc.clone() })
                .collect(),
        })
    }

    pub fn to_wire(&self) -> v1::Commitment {
        v1::Commitment {
            number: self.number.get(),
            per_commitment_point: self.per_commitment_point.serialize().to_vec(),
            to_broadcaster_sat: self.to_broadcaster_sat,
            to_countersignatory_sat: self.to_countersignatory_sat,
            feerate_sat_per_kw: self.feerate_sat_per_kw,
            htlcs: self.htlcs.iter().map(htlc_to_wire).collect(),
        }
    }

    /// Rebuilds the transaction, with every check that keeps LDK's builder, and the builder of the second-level HTLC
    /// transactions, from panicking on it.
    pub fn build(
        &self,
        parameters: &DirectedChannelTransactionParameters,
        secp: &Secp256k1<All>,
    ) -> Result<CommitmentTransaction, Error> {
        let channel_type = parameters.channel_type_features();
        super::channel_type_to_wire("parameters.channel_type", channel_type)?;
        self.check_value(parameters.channel_value_satoshis())?;
        for (i, htlc) in self.htlcs.iter().enumerate() {
            if htlc.to_bitcoin_amount() < second_level_fee(channel_type, self.feerate_sat_per_kw, htlc.offered) {
                let field = format!("commitment.htlcs[{i}].amount_msat");
                return Err(Error::misuse(field, "does not pay for its own second-level transaction"));
            }
        }
        Ok(CommitmentTransaction::new(
            self.number.to_ldk(),
            &self.per_commitment_point,
            self.to_broadcaster_sat,
            self.to_countersignatory_sat,
            self.feerate_sat_per_kw,
            self.htlcs.clone(),
            parameters,
            secp,
        ))
    }

    fn check_value(&self, channel_value_sat: u64) -> Result<(), Error> {
        let values = self.htlcs.iter().map(HTLCOutputInCommitment::to_bitcoin_amount);
        let sum = [self.to_broadcaster_sat, self.to_countersignatory_sat]
            .into_iter()
            .map(Amount::from_sat)
            .chain(values)
            .try_fold(Amount::ZERO, |sum, value| sum.checked_add(value));
        match sum {
            Some(sum) if sum.to_sat() <= channel_value_sat => Ok(()),
            _ => Err(Error::misuse("commitment", format!("pays more than the channel's {channel_value_sat} sat"))),
        }
    }
}

pub fn htlc_to_ldk(field: &str, wire: &v1::Htlc) -> Result<HTLCOutputInCommitment, Error> {
    let amount = format!("{field}.amount_msat");
    parse::amount(&amount, wire.amount_msat.div_ceil(1000))?;
    Ok(HTLCOutputInCommitment {
        offered: wire.offered,
        amount_msat: wire.amount_msat,
        cltv_expiry: parse::block_height(&format!("{field}.cltv_expiry"), wire.cltv_expiry)?,
        payment_hash: parse::payment_hash(&format!("{field}.payment_hash"), &wire.payment_hash)?,
        transaction_output_index: None,
    })
}

pub fn htlc_to_wire(htlc: &HTLCOutputInCommitment) -> v1::Htlc {
    v1::Htlc {
        offered: htlc.offered,
        amount_msat: htlc.amount_msat,
        cltv_expiry: htlc.cltv_expiry,
        payment_hash: htlc.payment_hash.0.to_vec(),
    }
}

pub(super) fn feerate(field: &str, sat_per_kw: u32) -> Result<u32, Error> {
    if sat_per_kw > MAX_FEERATE_SAT_PER_KW {
        return Err(Error::misuse(field, format!("is beyond {MAX_FEERATE_SAT_PER_KW}")));
    }
    Ok(sat_per_kw)
}

/// BOLT 3: second-level transactions pay the commitment's fee rate, and nothing with zero-fee anchors.
fn second_level_fee(channel_type: &ChannelTypeFeatures, feerate_sat_per_kw: u32, offered: bool) -> Amount {
    if channel_type.supports_anchors_zero_fee_htlc_tx() {
        return Amount::ZERO;
    }
    let weight = if offered { htlc_timeout_tx_weight(channel_type) } else { htlc_success_tx_weight(channel_type) };
    Amount::from_sat(u64::from(feerate_sat_per_kw) * weight / 1000)
}
