//! One function's worth of each operator command: ask the node, show the answer.

use holdfast_proto::node::v1;
use serde_json::json;

use super::{
    Output,
    args::{LeaderCommand, NodeCommand, Peer, PeerAddress},
    cluster::{Answer, Call, Client, Cluster, Seen},
    failure::{Exit, Failure},
    json as to_json, payments, text, wallet,
};

pub(super) async fn run(cluster: &Cluster, command: NodeCommand) -> Result<Output, Failure> {
    match command {
        NodeCommand::Info => {
            let info = cluster.on_any(async |mut c| c.get_info(v1::GetInfoRequest {}).await).await?;
            Ok(Output::ok(to_json::info(&info), text::info(&info)))
        }
        NodeCommand::Address => {
            let new =
                cluster.on_leader(Call::Acts, async |mut c| c.new_address(v1::NewAddressRequest {}).await).await?;
            Ok(Output::ok(json!({ "address": new.address }), new.address))
        }
        NodeCommand::Balance => {
            let balance =
                cluster.on_leader(Call::Reads, async |mut c| c.get_balance(v1::GetBalanceRequest {}).await).await?;
            Ok(Output::ok(to_json::balance(&balance), text::balance(&balance)))
        }
        NodeCommand::Wallet(command) => wallet::run(cluster, command).await,
        NodeCommand::Connect { peer: PeerAddress { node_id, address } } => {
            let request = v1::ConnectPeerRequest { node_id: node_id.0.clone(), address: address.to_string() };
            cluster.on_leader(Call::Acts, async |mut c| c.connect_peer(request.clone()).await).await?;
            Ok(Output::ok(json!({ "node_id": node_id.0 }), format!("connected to {}", node_id.0)))
        }
        NodeCommand::Disconnect { node_id } => {
            let request = v1::DisconnectPeerRequest { node_id: node_id.0.clone() };
            cluster.on_leader(Call::Acts, async |mut c| c.disconnect_peer(request.clone()).await).await?;
            Ok(Output::ok(json!({ "node_id": node_id.0 }), format!("disconnected from {}", node_id.0)))
        }
        NodeCommand::Open { peer: Peer { node_id, address }, capacity, push, public } => {
            let capacity_sat = capacity
                .whole_sat()
                .ok_or_else(|| Failure::new(Exit::Usage, "a channel's capacity is in whole satoshi"))?;
            let request = v1::OpenChannelRequest {
                node_id: node_id.0,
                address: address.map(|a| a.to_string()).unwrap_or_default(),
                capacity_sat,
                push_msat: push.msat,
                announce: public,
            };
            let open = cluster.on_leader(Call::Acts, async |mut c| c.open_channel(request.clone()).await).await?;
            let text = format!("opening; its user channel id is {}", open.user_channel_id);
            Ok(Output::ok(json!({ "user_channel_id": open.user_channel_id }), text))
        }
        NodeCommand::Close { channel, force } => {
            let request = v1::CloseChannelRequest { channel_id: channel.clone(), force };
            cluster.on_leader(Call::Acts, async |mut c| c.close_channel(request.clone()).await).await?;
            Ok(Output::ok(json!({ "channel": channel, "force": force }), format!("closing {channel}")))
        }
        NodeCommand::Policy { channel, base_fee, fee_ppm, cltv_delta } => {
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
        NodeCommand::Channels => {
            let list =
                cluster.on_leader(Call::Reads, async |mut c| c.list_channels(v1::ListChannelsRequest {}).await).await?;
            let all: Vec<_> = list.channels.iter().map(to_json::channel).collect();
            Ok(Output::ok(json!({ "channels": all }), text::channels(&list.channels)))
        }
        NodeCommand::Peers => {
            let list =
                cluster.on_leader(Call::Reads, async |mut c| c.list_peers(v1::ListPeersRequest {}).await).await?;
            let all: Vec<_> = list.peers.iter().map(to_json::peer).collect();
            Ok(Output::ok(json!({ "peers": all }), text::peers(&list.peers)))
        }
        NodeCommand::Payment(command) => payments::run(cluster, command).await,
        NodeCommand::Leader { command: Some(LeaderCommand::Status) | None } => {
            leader_status(&cluster.look(false).await?)
        }
        NodeCommand::Handover => {
            let done = cluster.on_leader(Call::Acts, async |mut c| c.handover(v1::HandoverRequest {}).await).await?;
            Ok(Output::ok(json!({ "term": done.term }), format!("handed over; the term was {}", done.term)))
        }
    }
}

/// The newest term's view of who leads, and how each replica answered. Exits with 69 when none leads.
fn leader_status(seen: &[Seen]) -> Result<Output, Failure> {
    let answers = seen.iter().filter_map(|seen| seen.answer.as_ref().ok());
    let newest: Option<&Answer> = answers.max_by_key(|a| (a.leader.term, a.leader.is_this_replica));
    let Some(newest) = newest else {
        let all: Vec<_> = seen.iter().map(|seen| format!("{}: {}", seen.endpoint, text::seen(seen))).collect();
        return Err(Failure::new(Exit::Unavailable, format!("no replica answers\n  {}", all.join("\n  ")))
            .hint("are the replicas running, and are these their API addresses?"));
    };
    let leads = seen.iter().any(|seen| seen.answer.as_ref().is_ok_and(|a| a.leader.is_this_replica));
    Ok(Output {
        json: to_json::leader(&newest.leader, seen),
        text: text::leader(&newest.leader, seen),
        exit: if leads { Exit::Ok } else { Exit::Unavailable },
    })
}
