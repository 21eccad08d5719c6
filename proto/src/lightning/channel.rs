//! What stays the same for one funding output of a channel.

use bitcoin::hashes::Hash;
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{ChannelPublicKeys, ChannelTransactionParameters, CounterpartyChannelTransactionParameters},
        channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint},
    },
    types::features::ChannelTypeFeatures,
};

use super::{onchain::outpoint_to_wire, parse};
use crate::{error::Error, signer::v1};

/// A channel by the id of its keys, and which of its funding outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelRef {
    pub keys_id: [u8; 32],
    pub funding: OutPoint,
}

impl ChannelRef {
    pub fn from_wire(field: &str, wire: &v1::ChannelRef) -> Result<Self, Error> {
        let funding = format!("{field}.funding_outpoint");
        Ok(Self {
            keys_id: parse::array(&format!("{field}.channel_keys_id"), &wire.channel_keys_id)?,
            funding: parse::outpoint(&funding, parse::required(&funding, &wire.funding_outpoint)?)?,
        })
    }

    pub fn to_wire(&self) -> v1::ChannelRef {
        v1::ChannelRef {
            channel_keys_id: self.keys_id.to_vec(),
            funding_outpoint: Some(outpoint_to_wire(&self.funding)),
        }
    }
}

pub fn public_keys_to_ldk(field: &str, wire: &v1::ChannelPublicKeys) -> Result<ChannelPublicKeys, Error> {
    let key = |name: &str, bytes: &[u8]| parse::public_key(&format!("{field}.{name}"), bytes);
    Ok(ChannelPublicKeys {
        funding_pubkey: key("funding_pubkey", &wire.funding_pubkey)?,
        revocation_basepoint: RevocationBasepoint(key("revocation_basepoint", &wire.revocation_basepoint)?),
        payment_point: key("payment_point", &wire.payment_point)?,
        delayed_payment_basepoint: DelayedPaymentBasepoint(key(
            "delayed_payment_basepoint",
            &wire.delayed_payment_basepoint,
        )?),
        htlc_basepoint: HtlcBasepoint(key("htlc_basepoint", &wire.htlc_basepoint)?),
    })
}

pub fn public_keys_to_wire(keys: &ChannelPublicKeys) -> v1::ChannelPublicKeys {
    v1::ChannelPublicKeys {
        funding_pubkey: keys.funding_pubkey.serialize().to_vec(),
        revocation_basepoint: keys.revocation_basepoint.to_public_key().serialize().to_vec(),
        payment_point: keys.payment_point.serialize().to_vec(),
        delayed_payment_basepoint: keys.delayed_payment_basepoint.to_public_key().serialize().to_vec(),
        htlc_basepoint: keys.htlc_basepoint.to_public_key().serialize().to_vec(),
    }
}

/// The two kinds of channel there are. LDK's zero-fee commitments and its trial of anchors with fees are neither.
pub fn channel_type_to_ldk(field: &str, wire: i32) -> Result<ChannelTypeFeatures, Error> {
    match v1::ChannelType::try_from(wire) {
        Ok(v1::ChannelType::StaticRemoteKey) => Ok(ChannelTypeFeatures::only_static_remote_key()),
        Ok(v1::ChannelType::AnchorsZeroFeeHtlc) => Ok(ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()),
        _ => Err(Error::misuse(field, "is neither static remote key nor zero-fee anchors")),
    }
}

/// Private short ids and zero-conf say nothing about transactions and are not carried.
pub fn channel_type_to_wire(field: &str, features: &ChannelTypeFeatures) -> Result<v1::ChannelType, Error> {
    let mut plain = features.clone();
    plain.clear_scid_privacy();
    plain.clear_zero_conf();
    if plain == ChannelTypeFeatures::only_static_remote_key() {
        Ok(v1::ChannelType::StaticRemoteKey)
    } else if plain == ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies() {
        Ok(v1::ChannelType::AnchorsZeroFeeHtlc)
    } else {
        Err(Error::misuse(field, format!("{features} is neither static remote key nor zero-fee anchors")))
    }
}

/// The parameters of the channel's funding output `funding`; always populated in LDK's sense.
pub fn parameters_to_ldk(
    field: &str,
    wire: &v1::ChannelParameters,
    funding: OutPoint,
) -> Result<ChannelTransactionParameters, Error> {
    let at = |name: &str| format!("{field}.{name}");
    let holder = at("holder_pubkeys");
    let counterparty = at("counterparty_pubkeys");
    if wire.channel_value_sat == 0 {
        return Err(Error::misuse(at("channel_value_sat"), "is zero"));
    }
    Ok(ChannelTransactionParameters {
        holder_pubkeys: public_keys_to_ldk(&holder, parse::required(&holder, &wire.holder_pubkeys)?)?,
        holder_selected_contest_delay: parse::blocks(
            &at("holder_selected_contest_delay"),
            wire.holder_selected_contest_delay,
        )?,
        is_outbound_from_holder: wire.is_outbound_from_holder,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: public_keys_to_ldk(&counterparty, parse::required(&counterparty, &wire.counterparty_pubkeys)?)?,
            selected_contest_delay: parse::blocks(
                &at("counterparty_selected_contest_delay"),
                wire.counterparty_selected_contest_delay,
            )?,
        }),
        funding_outpoint: Some(funding),
        splice_parent_funding_txid: wire
            .splice_parent_funding_txid
            .as_deref()
            .map(|txid| parse::txid(&at("splice_parent_funding_txid"), txid))
            .transpose()?,
        channel_type_features: channel_type_to_ldk(&at("channel_type"), wire.channel_type)?,
        channel_value_satoshis: parse::amount(&at("channel_value_sat"), wire.channel_value_sat)?.to_sat(),
    })
}

/// The wire's words for LDK's parameters, and the funding output they are of. Parameters that are not populated yet
/// or are of a channel type that has no name on the wire are misuse.
pub fn parameters_to_wire(
    parameters: &ChannelTransactionParameters,
) -> Result<(OutPoint, v1::ChannelParameters), Error> {
    let missing = |field: &str| Error::misuse(field, "is missing");
    let funding = parameters.funding_outpoint.ok_or_else(|| missing("funding_outpoint"))?;
    let counterparty = parameters.counterparty_parameters.as_ref().ok_or_else(|| missing("counterparty_pubkeys"))?;
    let wire = v1::ChannelParameters {
        holder_pubkeys: Some(public_keys_to_wire(&parameters.holder_pubkeys)),
        holder_selected_contest_delay: parameters.holder_selected_contest_delay.into(),
        is_outbound_from_holder: parameters.is_outbound_from_holder,
        counterparty_pubkeys: Some(public_keys_to_wire(&counterparty.pubkeys)),
        counterparty_selected_contest_delay: counterparty.selected_contest_delay.into(),
        splice_parent_funding_txid: parameters.splice_parent_funding_txid.map(|txid| txid.to_byte_array().to_vec()),
        channel_type: channel_type_to_wire("channel_type", &parameters.channel_type_features)?.into(),
        channel_value_sat: parameters.channel_value_satoshis,
    };
    Ok((funding, wire))
}
