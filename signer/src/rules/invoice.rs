//! What an invoice signed by us may say.

use bitcoin::{Network, secp256k1::PublicKey};
use lightning_invoice::{Currency, DEFAULT_EXPIRY_TIME, RawBolt11Invoice};

use super::{Refusal, Rule, RulesConfig};

/// `invoice`: our node id (named or implied by the signature), our network, an expiry within limits.
pub fn check_invoice(
    limits: &RulesConfig,
    network: Network,
    node_id: &PublicKey,
    invoice: &RawBolt11Invoice,
) -> Result<(), Refusal> {
    let currency = match network {
        Network::Bitcoin => Currency::Bitcoin,
        Network::Testnet | Network::Testnet4 => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
    };
    if invoice.currency() != currency {
        return Rule::Invoice.refuse(format!("it is for {:?}, not for {network}", invoice.currency()));
    }
    if invoice.payee_pub_key().is_some_and(|payee| payee.0 != *node_id) {
        return Rule::Invoice.refuse("it pays another node");
    }
    let expiry = invoice.expiry_time().map_or(DEFAULT_EXPIRY_TIME, |expiry| expiry.as_seconds());
    if expiry > limits.invoice_max_expiry_secs {
        return Rule::Invoice
            .refuse(format!("it expires after {expiry} s, the limit is {} s", limits.invoice_max_expiry_secs));
    }
    Ok(())
}
