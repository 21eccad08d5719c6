//! Closing, and claiming what a close left on chain.

use super::{Verdict, next, registered};
use crate::{
    guard::{
        bytes::{Point, TxId},
        state::{ChannelState, FundingOutpoint},
    },
    rules::{Refusal, Rule},
};

pub(super) fn anchor(state: &ChannelState, outpoint: FundingOutpoint, txid: TxId) -> Result<Verdict, Refusal> {
    let funding = registered(state, outpoint)?;
    if !funding.holder.values().any(|commitment| commitment.txid == txid) {
        return Rule::HolderCountersigned
            .refuse("the input spends no holder commitment that is validated and unrevoked");
    }
    Ok(Verdict::Same)
}

pub(super) fn counterparty_htlc(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    txid: TxId,
    point: Point,
) -> Result<Verdict, Refusal> {
    let funding = registered(state, outpoint)?;
    let ours = funding
        .counterparty
        .iter()
        .any(|(number, commitment)| commitment.txid == txid && state.counterparty.points.get(number) == Some(&point));
    if !ours {
        return Rule::CommitmentNumber
            .refuse("the input spends no counterparty commitment that is signed and was unrevoked until the last");
    }
    Ok(Verdict::Same)
}

/// Closes with other fees may be signed one after another; none of them leaves a way back.
pub(super) fn close(state: &ChannelState, outpoint: FundingOutpoint) -> Result<Verdict, Refusal> {
    registered(state, outpoint)?;
    if state.close_signed {
        return Ok(Verdict::Same);
    }
    next(state, |state| state.close_signed = true)
}
