//! What a transaction of the on-chain wallet may cost.

use bitcoin::{Amount, TxOut, Weight};

use super::{Refusal, Rule, RulesConfig};

/// A wallet transaction in plain figures.
#[derive(Clone, Debug)]
pub struct Spend {
    pub inputs: Vec<SpentCoin>,
    /// The sum of its outputs.
    pub outputs: Amount,
    /// Without its witnesses.
    pub weight: Weight,
}

/// What one input spends, as the request says.
#[derive(Clone, Debug)]
pub struct SpentCoin {
    pub ours: bool,
    pub output: Option<TxOut>,
    /// The whole transaction that made it was shown, so that its value is no mere claim.
    pub proven: bool,
}

/// A P2WPKH witness: two pushes with their lengths, and their count.
const WITNESS: Weight = Weight::from_wu(109);

/// `onchain-inputs` and `onchain-fee`.
///
/// The fee rate is limited for what spends our coins alone. Beside them a closed channel's outputs may stand, whose
/// witnesses are not known here and which may have to pay for a parent; the absolute limit holds for those as well.
///
/// It is no bound on what somebody can make us overpay who asks for the same transaction twice: what is not signed need
/// not be proven, and a coin of ours passes for somebody else's when its derivation is left out (SECURITY.md).
pub fn check_wallet_spend(limits: &RulesConfig, spend: &Spend) -> Result<(), Refusal> {
    let mut spent = Amount::ZERO;
    for (index, coin) in spend.inputs.iter().enumerate() {
        let Some(output) = &coin.output else {
            return Rule::OnchainInputs.refuse(format!("input {index} does not say what it spends"));
        };
        if !output.script_pubkey.is_witness_program() {
            return Rule::OnchainInputs.refuse(format!("input {index} spends an output that is not segwit"));
        }
        // What is signed is of proven value. A signature holds the value of its own input only, so the others' are mere
        // claims unless they are proven too.
        if coin.ours && !coin.proven {
            return Rule::OnchainInputs.refuse(format!("input {index} comes without the transaction that it spends"));
        }
        spent = match spent.checked_add(output.value) {
            Some(sum) => sum,
            None => return Rule::OnchainInputs.refuse("the inputs are worth more than there is"),
        };
    }
    let Some(fee) = spent.checked_sub(spend.outputs) else {
        return Rule::OnchainInputs.refuse("the outputs are worth more than the inputs");
    };
    let most = Amount::from_sat(limits.onchain_max_fee_sat);
    if fee > most {
        return Rule::OnchainFee.refuse(format!("a fee of {fee} is above {most}"));
    }
    if spend.inputs.iter().all(|coin| coin.ours) {
        let weight = spend.weight + WITNESS * spend.inputs.len() as u64;
        // Satoshi a virtual byte, of which there are four weight units to one.
        let most = weight.to_wu().saturating_mul(limits.onchain_max_feerate_sat_per_vb) / 4;
        if fee.to_sat() > most {
            let limit = limits.onchain_max_feerate_sat_per_vb;
            return Rule::OnchainFee.refuse(format!("a fee of {fee} is more than {limit} sat/vB come to"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bitcoin::{ScriptBuf, WPubkeyHash, hashes::Hash};

    use super::*;

    fn coin(sat: u64) -> SpentCoin {
        let script_pubkey = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]));
        SpentCoin { ours: true, output: Some(TxOut { value: Amount::from_sat(sat), script_pubkey }), proven: true }
    }

    fn spend(inputs: Vec<SpentCoin>, outputs: u64) -> Spend {
        // One input and one output: 110 virtual bytes with the witness.
        Spend { inputs, outputs: Amount::from_sat(outputs), weight: Weight::from_wu(331) }
    }

    fn refused(spend: &Spend) -> Option<Rule> {
        check_wallet_spend(&RulesConfig::default(), spend).err().map(|refusal| refusal.rule)
    }

    #[test]
    fn a_fee_is_limited_in_rate_and_in_all() {
        let limits = RulesConfig::default();
        let most = 110 * limits.onchain_max_feerate_sat_per_vb;
        assert_eq!(refused(&spend(vec![coin(10_000_000)], 10_000_000 - most)), None);
        assert_eq!(refused(&spend(vec![coin(10_000_000)], 10_000_000 - most - 1)), Some(Rule::OnchainFee));
        // Beside a channel's output only the sum counts.
        let foreign = || SpentCoin { ours: false, proven: false, ..coin(330) };
        let paid = |fee: u64| spend(vec![coin(100_000_000), foreign()], 100_000_330 - fee);
        assert_eq!(refused(&paid(most + 1)), None);
        assert_eq!(refused(&paid(limits.onchain_max_fee_sat)), None);
        assert_eq!(refused(&paid(limits.onchain_max_fee_sat + 1)), Some(Rule::OnchainFee));
    }

    /// The known limit of the rule, as SECURITY.md tells it: one that ends it changes this test.
    #[test]
    fn what_is_not_signed_is_worth_what_the_request_says() {
        let most = RulesConfig::default().onchain_max_fee_sat;
        let hidden = || SpentCoin { ours: false, proven: false, ..coin(1_000) };
        let true_sum = 2 * 10 * most;
        let outputs = 10 * most;
        assert_eq!(refused(&spend(vec![coin(true_sum / 2), hidden()], outputs)), None);
        assert_eq!(refused(&spend(vec![hidden(), coin(true_sum / 2)], outputs)), None);
        assert_eq!(refused(&spend(vec![coin(true_sum / 2), coin(true_sum / 2)], outputs)), Some(Rule::OnchainFee));
    }

    #[test]
    fn values_are_known_and_ours_are_proven() {
        let unproven = SpentCoin { proven: false, ..coin(1000) };
        let silent = SpentCoin { ours: false, output: None, proven: false };
        let mut old = coin(1000);
        old.output.as_mut().unwrap().script_pubkey = ScriptBuf::new();
        let huge = SpentCoin { ours: false, ..coin(u64::MAX) };
        for inputs in [vec![unproven], vec![coin(1000), silent], vec![old], vec![coin(1), huge]] {
            assert_eq!(refused(&spend(inputs, 900)), Some(Rule::OnchainInputs));
        }
        assert_eq!(refused(&spend(vec![coin(1000)], 1001)), Some(Rule::OnchainInputs));
    }
}
