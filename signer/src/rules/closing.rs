//! Where a cooperative close may pay us.

use bitcoin::Script;

use super::{Refusal, Rule, RulesConfig};

/// `close-destination`: what is ours goes to a script of the node's own keys or to one of the configured destinations.
/// `is_own` is asked last: it may have to look for a while.
pub fn check_close_destination(
    limits: &RulesConfig,
    to_holder_sat: u64,
    script: &Script,
    is_own: impl FnOnce(&Script) -> bool,
) -> Result<(), Refusal> {
    // Then there is no output of ours.
    if to_holder_sat == 0 || limits.is_destination(script) || is_own(script) {
        return Ok(());
    }
    let script = script.to_hex_string();
    Rule::CloseDestination.refuse(format!("script {script} is neither the node's own nor in rules.destinations"))
}

#[cfg(test)]
mod tests {
    use bitcoin::{ScriptBuf, WPubkeyHash, hashes::Hash};

    use super::*;

    #[test]
    fn a_close_pays_ourselves_or_a_destination_of_the_configuration() {
        let script = |byte| ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]));
        let address = bitcoin::Address::from_script(&script(1), bitcoin::Network::Regtest).unwrap();
        let limits = RulesConfig { destinations: vec![address.into_unchecked()], ..RulesConfig::default() };
        let check = |sat, of: u8| check_close_destination(&limits, sat, &script(of), |own| *own == *script(2));
        check(1, 1).unwrap();
        check(1, 2).unwrap();
        assert_eq!(check(1, 3).unwrap_err().rule, Rule::CloseDestination);
        check(0, 3).unwrap();
        let none = RulesConfig::default();
        assert!(check_close_destination(&none, 1, &script(1), |_| false).is_err());
    }
}
