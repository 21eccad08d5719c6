//! Closing transactions and the outputs that a closed channel leaves to us.

use bitcoin::{Amount, TxOut, hashes::Hash, secp256k1::PublicKey};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{ChannelTransactionParameters, ClosingTransaction},
        channel_keys::RevocationKey,
    },
    sign::SpendableOutputDescriptor,
    types::features::ChannelTypeFeatures,
};

use super::{channel::channel_type_to_ldk, channel_type_to_wire, parse};
use crate::{
    error::Error,
    signer::v1::{self, spendable_output::Kind},
};

pub fn outpoint_to_wire(outpoint: &OutPoint) -> v1::OutPoint {
    v1::OutPoint { txid: outpoint.txid.to_byte_array().to_vec(), vout: outpoint.index.into() }
}

pub fn tx_out_to_wire(output: &TxOut) -> v1::TxOut {
    v1::TxOut { value_sat: output.value.to_sat(), script_pubkey: output.script_pubkey.to_bytes() }
}

/// Rebuilds the closing transaction that the request describes, of the channel whose parameters these are.
pub fn closing_to_ldk(
    wire: &v1::SignClosingRequest,
    parameters: &ChannelTransactionParameters,
) -> Result<ClosingTransaction, Error> {
    let funding = parameters.funding_outpoint.ok_or_else(|| Error::misuse("channel.funding_outpoint", "is missing"))?;
    let paid = parse::amount("to_holder_sat", wire.to_holder_sat)?
        + parse::amount("to_counterparty_sat", wire.to_counterparty_sat)?;
    if paid == Amount::ZERO {
        return Err(Error::misuse("to_holder_sat", "the closing transaction would have no outputs"));
    }
    if paid.to_sat() > parameters.channel_value_satoshis {
        return Err(Error::misuse("to_holder_sat", "the closing transaction pays more than the channel holds"));
    }
    Ok(ClosingTransaction::new(
        wire.to_holder_sat,
        wire.to_counterparty_sat,
        parse::script("to_holder_script", &wire.to_holder_script)?,
        parse::script("to_counterparty_script", &wire.to_counterparty_script)?,
        funding.into_bitcoin_outpoint(),
    ))
}

/// An output that a closed channel left to us, and what its key and script derive from.
#[derive(Clone, Debug)]
pub enum SpendableOutput {
    StaticPayment {
        channel_keys_id: [u8; 32],
        outpoint: OutPoint,
        output: TxOut,
        channel_type: ChannelTypeFeatures,
    },
    DelayedPayment {
        channel_keys_id: [u8; 32],
        outpoint: OutPoint,
        output: TxOut,
        per_commitment_point: PublicKey,
        to_self_delay: u16,
        revocation_pubkey: RevocationKey,
    },
    Static {
        outpoint: OutPoint,
        output: TxOut,
    },
}

impl SpendableOutput {
    pub fn from_wire(field: &str, wire: &v1::SpendableOutput) -> Result<Self, Error> {
        let at = |name: &str| format!("{field}.{name}");
        let place = |wire_outpoint: &Option<v1::OutPoint>, wire_output: &Option<v1::TxOut>| {
            let outpoint = at("outpoint");
            let output = at("output");
            Ok::<_, Error>((
                parse::outpoint(&outpoint, parse::required(&outpoint, wire_outpoint)?)?,
                parse::tx_out(&output, parse::required(&output, wire_output)?)?,
            ))
        };
        Ok(match parse::required(field, &wire.kind)? {
            Kind::StaticPayment(kind) => {
                let (outpoint, output) = place(&kind.outpoint, &kind.output)?;
                Self::StaticPayment {
                    channel_keys_id: parse::array(&at("channel_keys_id"), &kind.channel_keys_id)?,
                    outpoint,
                    output,
                    channel_type: channel_type_to_ldk(&at("channel_type"), kind.channel_type)?,
                }
            }
            Kind::DelayedPayment(kind) => {
                let (outpoint, output) = place(&kind.outpoint, &kind.output)?;
                Self::DelayedPayment {
                    channel_keys_id: parse::array(&at("channel_keys_id"), &kind.channel_keys_id)?,
                    outpoint,
                    output,
                    per_commitment_point: parse::public_key(&at("per_commitment_point"), &kind.per_commitment_point)?,
                    to_self_delay: parse::blocks(&at("to_self_delay"), kind.to_self_delay)?,
                    revocation_pubkey: RevocationKey(parse::public_key(
                        &at("revocation_pubkey"),
                        &kind.revocation_pubkey,
                    )?),
                }
            }
            Kind::Static(kind) => {
                let (outpoint, output) = place(&kind.outpoint, &kind.output)?;
                Self::Static { outpoint, output }
            }
        })
    }

    pub fn outpoint(&self) -> OutPoint {
        match self {
            Self::StaticPayment { outpoint, .. }
            | Self::DelayedPayment { outpoint, .. }
            | Self::Static { outpoint, .. } => *outpoint,
        }
    }

    pub fn output(&self) -> &TxOut {
        match self {
            Self::StaticPayment { output, .. } | Self::DelayedPayment { output, .. } | Self::Static { output, .. } => {
                output
            }
        }
    }
}

pub fn spendable_to_wire(descriptor: &SpendableOutputDescriptor) -> Result<v1::SpendableOutput, Error> {
    let kind = match descriptor {
        SpendableOutputDescriptor::StaticPaymentOutput(of) => {
            // LDK writes the parameters since 0.0.117; before that there was only one type of channel.
            let channel_type = match &of.channel_transaction_parameters {
                Some(parameters) => channel_type_to_wire("channel_type", &parameters.channel_type_features)?,
                None => v1::ChannelType::StaticRemoteKey,
            };
            Kind::StaticPayment(v1::StaticPaymentOutput {
                channel_keys_id: of.channel_keys_id.to_vec(),
                outpoint: Some(outpoint_to_wire(&of.outpoint)),
                output: Some(tx_out_to_wire(&of.output)),
                channel_type: channel_type.into(),
            })
        }
        SpendableOutputDescriptor::DelayedPaymentOutput(of) => Kind::DelayedPayment(v1::DelayedPaymentOutput {
            channel_keys_id: of.channel_keys_id.to_vec(),
            outpoint: Some(outpoint_to_wire(&of.outpoint)),
            output: Some(tx_out_to_wire(&of.output)),
            per_commitment_point: of.per_commitment_point.serialize().to_vec(),
            to_self_delay: of.to_self_delay.into(),
            revocation_pubkey: of.revocation_pubkey.to_public_key().serialize().to_vec(),
        }),
        SpendableOutputDescriptor::StaticOutput { outpoint, output, .. } => Kind::Static(v1::StaticOutput {
            outpoint: Some(outpoint_to_wire(outpoint)),
            output: Some(tx_out_to_wire(output)),
        }),
    };
    Ok(v1::SpendableOutput { kind: Some(kind) })
}
