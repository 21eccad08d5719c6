//! What the command does to channels.

use holdfast_proto::node::v1;
use serde_json::json;

use super::{
    Output,
    args::{Amount, Peer},
    channel_args::ChannelCommand,
    cluster::{Call, Client, Cluster},
    failure::{Exit, Failure},
    json as to_json, text,
};

pub(super) async fn run(cluster: &Cluster, command: ChannelCommand) -> Result<Output, Failure> {
    match command {
        ChannelCommand::Open {
            peer: Peer { node_id, address },
            capacity,
            push,
            public,
            fee_rate,
            min_htlc,
            max_htlcs,
            max_in_flight,
        } => {
            let request = v1::OpenChannelRequest {
                node_id: node_id.0,
                address: address.map(|a| a.to_string()).unwrap_or_default(),
                capacity_sat: whole_sat(capacity, "a channel's capacity")?,
                push_msat: push.msat,
                announce: public,
                feerate_sat_per_kvb: fee_rate.map(|rate| rate.sat_per_kvb),
                min_htlc_msat: min_htlc.map(|amount| amount.msat),
                max_htlcs,
                max_in_flight_percent: max_in_flight,
            };
            let open = cluster.on_leader(Call::Acts, async |mut c| c.open_channel(request.clone()).await).await?;
            let text = format!(
                "opening; its user channel id is {}\n`holdfast channels` shows what comes of it, and its type: a peer that \
                 refuses one with anchors gets it without (static-remote-key)\nif it is not there, \
                 `holdfast watch --from oldest --topic channel` says why, in the peer's words",
                open.user_channel_id
            );
            Ok(Output::ok(json!({ "user_channel_id": open.user_channel_id }), text))
        }
        ChannelCommand::Close { channel, force, to, fee_rate, yes: _ } => {
            let request = v1::CloseChannelRequest {
                channel_id: channel.clone(),
                force,
                address: to.clone().unwrap_or_default(),
                feerate_sat_per_kvb: fee_rate.map(|rate| rate.sat_per_kvb),
            };
            cluster.on_leader(Call::Acts, async |mut c| c.close_channel(request.clone()).await).await?;
            let json = json!({ "channel": channel, "force": force, "to": to });
            Ok(Output::ok(json, format!("closing {channel}")))
        }
        ChannelCommand::SpliceIn { channel, amount } => {
            let add_sat = whole_sat(amount, "what is spliced in")?;
            splice(cluster, v1::SpliceChannelRequest { channel_id: channel, add_sat, ..Default::default() }).await
        }
        ChannelCommand::SpliceOut { channel, amount, address } => {
            let remove_sat = whole_sat(amount, "what is spliced out")?;
            let address = address.unwrap_or_default();
            splice(cluster, v1::SpliceChannelRequest { channel_id: channel, add_sat: 0, remove_sat, address }).await
        }
        ChannelCommand::Policy { channel, base_fee, fee_ppm, cltv_delta } => {
            let base_fee_msat = base_fee
                .map(|fee| u32::try_from(fee.msat))
                .transpose()
                .map_err(|_| Failure::new(Exit::Usage, "--base-fee is more than there can be"))?;
            let request = v1::SetChannelPolicyRequest { channel_id: channel, base_fee_msat, fee_ppm, cltv_delta };
            let ask = async |mut c: Client| c.set_channel_policy(request.clone()).await;
            let channel = cluster.on_leader(Call::Reads, ask).await?;
            let text = text::pairs(&[
                ("base fee", text::msat(channel.base_fee_msat.into())),
                ("fee", format!("{} ppm", channel.fee_ppm)),
                ("cltv delta", format!("{} blocks", channel.cltv_delta)),
            ]);
            Ok(Output::ok(to_json::channel(&channel), text))
        }
    }
}

async fn splice(cluster: &Cluster, request: v1::SpliceChannelRequest) -> Result<Output, Failure> {
    cluster.on_leader(Call::Acts, async |mut c| c.splice_channel(request.clone()).await).await?;
    Ok(Output::ok(json!({ "channel": request.channel_id }), format!("splicing {}", request.channel_id)))
}

fn whole_sat(amount: Amount, what: &str) -> Result<u64, Failure> {
    amount.whole_sat().ok_or_else(|| Failure::new(Exit::Usage, format!("{what} is in whole satoshi")))
}
