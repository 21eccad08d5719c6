//! One function's worth of each operator command: ask the node, show the answer.

use holdfast_proto::node::v1;
use serde_json::json;

use super::{
    Output,
    args::{LeaderCommand, NodeCommand, PeerAddress},
    channels,
    cluster::{Answer, Call, Cluster, Seen, no_leader, pages},
    failure::{Exit, Failure},
    forwards, json as to_json, network, payments, text, wallet,
};

pub(super) async fn run(cluster: &Cluster, command: NodeCommand) -> Result<Output, Failure> {
    match command {
        NodeCommand::Info => {
            let info = cluster.on_any(async |mut c| c.get_info(v1::GetInfoRequest {}).await).await?;
            Ok(Output::ok(to_json::info(&info), text::info(&info)))
        }
        NodeCommand::Address => {
            let new =
                cluster.on_leader(Call::Makes, async |mut c| c.new_address(v1::NewAddressRequest {}).await).await?;
            Ok(Output::ok(json!({ "address": new.address }), new.address))
        }
        NodeCommand::Balance => {
            let balance =
                cluster.on_leader(Call::Looks, async |mut c| c.get_balance(v1::GetBalanceRequest {}).await).await?;
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
        NodeCommand::Channel(command) => channels::run(cluster, command).await,
        NodeCommand::Channels => {
            let channels = pages(async |after: String| {
                let request = v1::ListChannelsRequest { after, ..Default::default() };
                let list = cluster.on_leader(Call::Looks, async |mut c| c.list_channels(request.clone()).await).await?;
                Ok((list.channels, list.next))
            })
            .await?;
            let all: Vec<_> = channels.iter().map(to_json::channel).collect();
            Ok(Output::ok(json!({ "channels": all }), text::channels(&channels)))
        }
        NodeCommand::Peers => {
            let peers = pages(async |after: String| {
                let request = v1::ListPeersRequest { after, ..Default::default() };
                let list = cluster.on_leader(Call::Looks, async |mut c| c.list_peers(request.clone()).await).await?;
                Ok((list.peers, list.next))
            })
            .await?;
            let all: Vec<_> = peers.iter().map(to_json::peer).collect();
            Ok(Output::ok(json!({ "peers": all }), text::peers(&peers)))
        }
        NodeCommand::Network(command) => network::run(cluster, command).await,
        NodeCommand::Payment(command) => payments::run(cluster, command).await,
        NodeCommand::Forwards(args) => forwards::run(cluster, args).await,
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
        return Err(no_leader(seen));
    };
    let leads = seen.iter().any(|seen| seen.answer.as_ref().is_ok_and(|a| a.leader.is_this_replica));
    Ok(Output {
        json: to_json::leader(&newest.leader, seen),
        text: text::leader(&newest.leader, seen),
        exit: if leads { Exit::Ok } else { Exit::Unavailable },
    })
}
