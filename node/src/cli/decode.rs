//! `holdfast decode`: what an invoice, an offer or a refund says, without asking anybody.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::{Network, constants::ChainHash};
use lightning::offers::{
    offer::{Amount, Offer},
    refund::Refund,
};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef};
use serde_json::{Value, json};

use super::{
    Output,
    failure::{Exit, Failure},
    text,
};

pub(super) fn run(given: &str) -> Result<Output, Failure> {
    let given = given.trim();
    let given = given.strip_prefix("lightning:").unwrap_or(given);
    let bad = |what: &str, why: String| Failure::new(Exit::Data, format!("not {what}: {why}"));
    let json = match given.get(..3).map(str::to_ascii_lowercase).as_deref() {
        Some("lno") => offer(&Offer::from_str(given).map_err(|e| bad("an offer", format!("{e:?}")))?),
        Some("lnr") => refund(&Refund::from_str(given).map_err(|e| bad("a refund", format!("{e:?}")))?),
        _ => invoice(&Bolt11Invoice::from_str(given).map_err(|e| bad("an invoice", e.to_string()))?),
    };
    let rows: Vec<(&str, String)> =
        json.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), shown(name, value))).collect();
    Ok(Output::ok(json.clone(), text::pairs(&rows)))
}

fn invoice(invoice: &Bolt11Invoice) -> Value {
    let (description, description_hash) = match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => (Some(text.to_string()), None),
        Bolt11InvoiceDescriptionRef::Hash(hash) => (None, Some(hash.0.to_string())),
    };
    let made = invoice.duration_since_epoch();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "type": "bolt11",
        "network": invoice.network().to_string(),
        "payee": invoice.recover_payee_pub_key().to_string(),
        "payment_hash": invoice.payment_hash().to_string(),
        "amount_msat": invoice.amount_milli_satoshis(),
        "description": description,
        "description_hash": description_hash,
        "made_ms": ms(made),
        "expires_ms": ms(made.saturating_add(invoice.expiry_time())),
        "expired": invoice.would_expire(now),
        "final_cltv_delta": invoice.min_final_cltv_expiry_delta(),
        "multi_part": invoice.features().is_some_and(|features| features.supports_basic_mpp()),
        "metadata": invoice.payment_metadata().map(hex::encode),
        "route_hints": invoice.route_hints().len(),
    })
}

fn offer(offer: &Offer) -> Value {
    let (amount_msat, currency) = match offer.amount() {
        Some(Amount::Bitcoin { amount_msats }) => (Some(amount_msats), None),
        Some(Amount::Currency { iso4217_code, amount }) => (None, Some(format!("{amount} {iso4217_code}"))),
        None => (None, None),
    };
    let networks: Vec<_> = offer.chains().into_iter().map(network).collect();
    json!({
        "type": "offer",
        "offer_id": hex::encode(offer.id().0),
        "networks": networks,
        "issuer": offer.issuer().map(|text| text.to_string()),
        "amount_msat": amount_msat,
        "amount_in_currency": currency,
        "description": offer.description().map(|text| text.to_string()),
        "expires_ms": offer.absolute_expiry().map(ms),
        "expired": offer.is_expired(),
        "signing_key": offer.issuer_signing_pubkey().map(|key| key.to_string()),
        "blinded_paths": offer.paths().len(),
    })
}

fn refund(refund: &Refund) -> Value {
    json!({
        "type": "refund",
        "networks": [network(refund.chain())],
        "issuer": refund.issuer().map(|text| text.to_string()),
        "amount_msat": refund.amount_msats(),
        "description": refund.description().to_string(),
        "expires_ms": refund.absolute_expiry().map(ms),
        "expired": refund.is_expired(),
        "payer_key": refund.payer_signing_pubkey().to_string(),
        "blinded_paths": refund.paths().len(),
    })
}

fn network(chain: ChainHash) -> String {
    Network::from_chain_hash(chain).map_or_else(|| chain.to_string(), |network| network.to_string())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A value for people; what is absent is left out.
fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) if name.ends_with("_ms") => text::time(number.as_u64().unwrap_or(0)),
        Value::Number(number) if name.ends_with("_msat") => text::msat(number.as_u64().unwrap_or(0)),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BOLT 11's own example, and the first of BOLT 12's.
    const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
    const OFFER: &str = "lno1pgx9getnwss8vetrw3hhyuckyypwa3eyt44h6txtxquqh7lz5djge4afgfjn7k4rgrkuag0jsd5xvxg";

    #[test]
    fn an_invoice_says_what_it_holds() {
        let output = run(&format!(" lightning:{INVOICE}\n")).unwrap();
        assert_eq!(output.json["amount_msat"], 250_000_000);
        assert_eq!(output.json["description"], "1 cup coffee");
        assert_eq!(output.json["expired"], true);
        assert!(output.text.contains("250 000 sat") && output.text.contains("2017-06-01"), "{}", output.text);
    }

    #[test]
    fn an_offer_says_what_it_holds() {
        let output = run(OFFER).unwrap();
        assert_eq!((&output.json["type"], &output.json["amount_msat"]), (&"offer".into(), &Value::Null));
        assert_eq!(output.json["description"], "Test vectors");
        assert_eq!(output.json["networks"][0], "bitcoin");
    }

    #[test]
    fn what_is_none_of_them_is_told_so() {
        for given in ["", "lnbc1", "lno1x", "lnr1x", "hello", "\u{1f980}\u{1f980}"] {
            let failure = run(given).unwrap_err();
            assert!(failure.exit == Exit::Data && failure.message.starts_with("not a"), "{given}: {failure}");
        }
    }
}
