//! The guard's state machine: state and request in, verdict and next state out. No IO, no clock, no cryptography
//! beyond the hash chain of BOLT 3, so that property tests can drive it through millions of steps.
//!
//! Whoever calls it has built the transactions, checked the signatures, and says so in the request.

mod claims;
mod counterparty;
mod funding;
mod holder;

#[cfg(test)]
mod tests;

use super::{
    bytes::{Digest, Point, TxId},
    state::{ChannelState, Commitment, Funding, FundingOutpoint, Parameters},
};
use crate::rules::{Refusal, Rule};

/// What a caller wants of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A funding output and its parameters; with the commitment that was shown early for it, if there is one.
    Register {
        funding: FundingOutpoint,
        parameters: Parameters,
        early: Option<Countersigned>,
    },
    SignCounterparty {
        funding: FundingOutpoint,
        number: u64,
        point: Point,
        commitment: Commitment,
        htlcs: usize,
    },
    /// The counterparty revokes `number`. `point` is the secret's.
    CounterpartyRevokes {
        number: u64,
        secret: [u8; 32],
        point: Point,
    },
    Validate {
        funding: FundingOutpoint,
        commitment: Countersigned,
    },
    /// A holder commitment whose funding output is not registered yet.
    ValidateEarly {
        funding: FundingOutpoint,
        number: u64,
        encoded: Vec<u8>,
    },
    ReleaseSecret {
        number: u64,
    },
    SignHolder {
        funding: FundingOutpoint,
        number: u64,
        content: Digest,
    },
    /// A second-level transaction on the holder commitment `txid`.
    SignHolderHtlc {
        funding: FundingOutpoint,
        number: u64,
        txid: TxId,
    },
    /// The anchor of the holder commitment `txid`.
    SignAnchor {
        funding: FundingOutpoint,
        txid: TxId,
    },
    /// An HTLC output of the counterparty commitment `txid`, whose point is `point`.
    SignCounterpartyHtlc {
        funding: FundingOutpoint,
        txid: TxId,
        point: Point,
    },
    SignClose {
        funding: FundingOutpoint,
    },
    /// The funding output spent by the splice transaction `txid`.
    SignSplice {
        funding: FundingOutpoint,
        txid: TxId,
    },
}

/// A holder commitment, and whether the counterparty's signatures on it and its HTLCs are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countersigned {
    pub number: u64,
    pub commitment: Commitment,
    pub htlcs: usize,
    pub valid: Result<(), String>,
}

/// What may be answered, and what must be durable before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes: the question was answered before, or its answer leaves no trace.
    Same,
    Next(Box<ChannelState>),
}

/// Whether `request` may be answered in `state`.
pub fn decide(state: &ChannelState, request: &Request) -> Result<Verdict, Refusal> {
    match request {
        Request::Register { funding, parameters, early } => {
            funding::register(state, *funding, parameters, early.as_ref())
        }
        Request::SignCounterparty { funding, number, point, commitment, htlcs } => {
            counterparty::sign(state, *funding, *number, *point, *commitment, *htlcs)
        }
        Request::CounterpartyRevokes { number, secret, point } => {
            counterparty::revokes(state, *number, *secret, *point)
        }
        Request::Validate { funding, commitment } => holder::validate(state, *funding, commitment),
        Request::ValidateEarly { funding, number, encoded } => {
            holder::validate_early(state, *funding, *number, encoded)
        }
        Request::ReleaseSecret { number } => holder::release(state, *number),
        Request::SignHolder { funding, number, content } => holder::sign(state, *funding, *number, *content),
        Request::SignHolderHtlc { funding, number, txid } => holder::sign_htlc(state, *funding, *number, *txid),
        Request::SignAnchor { funding, txid } => claims::anchor(state, *funding, *txid),
        Request::SignCounterpartyHtlc { funding, txid, point } => {
            claims::counterparty_htlc(state, *funding, *txid, *point)
        }
        Request::SignClose { funding } => claims::close(state, *funding),
        Request::SignSplice { funding, txid } => funding::splice(state, *funding, *txid),
    }
}

fn registered(state: &ChannelState, outpoint: FundingOutpoint) -> Result<&Funding, Refusal> {
    match state.funding(outpoint) {
        Some(funding) => Ok(funding),
        None => Rule::ChannelIdReuse.refuse("this funding output is not registered for the channel"),
    }
}

fn next(state: &ChannelState, change: impl FnOnce(&mut ChannelState)) -> Result<Verdict, Refusal> {
    let mut next = Box::new(state.clone());
    change(&mut next);
    Ok(Verdict::Next(next))
}

/// The number after the newest, which is 0 when there is none.
fn after(newest: Option<u64>) -> u64 {
    newest.map_or(0, |number| number + 1)
}

/// `number <= newest`, where none is below everything.
fn reached(newest: Option<u64>, number: u64) -> bool {
    newest.is_some_and(|newest| number <= newest)
}
