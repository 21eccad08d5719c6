//! Funding outputs: what a channel is, and what it may become.

use std::collections::BTreeMap;

use super::{Countersigned, Verdict, holder, registered};
use crate::{
    guard::{
        bytes::TxId,
        state::{ChannelState, Funding, FundingOutpoint, Parameters},
    },
    rules::{Refusal, Rule},
};

pub(super) fn register(
    state: &ChannelState,
    outpoint: FundingOutpoint,
    parameters: &Parameters,
    early: Option<&Countersigned>,
) -> Result<Verdict, Refusal> {
    if let Some(known) = state.funding(outpoint) {
        return match known.parameters == *parameters {
            true => Ok(Verdict::Same),
            false => Rule::ChannelIdReuse.refuse("this funding output is registered with other parameters"),
        };
    }
    match (state.fundings.first(), parameters.parent) {
        (None, None) => {}
        (None, Some(_)) => return Rule::ChannelIdReuse.refuse("a splice of a channel that is not registered"),
        (Some(_), None) => return Rule::ChannelIdReuse.refuse("the channel is registered with another funding output"),
        (Some(first), Some(parent)) => {
            if first.parameters.lasting != parameters.lasting {
                return Rule::ChannelIdReuse.refuse("the splice changes more than the funding output");
            }
            if !state.fundings.iter().any(|funding| funding.outpoint.txid == parent) {
                return Rule::ChannelIdReuse.refuse("the splice spends no funding output of this channel");
            }
        }
    }
    let mut with_funding = state.clone();
    with_funding.fundings.push(Funding {
        outpoint,
        parameters: parameters.clone(),
        counterparty: BTreeMap::new(),
        holder: BTreeMap::new(),
    });
    // Shown before its parameters: it counts from now on, if it is right.
    if let Some(early) = early {
        with_funding.holder.early = None;
        if let Verdict::Next(validated) = holder::validate(&with_funding, outpoint, early)? {
            return Ok(Verdict::Next(validated));
        }
    }
    Ok(Verdict::Next(Box::new(with_funding)))
}

/// The transaction that spends `outpoint` makes a registered funding output of this channel.
pub(super) fn splice(state: &ChannelState, outpoint: FundingOutpoint, txid: TxId) -> Result<Verdict, Refusal> {
    registered(state, outpoint)?;
    if state.close_signed {
        return Rule::CloseHtlcs.refuse("a close was signed");
    }
    let made = |funding: &Funding| funding.outpoint.txid == txid && funding.parameters.parent == Some(outpoint.txid);
    if !state.fundings.iter().any(made) {
        return Rule::FundingScript.refuse("the transaction makes no registered funding output of this channel");
    }
    Ok(Verdict::Same)
}

/// For `holder::release`: whether `old` was replaced by a funding output that holds commitment `number`, so that it
/// needs none of its own. Splices of one parent replace each other: only one of them can confirm.
pub(super) fn superseded(state: &ChannelState, old: &Funding, number: u64) -> bool {
    state.fundings.iter().filter(|funding| funding.holder.contains_key(&number)).any(|holding| {
        let sibling = holding.parameters.parent.is_some() && holding.parameters.parent == old.parameters.parent;
        sibling || descends(state, holding, old.outpoint.txid)
    })
}

fn descends(state: &ChannelState, from: &Funding, ancestor: TxId) -> bool {
    let mut funding = Some(from);
    // Registration demands a registered parent, so the chain of parents ends within as many steps as there are outputs.
    for _ in 0..state.fundings.len() {
        let Some(parent) = funding.and_then(|funding| funding.parameters.parent) else { return false };
        if parent == ancestor {
            return true;
        }
        funding = state.fundings.iter().find(|funding| funding.outpoint.txid == parent);
    }
    false
}
