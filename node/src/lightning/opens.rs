//! Opening a channel, as an operator asks for it.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};
use lightning::util::config::ChannelHandshakeConfig;

use super::{channels::misuse, closes::sat_per_kw, events::new_user_channel_id, limits, node::LightningNode};
use crate::store::Effect;

/// What the funding transaction weighs, about: its fee is needed beyond the capacity.
const FUNDING_WEIGHT: u64 = 800;
/// LDK opens no smaller one.
const MIN_CAPACITY_SAT: u64 = 1000;
/// BOLT 2: so that a commitment with all of them can be relayed.
const MAX_HTLCS: u32 = 483;

impl LightningNode {
    pub(super) async fn open(&self, request: v1::OpenChannelRequest) -> Result<v1::OpenChannelResponse, Error> {
        self.must_run()?;
        let peer = PublicKey::from_str(&request.node_id).map_err(|e| Error::misuse("node_id", e.to_string()))?;
        check_amounts(&request)?;
        let feerate = sat_per_kw(self.feerate("feerate_sat_per_kvb", request.feerate_sat_per_kvb)?);
        let reserve = self.reserve().to_sat().saturating_add(self.wallet.reserve_per_channel_sat());
        let fee = u64::from(feerate) * FUNDING_WEIGHT / 1000;
        let needed = request.capacity_sat.saturating_add(reserve).saturating_add(fee);
        let spendable = self.wallet.balance().spendable_sat;
        if spendable < needed {
            let why =
                format!("the wallet can spend {spendable} sat; with the reserve for fees {needed} sat are needed");
            return Err(Error::misuse("capacity_sat", why));
        }
        let mut config = self.manager.get_current_config();
        config.channel_handshake_config.announce_for_forwarding = request.announce;
        set_limits(&mut config.channel_handshake_config, &request)?;
        if !request.address.is_empty() {
            self.dialer.connect(peer, &request.address).await?;
        } else if !self.dialer.is_connected(&peer) {
            return Err(Error::misuse(
                "address",
                "the node is not connected to this peer, so it must know where it is",
            ));
        }

        let user_channel_id = new_user_channel_id(&*self.keys);
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                self.manager
                    .create_channel(peer, request.capacity_sat, request.push_msat, user_channel_id, None, Some(config))
                    .map_err(|e| misuse("node_id", e))?;
                if request.feerate_sat_per_kvb.is_some() {
                    self.fundings.set_feerate(user_channel_id, feerate);
                }
                if !request.address.is_empty() {
                    self.queue
                        .effect(Effect::PeerAdded { node_id: peer.serialize(), address: request.address.clone() });
                }
                Ok::<_, Error>(())
            })
        })?;
        if request.address.is_empty() {
            self.dialer.has_channel(peer);
        } else {
            self.dialer.add(peer, &request.address);
        }
        self.committed().await?;
        Ok(v1::OpenChannelResponse { user_channel_id: format!("{user_channel_id:032x}") })
    }
}

fn check_amounts(request: &v1::OpenChannelRequest) -> Result<(), Error> {
    let v1::OpenChannelRequest { capacity_sat, push_msat, .. } = *request;
    limits::sat("capacity_sat", capacity_sat)?;
    if capacity_sat < MIN_CAPACITY_SAT {
        return Err(Error::misuse("capacity_sat", format!("a channel has at least {MIN_CAPACITY_SAT} sat")));
    }
    if push_msat / 1000 > capacity_sat {
        return Err(Error::misuse("push_msat", "it is more than the capacity"));
    }
    Ok(())
}

/// What we ask of the peer: the HTLCs that it may offer us.
fn set_limits(config: &mut ChannelHandshakeConfig, request: &v1::OpenChannelRequest) -> Result<(), Error> {
    let v1::OpenChannelRequest { capacity_sat, min_htlc_msat, max_htlcs, max_in_flight_percent, .. } = *request;
    if let Some(msat) = min_htlc_msat {
        if msat == 0 || msat >= capacity_sat * 1000 {
            let why = format!("{msat} msat are not from 1 to less than the capacity");
            return Err(Error::misuse("min_htlc_msat", why));
        }
        config.our_htlc_minimum_msat = msat;
    }
    if let Some(htlcs) = max_htlcs {
        config.our_max_accepted_htlcs = within("max_htlcs", htlcs, MAX_HTLCS)?;
    }
    if let Some(percent) = max_in_flight_percent {
        config.max_inbound_htlc_value_in_flight_percent_of_channel = within("max_in_flight_percent", percent, 100)?;
    }
    Ok(())
}

fn within<T: TryFrom<u32>>(field: &str, value: u32, max: u32) -> Result<T, Error> {
    let refused = || Error::misuse(field, format!("{value} is not from 1 to {max}"));
    if !(1..=max).contains(&value) {
        return Err(refused());
    }
    T::try_from(value).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::OpenChannelRequest {
        v1::OpenChannelRequest { capacity_sat: 100_000, ..Default::default() }
    }

    fn field<T>(refused: Result<T, Error>) -> String {
        match refused {
            Err(Error::Misuse { field, .. }) => field,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("not refused"),
        }
    }

    #[test]
    fn amounts_that_make_no_channel_are_refused_by_name() {
        let with =
            |capacity_sat, push_msat| check_amounts(&v1::OpenChannelRequest { capacity_sat, push_msat, ..request() });
        with(1000, 1_000_000).unwrap();
        assert_eq!(field(with(999, 0)), "capacity_sat");
        assert_eq!(field(with(limits::MAX_SAT + 1, 0)), "capacity_sat");
        assert_eq!(field(with(1000, 1_001_000)), "push_msat");
        assert_eq!(field(with(u64::MAX, u64::MAX)), "capacity_sat");
    }

    #[test]
    fn limits_are_set_or_refused_by_name() {
        let set = |request: &v1::OpenChannelRequest| {
            let mut config = ChannelHandshakeConfig::default();
            set_limits(&mut config, request).map(|()| config)
        };
        let all = v1::OpenChannelRequest {
            min_htlc_msat: Some(99_999_999),
            max_htlcs: Some(483),
            max_in_flight_percent: Some(1),
            ..request()
        };
        let config = set(&all).unwrap();
        assert_eq!(config.our_htlc_minimum_msat, 99_999_999);
        assert_eq!(config.our_max_accepted_htlcs, 483);
        assert_eq!(config.max_inbound_htlc_value_in_flight_percent_of_channel, 1);
        let unset = set(&request()).unwrap();
        assert_eq!(unset.our_max_accepted_htlcs, ChannelHandshakeConfig::default().our_max_accepted_htlcs);
        for (request, name) in [
            (v1::OpenChannelRequest { min_htlc_msat: Some(0), ..request() }, "min_htlc_msat"),
            (v1::OpenChannelRequest { min_htlc_msat: Some(100_000_000), ..request() }, "min_htlc_msat"),
            (v1::OpenChannelRequest { max_htlcs: Some(0), ..request() }, "max_htlcs"),
            (v1::OpenChannelRequest { max_htlcs: Some(484), ..request() }, "max_htlcs"),
            (v1::OpenChannelRequest { max_in_flight_percent: Some(101), ..request() }, "max_in_flight_percent"),
            (v1::OpenChannelRequest { max_in_flight_percent: Some(256 + 1), ..request() }, "max_in_flight_percent"),
        ] {
            assert_eq!(field(set(&request)), name);
        }
    }
}
