//! What a channel may be.

use holdfast_proto::signer::v1;
use lightning::ln::chan_utils::ChannelTransactionParameters;

use super::{Blocks, Refusal, Rule, RulesConfig};

/// `funding-script` and `contest-delay` for a funding output that is being registered.
pub fn check_parameters(limits: &RulesConfig, parameters: &ChannelTransactionParameters) -> Result<(), Refusal> {
    if parameters.splice_parent_funding_txid.is_some() && !limits.splices {
        return Rule::FundingScript.refuse("it is made by a splice, which rules.splices does not allow");
    }
    let check = |what: &str, blocks: u16, limit: Blocks| {
        if limit.contains(blocks) {
            return Ok(());
        }
        Rule::ContestDelay.refuse(format!("{what} waits {blocks} blocks, outside {} to {}", limit.min, limit.max))
    };
    check("the counterparty", parameters.holder_selected_contest_delay, limits.holder_contest_delay)?;
    match &parameters.counterparty_parameters {
        Some(counterparty) => check("we", counterparty.selected_contest_delay, limits.counterparty_contest_delay),
        None => Rule::ContestDelay.refuse("the counterparty's parameters are missing"),
    }
}

/// `channel-type`, before the parameters are parsed: what has no name on the wire is refused by rule, not misread.
pub(crate) fn check_channel_type(wire: &v1::ChannelParameters) -> Result<(), Refusal> {
    match v1::ChannelType::try_from(wire.channel_type) {
        Ok(v1::ChannelType::StaticRemoteKey | v1::ChannelType::AnchorsZeroFeeHtlc) => Ok(()),
        _ => Rule::ChannelType.refuse("neither static remote key nor zero-fee anchors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_type_without_a_name_is_refused() {
        for channel_type in [-1, 0, 3, i32::MAX] {
            let wire = v1::ChannelParameters { channel_type, ..Default::default() };
            assert_eq!(check_channel_type(&wire).unwrap_err().rule, Rule::ChannelType);
        }
        for channel_type in [1, 2] {
            check_channel_type(&v1::ChannelParameters { channel_type, ..Default::default() }).unwrap();
        }
    }
}
