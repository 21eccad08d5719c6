//! The holder's commitments: countersigned, then either revoked or signed for broadcast, never both (P6).

use super::{Countersigned, Verdict, after, funding::superseded, next, reached, registered};
use crate::{
    guard::{
        bytes::{Digest, TxId},
        state::{ChannelState, Commitment, Early, FundingOutpoint},
    },
    rules::{Refusal, Rule},
};

pub(super) fn validate(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    request: &Countersigned,
) -> Result<Verdict, Refusal> {
    let funding = registered(state, outpoint)?;
    let Countersigned { number, commitment, htlcs, valid } = request;
    let number = *number;
    if let Err(why) = valid {
        return Rule::HolderCountersigned.refuse(why.as_str());
    }
    check_number(state, number)?;
    if let Some(validated) = funding.holder.get(&number) {
        if validated.content == commitment.content {
            return Ok(Verdict::Same);
        }
        // LDK asks again with other content only when it was cut off before it could depend on the first.
        let predecessor_released = number <= after(state.holder.revoked);
        if predecessor_released {
            return Rule::CommitmentRepeat
                .refuse(format!("commitment {number} was validated with other content, and is the only one left"));
        }
        if reached_by(state.holder.signed, number) {
            return Rule::CommitmentRepeat.refuse(format!("commitment {number} was signed with other content"));
        }
    }
    if number == 0 && *htlcs > 0 {
        return Rule::FirstCommitment.refuse("the first commitment has HTLCs");
    }
    next(state, |state| {
        state.holder.newest = state.holder.newest.max(Some(number));
        if let Some(funding) = state.funding_mut(outpoint) {
            funding.holder.insert(number, *commitment);
        }
    })
}

/// Keeps the commitment until its funding output is registered; nothing depends on it before that.
pub(super) fn validate_early(
    state: &ChannelState,
    funding: FundingOutpoint,
    number: u64,
    encoded: &[u8],
) -> Result<Verdict, Refusal> {
    check_number(state, number)?;
    let early = Some(Early { funding, encoded: encoded.to_vec() });
    if state.holder.early == early {
        return Ok(Verdict::Same);
    }
    next(state, |state| state.holder.early = early)
}

fn check_number(state: &ChannelState, number: u64) -> Result<(), Refusal> {
    if reached(state.holder.revoked, number) {
        return Rule::HolderRevoked.refuse(format!("commitment {number} is revoked"));
    }
    let next = after(state.holder.newest);
    if number > next {
        return Rule::CommitmentNumber.refuse(format!("the next commitment is {next}, not {number}"));
    }
    let oldest = after(state.holder.revoked);
    if number >= oldest + 2 {
        return Rule::CommitmentNumber.refuse(format!("commitment {oldest} is not revoked yet"));
    }
    Ok(())
}

pub(super) fn release(state: &ChannelState, number: u64) -> Result<Verdict, Refusal> {
    if reached(state.holder.revoked, number) {
        return Ok(Verdict::Same);
    }
    if reached_by(state.holder.signed, number) {
        return Rule::RevokeSigned.refuse(format!("commitment {number} or an older one was signed for broadcast"));
    }
    if state.close_signed {
        return Rule::RevokeSigned.refuse("a close was signed");
    }
    if number != after(state.holder.revoked) {
        return Rule::RevokeOrder
            .refuse(format!("the next to be revoked is {}, not {number}", after(state.holder.revoked)));
    }
    // Every funding output that may confirm needs a newer commitment before this one goes.
    let newer = number + 1;
    let mut covered = state.fundings.iter().any(|funding| funding.holder.contains_key(&newer));
    for funding in state.fundings.iter().filter(|funding| funding.holder.contains_key(&number)) {
        covered &= funding.holder.contains_key(&newer) || superseded(state, funding, newer);
    }
    if !covered {
        return Rule::RevokeOrder.refuse(format!("commitment {newer} is not validated"));
    }
    next(state, |state| {
        state.holder.revoked = Some(number);
        for funding in &mut state.fundings {
            funding.holder.remove(&number);
        }
    })
}

pub(super) fn sign(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    number: u64,
    content: Digest,
) -> Result<Verdict, Refusal> {
    let commitment = unrevoked(state, outpoint, number)?;
    if commitment.content != content {
        return Rule::HolderCountersigned.refuse(format!("commitment {number} was validated with other content"));
    }
    mark_signed(state, number)
}

/// A second-level transaction is of use only once its commitment is broadcast: it counts as signing that.
pub(super) fn sign_htlc(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    number: u64,
    txid: TxId,
) -> Result<Verdict, Refusal> {
    let commitment = unrevoked(state, outpoint, number)?;
    if commitment.txid != txid {
        return Rule::HolderCountersigned.refuse(format!("commitment {number} has another txid"));
    }
    mark_signed(state, number)
}

fn unrevoked(state: &ChannelState, outpoint: FundingOutpoint, number: u64) -> Result<&Commitment, Refusal> {
    let funding = registered(state, outpoint)?;
    if reached(state.holder.revoked, number) {
        return Rule::HolderRevoked.refuse(format!("commitment {number} is revoked"));
    }
    match funding.holder.get(&number) {
        Some(commitment) => Ok(commitment),
        None => Rule::HolderCountersigned.refuse(format!("commitment {number} was not validated")),
    }
}

fn mark_signed(state: &ChannelState, number: u64) -> Result<Verdict, Refusal> {
    if reached_by(state.holder.signed, number) {
        return Ok(Verdict::Same);
    }
    next(state, |state| state.holder.signed = Some(number))
}

/// Whether `number` is the lowest number signed for broadcast, or above it.
fn reached_by(signed: Option<u64>, number: u64) -> bool {
    signed.is_some_and(|signed| signed <= number)
}
