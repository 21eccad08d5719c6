//! The counterparty's commitments: signed by us, revoked by it.

use super::{Verdict, after, next, reached, registered};
use crate::{
    guard::{
        bytes::Point,
        state::{ChannelState, Commitment, FundingOutpoint},
    },
    rules::{Refusal, Rule},
};

pub(super) fn sign(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    number: u64,
    point: Point,
    commitment: Commitment,
    htlcs: usize,
) -> Result<Verdict, Refusal> {
    let funding = registered(state, outpoint)?;
    let side = &state.counterparty;

    if side.points.get(&number).is_some_and(|known| *known != point) {
        return Rule::CommitmentNumber.refuse(format!("commitment {number} has another point"));
    }
    if reached(side.revoked, number) {
        return Rule::CommitmentNumber.refuse(format!("commitment {number} is revoked"));
    }
    if let Some(signed) = funding.counterparty.get(&number) {
        return match signed.content == commitment.content {
            true => Ok(Verdict::Same),
            false => Rule::CommitmentRepeat.refuse(format!("commitment {number} was signed with other content")),
        };
    }
    if number > after(side.newest) {
        return Rule::CommitmentNumber.refuse(format!("the next commitment is {}, not {number}", after(side.newest)));
    }
    // A third unrevoked one would leave two old states that the counterparty may still broadcast.
    if number >= after(side.revoked) + 2 {
        return Rule::CommitmentNumber.refuse(format!("commitment {} is not revoked yet", after(side.revoked)));
    }
    if number == 0 && htlcs > 0 {
        return Rule::FirstCommitment.refuse("the first commitment has HTLCs");
    }
    if state.close_signed {
        return Rule::CloseHtlcs.refuse("a close was signed");
    }
    next(state, |state| {
        state.counterparty.newest = state.counterparty.newest.max(Some(number));
        state.counterparty.points.insert(number, point);
        if let Some(funding) = state.funding_mut(outpoint) {
            funding.counterparty.insert(number, commitment);
        }
    })
}

pub(super) fn revokes(state: &ChannelState, number: u64, secret: [u8; 32], point: Point) -> Result<Verdict, Refusal> {
    let side = &state.counterparty;
    if reached(side.revoked, number) {
        return match side.secrets.get(number) == Some(secret) {
            true => Ok(Verdict::Same),
            false => Rule::CommitmentNumber.refuse(format!("commitment {number} was revoked with another secret")),
        };
    }
    if number != after(side.revoked) {
        return Rule::CommitmentNumber
            .refuse(format!("the next to be revoked is {}, not {number}", after(side.revoked)));
    }
    if side.newest.is_none_or(|newest| number >= newest) {
        return Rule::CommitmentNumber.refuse(format!("nothing newer than commitment {number} is signed"));
    }
    if side.points.get(&number) != Some(&point) {
        return Rule::CommitmentNumber.refuse(format!("the secret is not that of commitment {number}'s point"));
    }
    let mut secrets = side.secrets.clone();
    if !secrets.add(number, secret) {
        return Rule::CommitmentNumber.refuse(format!("the secret of commitment {number} is not of the chain"));
    }
    next(state, |state| {
        state.counterparty.revoked = Some(number);
        state.counterparty.secrets = secrets;
        // It stays for claims: a peer may broadcast it first and revoke it after, before LDK has seen the one and closed
        // the channel. LDK then goes on to claim its HTLCs as those of an unrevoked commitment.
        state.counterparty.points.retain(|of, _| *of >= number);
        for funding in &mut state.fundings {
            funding.counterparty.retain(|of, _| *of >= number);
        }
    })
}
