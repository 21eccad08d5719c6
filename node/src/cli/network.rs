//! The commands about the network: ask the node, show the answer.

use std::{fs, io::Write, path::Path};

use holdfast_proto::node::v1;
use serde_json::{Value, json};

use super::{
    Output,
    cluster::{Call, Cluster},
    failure::{Exit, Failure},
    network_args::{ChannelBackupCommand, NetworkCommand},
    recovery, text,
};

pub(super) async fn run(cluster: &Cluster, command: NetworkCommand) -> Result<Output, Failure> {
    match command {
        NetworkCommand::DescribeGraph { node, limit, after, all } => {
            let node_id = node.map(|node| node.0).unwrap_or_default();
            let mut request = v1::DescribeGraphRequest { node_id, limit, after };
            let mut graph = v1::DescribeGraphResponse::default();
            loop {
                let page =
                    cluster.on_leader(Call::Reads, async |mut c| c.describe_graph(request.clone()).await).await?;
                graph.nodes.extend(page.nodes);
                graph.channels.extend(page.channels);
                (graph.node_count, graph.channel_count) = (page.node_count, page.channel_count);
                graph.next = page.next;
                if !all || graph.next.is_empty() {
                    break;
                }
                request.after.clone_from(&graph.next);
            }
            Ok(Output::ok(graph_json(&graph), graph_text(&graph)))
        }
        NetworkCommand::FindRoute { node_id, amount, max_fee, max_hops, max_cltv_delta, max_parts } => {
            let request = v1::FindRouteRequest {
                node_id: node_id.0,
                amount_msat: amount.msat,
                max_fee_msat: max_fee.map(|fee| fee.msat),
                max_hops,
                max_cltv_delta,
                max_parts,
            };
            let found = cluster.on_leader(Call::Reads, async |mut c| c.find_route(request.clone()).await).await?;
            let exit = if found.found { Exit::Ok } else { Exit::PaymentFailed };
            Ok(Output { json: route_json(&found), text: route_text(&found), exit })
        }
        NetworkCommand::ChannelBackup(ChannelBackupCommand::Export { out }) => {
            let ask =
                async |mut c: super::cluster::Client| c.export_channel_backup(v1::ExportChannelBackupRequest {}).await;
            let backup = cluster.on_any(ask).await?;
            let json = backup_json(&backup);
            let text = format!("{json:#}");
            match out {
                None => Ok(Output::ok(json, text)),
                Some(path) => {
                    let failed = |error| Failure::new(Exit::Io, format!("cannot write {}: {error}", path.display()));
                    replace(&path, &text).map_err(failed)?;
                    let said = format!("{} channels in {}", backup.channels.len(), path.display());
                    Ok(Output::ok(json!({ "file": path, "channels": backup.channels.len() }), said))
                }
            }
        }
        NetworkCommand::ChannelBackup(ChannelBackupCommand::Recovery(command)) => recovery::run(cluster, command).await,
    }
}

/// A reader finds the old file or the new one, and after a crash too.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    // New, so that nobody's link decides where this is written.
    let mut file = fs::File::create_new(&new)?;
    let written = (|| {
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What it failed with is said; what is left of the attempt may be gone already.
        let _ = fs::remove_file(&new);
    }
    written
}

fn graph_json(g: &v1::DescribeGraphResponse) -> Value {
    let nodes = g.nodes.iter().map(|n| {
        json!({
            "node_id": n.node_id,
            "alias": some(&n.alias),
            "color": some(&n.color),
            "addresses": n.addresses,
            "channels": n.channels,
            "updated_ms": (n.updated_ms != 0).then_some(n.updated_ms),
        })
    });
    let channels = g.channels.iter().map(|c| {
        json!({
            "short_channel_id": c.short_channel_id,
            "node_1": c.node_1,
            "node_2": c.node_2,
            "capacity_sat": c.capacity_sat,
            "policy_1": c.policy_1.as_ref().map(policy_json),
            "policy_2": c.policy_2.as_ref().map(policy_json),
        })
    });
    json!({
        "nodes": nodes.collect::<Vec<_>>(),
        "channels": channels.collect::<Vec<_>>(),
        "next": some(&g.next),
        "node_count": g.node_count,
        "channel_count": g.channel_count,
    })
}

fn policy_json(p: &v1::GraphPolicy) -> Value {
    json!({
        "is_enabled": p.is_enabled,
        "base_fee_msat": p.base_fee_msat,
        "fee_ppm": p.fee_ppm,
        "cltv_delta": p.cltv_delta,
        "htlc_minimum_msat": p.htlc_minimum_msat,
        "htlc_maximum_msat": p.htlc_maximum_msat,
        "updated_ms": p.updated_ms,
    })
}

fn graph_text(g: &v1::DescribeGraphResponse) -> String {
    let mut parts = Vec::new();
    if !g.nodes.is_empty() {
        let rows = g
            .nodes
            .iter()
            .map(|n| vec![n.node_id.clone(), n.alias.clone(), n.channels.to_string(), n.addresses.join(" ")]);
        parts.push(text::table(&["node id", "alias", "channels", "addresses"], rows));
    }
    if !g.channels.is_empty() {
        let rows = g.channels.iter().map(|c| {
            vec![
                c.short_channel_id.clone(),
                c.node_1.clone(),
                c.node_2.clone(),
                c.capacity_sat.map(text::grouped).unwrap_or_default(),
                policy_text(c.policy_1.as_ref()),
                policy_text(c.policy_2.as_ref()),
            ]
        });
        parts.push(text::table(&["channel", "node 1", "node 2", "sat", "1 to 2", "2 to 1"], rows));
    }
    let mut last = format!("{} nodes and {} channels are known", g.node_count, g.channel_count);
    if !g.next.is_empty() {
        last += &format!("; go on with --after {}", g.next);
    }
    parts.push(last);
    parts.join("\n\n")
}

fn policy_text(policy: Option<&v1::GraphPolicy>) -> String {
    match policy {
        None => "unknown".into(),
        Some(p) if !p.is_enabled => "off".into(),
        Some(p) => format!("{} msat + {} ppm, {} blocks", p.base_fee_msat, p.fee_ppm, p.cltv_delta),
    }
}

fn route_json(r: &v1::FindRouteResponse) -> Value {
    let parts = r.parts.iter().map(|part| {
        let hops = part.hops.iter().map(|hop| {
            json!({
                "node_id": hop.node_id,
                "channel": hop.channel,
                "amount_msat": hop.amount_msat,
                "fee_msat": hop.fee_msat,
                "cltv_delta": hop.cltv_delta,
            })
        });
        json!({
            "amount_msat": part.amount_msat,
            "fee_msat": part.fee_msat,
            "cltv_delta": part.cltv_delta,
            "hops": hops.collect::<Vec<_>>(),
        })
    });
    json!({
        "found": r.found,
        "failure": some(&r.failure),
        "fee_msat": r.fee_msat,
        "cltv_delta": r.cltv_delta,
        "parts": parts.collect::<Vec<_>>(),
    })
}

fn route_text(r: &v1::FindRouteResponse) -> String {
    if !r.found {
        return format!("no way found: {}", r.failure);
    }
    let mut lines = vec![text::pairs(&[
        ("fee", text::msat(r.fee_msat)),
        ("blocks", r.cltv_delta.to_string()),
        ("parts", r.parts.len().to_string()),
    ])];
    for part in &r.parts {
        let rows = part.hops.iter().map(|hop| {
            let fee = if hop.fee_msat == 0 { String::new() } else { text::msat(hop.fee_msat) };
            vec![hop.channel.clone(), hop.node_id.clone(), text::msat(hop.amount_msat), fee, hop.cltv_delta.to_string()]
        });
        lines.push(text::table(&["channel", "to", "arrives", "keeps", "blocks"], rows));
    }
    lines.join("\n\n")
}

fn backup_json(b: &v1::ChannelBackup) -> Value {
    let channels = b.channels.iter().map(|c| {
        json!({
            "channel_id": c.channel_id,
            "counterparty": c.counterparty,
            "addresses": c.addresses,
            "funding_outpoint": c.funding_outpoint,
            "capacity_sat": c.capacity_sat,
            "channel_type": c.channel_type,
            "channel_keys_id": some(&c.channel_keys_id),
            "written_ms": c.written_ms,
            "returned_by": some(&c.returned_by),
        })
    });
    json!({ "version": 1, "node_id": b.node_id, "network": b.network, "channels": channels.collect::<Vec<_>>() })
}

/// The wire has no absent strings, only empty ones.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_an_attempt_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup.json");
        replace(&file, "one").unwrap();
        replace(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two\n");
        // A folder stands where the file should.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(replace(&taken, "three").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
