//! The commands about the on-chain wallet: ask the node, show the answer.

use holdfast_proto::node::v1;
use serde_json::{Value, json};

use super::{
    Output,
    cluster::{Call, Client, Cluster, pages},
    failure::{Exit, Failure},
    payments::repeatable,
    text,
    wallet_args::{How, WalletCommand},
};

pub(super) async fn run(cluster: &Cluster, command: WalletCommand) -> Result<Output, Failure> {
    match command {
        WalletCommand::Utxos => {
            let utxos = pages(async |after: String| {
                let request = v1::ListUtxosRequest { after, ..Default::default() };
                let list = cluster.on_leader(Call::Looks, async |mut c| c.list_utxos(request.clone()).await).await?;
                Ok((list.utxos, list.next))
            })
            .await?;
            let all: Vec<_> = utxos.iter().map(utxo).collect();
            Ok(Output::ok(json!({ "utxos": all }), utxos_text(&utxos)))
        }
        WalletCommand::Addresses { change } => {
            let addresses = pages(async |after: String| {
                let request = v1::ListAddressesRequest { change, after, ..Default::default() };
                let call = async |mut c: Client| c.list_addresses(request.clone()).await;
                let list = cluster.on_leader(Call::Looks, call).await?;
                Ok((list.addresses, list.next))
            })
            .await?;
            let all: Vec<_> = addresses.iter().map(address).collect();
            Ok(Output::ok(json!({ "addresses": all }), addresses_text(&addresses)))
        }
        WalletCommand::Send { address, amount, how } => {
            let amount = amount.whole_sat();
            let amount = amount.ok_or_else(|| Failure::new(Exit::Usage, "on chain there are only whole satoshi"))?;
            send(cluster, address, Some(amount), how).await
        }
        WalletCommand::SendAll { address, how } => send(cluster, address, None, how).await,
        WalletCommand::Bump { txid, fee_rate } => {
            let request = v1::BumpTransactionRequest { txid, feerate_sat_per_kvb: fee_rate.sat_per_kvb };
            let done = cluster.on_leader(Call::Acts, async |mut c| c.bump_transaction(request.clone()).await).await?;
            let how = if done.is_replacement { "replaced by" } else { "paid for by" };
            let text = format!("{how} {}, fee {} sat", done.txid, text::grouped(done.fee_sat));
            let json = json!({ "txid": done.txid, "fee_sat": done.fee_sat, "is_replacement": done.is_replacement });
            Ok(Output::ok(json, text))
        }
        WalletCommand::Label { reference, label } => {
            let request = v1::SetLabelRequest { reference: reference.clone(), label: label.clone() };
            cluster.on_leader(Call::Acts, async |mut c| c.set_label(request.clone()).await).await?;
            let text =
                if label.is_empty() { format!("{reference} has no name now") } else { format!("{reference}: {label}") };
            Ok(Output::ok(json!({ "ref": reference, "label": label }), text))
        }
        WalletCommand::Labels => {
            let labels = pages(async |after: String| {
                let request = v1::ListLabelsRequest { after, ..Default::default() };
                let list = cluster.on_leader(Call::Looks, async |mut c| c.list_labels(request.clone()).await).await?;
                Ok((list.labels, list.next))
            })
            .await?;
            let all: Vec<_> = labels
                .iter()
                .map(|label| json!({ "type": label.r#type, "ref": label.reference, "label": label.label }))
                .collect();
            let rows = labels.iter().map(|l| vec![l.r#type.clone(), l.reference.clone(), l.label.clone()]);
            Ok(Output::ok(json!({ "labels": all }), or_none("no labels", &["", "what", "label"], rows)))
        }
        WalletCommand::Descriptors => {
            let call = async |mut c: super::cluster::Client| c.get_descriptors(v1::GetDescriptorsRequest {}).await;
            let d = cluster.on_leader(Call::Looks, call).await?;
            let json = json!({
                "receive": d.receive,
                "change": d.change,
                "next_receive": d.next_receive,
                "next_change": d.next_change,
            });
            let text = text::pairs(&[
                ("receive", d.receive),
                ("", format!("{} given out", d.next_receive)),
                ("change", d.change),
                ("", format!("{} given out", d.next_change)),
            ]);
            Ok(Output::ok(json, text))
        }
        WalletCommand::Rescan { from_height } => rescan(cluster, from_height).await,
    }
}

async fn send(cluster: &Cluster, address: String, amount_sat: Option<u64>, how: How) -> Result<Output, Failure> {
    let request = v1::SendCoinsRequest {
        address,
        amount_sat,
        feerate_sat_per_kvb: how.fee_rate.map(|rate| rate.sat_per_kvb),
        utxos: how.utxos,
        label: how.label,
        idempotency_key: how.idempotency_key,
    };
    let call = repeatable(&request.idempotency_key);
    let sent = cluster.on_leader(call, async |mut c| c.send_coins(request.clone()).await).await?;
    let json = json!({
        "txid": sent.txid,
        "amount_sat": sent.amount_sat,
        "fee_sat": sent.fee_sat,
        "transaction": hex::encode(&sent.transaction),
        "first_txid": (!sent.first_txid.is_empty()).then_some(&sent.first_txid),
    });
    let text = text::pairs(&[
        ("txid", sent.txid),
        ("in place of", sent.first_txid),
        ("amount", format!("{} sat", text::grouped(sent.amount_sat))),
        ("fee", format!("{} sat", text::grouped(sent.fee_sat))),
    ]);
    Ok(Output::ok(json, text))
}

/// A part at a time, so that no call takes long and a takeover in between costs one part.
async fn rescan(cluster: &Cluster, from_height: u32) -> Result<Output, Failure> {
    let mut request = v1::RescanWalletRequest { from_height, blocks: 0 };
    let mut found = Vec::new();
    loop {
        // Scanning twice finds nothing new, so it may be repeated.
        let part = cluster.on_leader(Call::Reads, async |mut c| c.rescan_wallet(request).await).await?;
        found.extend(part.found);
        if part.next_height > part.tip_height || part.next_height <= request.from_height {
            let blocks = part.next_height.saturating_sub(from_height);
            let mut text =
                format!("scanned {blocks} blocks from {from_height} and found {} transactions\n", found.len());
            text += &found.join("\n");
            let json = json!({ "from_height": from_height, "to_height": part.next_height - 1, "found": found });
            return Ok(Output::ok(json, text));
        }
        request.from_height = part.next_height;
    }
}

fn utxo(u: &v1::Utxo) -> Value {
    json!({
        "outpoint": u.outpoint,
        "amount_sat": u.amount_sat,
        "address": u.address,
        "height": u.height,
        "is_change": u.is_change,
        "is_promised": u.is_promised,
        "label": named(&u.label),
    })
}

fn address(a: &v1::WalletAddress) -> Value {
    json!({
        "address": a.address,
        "index": a.index,
        "is_change": a.is_change,
        "is_used": a.is_used,
        "received_sat": a.received_sat,
        "label": named(&a.label),
    })
}

fn utxos_text(utxos: &[v1::Utxo]) -> String {
    let rows = utxos.iter().map(|u| {
        let block = u.height.map_or_else(|| "unconfirmed".to_owned(), |height| height.to_string());
        let state = if u.is_promised { "promised" } else { "" };
        vec![u.outpoint.clone(), text::grouped(u.amount_sat), block, state.into(), u.label.clone()]
    });
    or_none("no coins", &["outpoint", "sat", "block", "", "label"], rows)
}

fn addresses_text(addresses: &[v1::WalletAddress]) -> String {
    let rows = addresses.iter().map(|a| {
        let kind = if a.is_change { "change" } else { "" };
        let received = if a.is_used { text::grouped(a.received_sat) } else { String::new() };
        vec![a.index.to_string(), a.address.clone(), kind.into(), received, a.label.clone()]
    });
    or_none("no addresses were given out", &["#", "address", "", "received", "label"], rows)
}

fn or_none(none: &str, heads: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) -> String {
    if rows.len() == 0 { none.into() } else { text::table(heads, rows) }
}

fn named(label: &str) -> Option<&str> {
    (!label.is_empty()).then_some(label)
}
