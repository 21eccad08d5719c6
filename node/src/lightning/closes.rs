//! Closing a channel, as an operator asks for it.

use bitcoin::Address;
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::{script::ShutdownScript, types::ChannelId},
    util::errors::APIError,
};

use super::{channels::misuse, node::LightningNode};

/// The signer's rule for where a cooperative close pays. The node asks first, since a close cannot be begun anew with
/// another destination.
const CLOSE_DESTINATION: &str = "close-destination";
/// So many addresses of each branch of the wallet are the node's own to that rule.
const SIGNERS_WINDOW: u32 = 50_000;

impl LightningNode {
    pub(super) async fn close(&self, request: v1::CloseChannelRequest) -> Result<v1::CloseChannelResponse, Error> {
        self.must_run()?;
        let channel = self.find_channel(&request.channel_id)?;
        let (id, peer) = (channel.channel_id, channel.counterparty.node_id);
        let how = How::parse(&request, |address| self.address(address))?;
        let feerate = match how.feerate_sat_per_kvb {
            Some(rate) => Some(sat_per_kw(self.feerate("feerate_sat_per_kvb", Some(rate))?)),
            None => None,
        };
        let script = match &how.address {
            Some(address) => Some(self.destination(address)?),
            None => None,
        };
        let close = || match how.force {
            true => self.manager.force_close_broadcasting_latest_txn(&id, &peer, "closed by the operator".to_owned()),
            false => self.manager.close_channel_with_feerate_and_script(&id, &peer, feerate, script),
        };
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                close().map_err(|error| explain(id, error))
            })
        })?;
        self.committed().await?;
        Ok(v1::CloseChannelResponse {})
    }

    /// The script of an address that the signer will let a close pay to.
    fn destination(&self, address: &Address) -> Result<ShutdownScript, Error> {
        let script = address.script_pubkey();
        if !self.wallet.is_among_first(SIGNERS_WINDOW, &script) {
            let allowed = tokio::task::block_in_place(|| self.keys.close_destinations())?;
            if !allowed.contains(&script) {
                let why = format!(
                    "{address} is neither one of the wallet's first {SIGNERS_WINDOW} nor one of the signer's rules.destinations"
                );
                return Err(Error::refused(CLOSE_DESTINATION, why));
            }
        }
        ShutdownScript::try_from(script).map_err(|_| {
            Error::misuse("address", format!("{address} is of a kind that no peer has to accept (BOLT 2)"))
        })
    }
}

pub(super) fn sat_per_kw(rate: bitcoin::FeeRate) -> u32 {
    u32::try_from(rate.to_sat_per_kwu()).unwrap_or(u32::MAX)
}

/// How a channel is to be closed.
#[derive(Debug)]
struct How {
    force: bool,
    address: Option<Address>,
    feerate_sat_per_kvb: Option<u64>,
}

impl How {
    fn parse(
        request: &v1::CloseChannelRequest,
        address: impl Fn(&str) -> Result<Address, Error>,
    ) -> Result<Self, Error> {
        let v1::CloseChannelRequest { force, address: text, feerate_sat_per_kvb, .. } = request;
        if *force && !text.is_empty() {
            let why = "closing by force pays to the wallet alone: our commitment says so already";
            return Err(Error::misuse("address", why));
        }
        if *force && feerate_sat_per_kvb.is_some() {
            return Err(Error::misuse("feerate_sat_per_kvb", "closing by force has the commitment's fee rate"));
        }
        let address = if text.is_empty() { None } else { Some(address(text)?) };
        Ok(Self { force: *force, address, feerate_sat_per_kvb: *feerate_sat_per_kvb })
    }
}

/// LDK's refusal, in words that say what to do.
fn explain(channel: ChannelId, error: APIError) -> Error {
    match error {
        APIError::APIMisuseError { err } if err.starts_with("Cannot override shutdown script") => Error::misuse(
            "address",
            format!("channel {channel} was opened with a fixed destination for its close: close it without an address"),
        ),
        APIError::IncompatibleShutdownScript { .. } => {
            Error::misuse("address", "the peer does not take this kind of address; a P2WPKH or P2WSH one will do")
        }
        other => misuse("channel_id", other),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn parse(force: bool, address: &str, feerate_sat_per_kvb: Option<u64>) -> Result<How, Error> {
        let request =
            v1::CloseChannelRequest { force, address: address.into(), feerate_sat_per_kvb, ..Default::default() };
        How::parse(&request, |text| Ok(Address::from_str(text).unwrap().assume_checked()))
    }

    #[test]
    fn a_forced_close_takes_no_destination_and_no_fee_rate() {
        const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let field = |refused: Result<How, Error>| match refused {
            Err(Error::Misuse { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(parse(true, ADDRESS, None)), "address");
        assert_eq!(field(parse(true, "", Some(1000))), "feerate_sat_per_kvb");
        let how = parse(false, ADDRESS, Some(1000)).unwrap();
        assert_eq!(how.address.unwrap().to_string(), ADDRESS);
        assert!(parse(true, "", None).unwrap().address.is_none());
    }

    #[test]
    fn ldks_refusals_of_a_destination_are_told_apart() {
        let id = ChannelId([7; 32]);
        let fixed = "Cannot override shutdown script for a channel with one already set".to_owned();
        let said = explain(id, APIError::APIMisuseError { err: fixed }).to_string();
        assert!(said.contains("fixed destination"), "{said}");
        let other = explain(id, APIError::APIMisuseError { err: "Shutdown already in progress".into() });
        assert!(matches!(&other, Error::Misuse { field, why } if field == "channel_id" && why.contains("in progress")));
    }
}
