//! The commands that get back what is left of lost channels.

use std::{collections::BTreeMap, fs, io, path::Path};

use holdfast_proto::node::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Output,
    cluster::{Call, Client, Cluster, pages},
    failure::{Exit, Failure},
    network_args::RecoveryCommand,
    text,
};

/// What one call takes.
const AT_ONCE: usize = 1000;

pub(super) async fn run(cluster: &Cluster, command: RecoveryCommand) -> Result<Output, Failure> {
    match command {
        RecoveryCommand::Recover { file, from_height } => {
            let Backup { node_id, network, channels, .. } = read(&file)?;
            let mut answers = Vec::with_capacity(channels.len());
            for some in channels.chunks(AT_ONCE) {
                let request = v1::RecoverChannelsRequest {
                    node_id: node_id.clone(),
                    network: network.clone(),
                    channels: some.iter().cloned().map(Into::into).collect(),
                    from_height,
                };
                let ask = async |mut c: Client| c.recover_channels(request.clone()).await;
                answers.extend(cluster.on_leader(Call::Reads, ask).await?.channels);
            }
            let refused = answers.iter().any(|channel| channel.state == "refused");
            let hint = "\n`holdfast channel-backup status` shows how far it is";
            let exit = if refused { Exit::Data } else { Exit::Ok };
            Ok(Output { json: to_json(&answers), text: to_text(&answers) + hint, exit })
        }
        RecoveryCommand::Status => {
            let channels = pages(async |after: String| {
                let request = v1::ListChannelRecoveriesRequest { after, ..Default::default() };
                let ask = async |mut c: Client| c.list_channel_recoveries(request.clone()).await;
                let list = cluster.on_leader(Call::Looks, ask).await?;
                Ok((list.channels, list.next))
            })
            .await?;
            Ok(Output::ok(to_json(&channels), to_text(&channels)))
        }
    }
}

/// The file, as `export` writes it. What a later version adds is passed over.
#[derive(Debug, Deserialize)]
struct Backup {
    version: u64,
    node_id: String,
    network: String,
    channels: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    channel_id: String,
    counterparty: String,
    addresses: Vec<String>,
    funding_outpoint: String,
    capacity_sat: u64,
    channel_type: String,
    channel_keys_id: Option<String>,
    #[serde(default)]
    written_ms: u64,
    returned_by: Option<String>,
}

impl From<Entry> for v1::ChannelBackupEntry {
    fn from(entry: Entry) -> Self {
        Self {
            channel_id: entry.channel_id,
            counterparty: entry.counterparty,
            addresses: entry.addresses,
            funding_outpoint: entry.funding_outpoint,
            capacity_sat: entry.capacity_sat,
            channel_type: entry.channel_type,
            channel_keys_id: entry.channel_keys_id.unwrap_or_default(),
            written_ms: entry.written_ms,
            returned_by: entry.returned_by.unwrap_or_default(),
        }
    }
}

fn read(file: &Path) -> Result<Backup, Failure> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::InvalidData { Exit::Data } else { Exit::NoInput };
        Failure::new(exit, format!("cannot read {name}: {error}"))
    })?;
    let wrong = |why: String| Failure::new(Exit::Data, format!("{name} is no backup of channels: {why}"));
    let backup: Backup = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match backup.version {
        1 => Ok(backup),
        other => Err(wrong(format!("it is of version {other}, and this program reads version 1"))),
    }
}

fn to_json(channels: &[v1::ChannelRecovery]) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let channels = channels.iter().map(|c| {
        json!({
            "channel_id": c.channel_id,
            "counterparty": c.counterparty,
            "funding_outpoint": c.funding_outpoint,
            "capacity_sat": c.capacity_sat,
            "channel_type": c.channel_type,
            "state": c.state,
            "detail": c.detail,
            "peer_connected": c.peer_connected,
            "closing_txid": some(&c.closing_txid),
            "closing_height": (c.closing_height != 0).then_some(c.closing_height),
            "ours_sat": some(&c.closing_txid).map(|_| c.ours_sat),
            "sweep_txids": c.sweep_txids,
        })
    });
    json!({ "channels": channels.collect::<Vec<_>>() })
}

fn to_text(channels: &[v1::ChannelRecovery]) -> String {
    if channels.is_empty() {
        return "no channel is being recovered".into();
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for c in channels {
        *states.entry(&c.state).or_default() += 1;
        lines.push(format!("{}  {}", c.channel_id, c.state));
        lines.push(format!("    {}", text::printable(&c.detail)));
        if !c.closing_txid.is_empty() {
            lines.push(format!("    closed by {}: {} sat are ours in it", c.closing_txid, text::grouped(c.ours_sat)));
        }
        lines.extend(c.sweep_txids.iter().map(|txid| format!("    swept by {txid}")));
    }
    let states: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    lines.push(states.join(", "));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_backup_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("channels.json");
        assert_eq!(read(&file).unwrap_err().exit, Exit::NoInput);
        let entry = r#"{"channel_id":"cd","counterparty":"02","addresses":[],"funding_outpoint":"x","capacity_sat":5,
            "channel_type":"anchors","channel_keys_id":null,"written_ms":1,"later":true}"#;
        let whole = format!(r#"{{"version":1,"node_id":"03","network":"regtest","channels":[{entry}]}}"#);
        for (text, says) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{}", "version"),
            (&whole.replace("\"version\":1", "\"version\":2"), "version 2"),
            (&whole.replace("capacity_sat\":5", "capacity_sat\":\"5\""), "expected u64"),
            (&whole.replace("capacity_sat\":5", "capacity_sat\":-5"), "-5"),
        ] {
            fs::write(&file, text).unwrap();
            let failure = read(&file).unwrap_err();
            assert_eq!(failure.exit, Exit::Data, "{text}");
            assert!(failure.message.contains("channels.json") && failure.message.contains(says), "{text}: {failure}");
        }
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&file).unwrap_err().exit, Exit::Data);
        fs::write(&file, whole).unwrap();
        let entry: v1::ChannelBackupEntry = read(&file).unwrap().channels[0].clone().into();
        assert_eq!((entry.channel_keys_id.as_str(), entry.capacity_sat), ("", 5));
    }
}
