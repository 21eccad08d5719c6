//! A snapshot in Prometheus' terms.

use std::{
    fmt, fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter},
};

use super::snapshot::{Part, Snapshot};

/// Shows the snapshot that it was last given.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(Arc<Mutex<Option<Arc<Snapshot>>>>);

impl Figures {
    pub fn show(&self, snapshot: Arc<Snapshot>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let values = snapshot.as_deref().map(values).unwrap_or_default();
        for (name, help) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for value in values.iter().filter(|value| value.name == *name) {
                gauge(&mut metric, value)?;
            }
        }
        if let Some(seconds) = cpu_seconds() {
            let (name, help) = ("process_cpu_seconds", "Processor time that the process has used");
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        Ok(())
    }
}

/// Every gauge, with its help. docs/metrics.md says more.
const GAUGES: &[(&str, &str)] = &[
    ("build_info", "1; the version and the replica's name are in the labels"),
    ("leading", "1 on the leader, 0 on a standby"),
    ("ready", "1 when this replica leads or could"),
    ("term", "Newest term known to this replica"),
    ("leader_info", "1; the replica that leads, as the database knows it, is in the label"),
    ("leader_since_timestamp_seconds", "When the leader's term began, in seconds since the Unix epoch"),
    ("takeover_seconds", "How long the newest takeover took"),
    ("takeover_phase_seconds", "How long each phase of the newest takeover took"),
    ("part_up", "1 when Postgres, the signer, bitcoind answered when last asked"),
    ("part_answer_seconds", "How long its answer took"),
    ("database_bytes", "Size of the database"),
    ("bitcoind_height", "Height of bitcoind's best chain"),
    ("block_height", "Height of the leader's chain tip"),
    ("chain_lag_blocks", "Blocks that the leader is behind bitcoind"),
    ("certificate_remaining_seconds", "Until this replica's certificate, or its authority's, expires"),
    ("peers", "Peers connected to the leader"),
    ("peers_away", "Peers that the leader reconnects to by itself and that are not connected"),
    ("peers_with_backup", "Peers connected to the leader that hold an encrypted backup of its channels"),
    ("channels", "Channels of the leader"),
    ("usable_channels", "Channels that can pay now"),
    ("balance_sat", "What the node owns, by where it is"),
    ("liquidity_msat", "What can be sent and received now"),
    ("htlcs", "HTLCs in flight"),
    ("htlcs_msat", "What they hold"),
    ("htlc_nearest_deadline_blocks", "Blocks until the first HTLC in flight expires; absent when there is none"),
    ("snapshot_age_seconds", "Age of the figures above; grows while the node is stuck"),
    ("process_resident_memory_bytes", "Memory that the process uses"),
    ("process_open_fds", "Files and sockets that the process has open"),
];

struct Value {
    name: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

fn values(s: &Snapshot) -> Vec<Value> {
    let mut all = Vec::new();
    let mut put = |name, labels: &[(&'static str, &str)], value: f64| {
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        all.push(Value { name, labels, value });
    };
    put("leading", &[], f64::from(u8::from(s.leading)));
    put("ready", &[], f64::from(u8::from(s.away.is_empty())));
    put("snapshot_age_seconds", &[], s.at.elapsed().unwrap_or_default().as_secs_f64());
    if let Some(info) = &s.info {
        put("build_info", &[("version", &info.version), ("replica", &info.replica)], 1.0);
        put("term", &[], info.term as f64);
        if s.leading {
            put("block_height", &[], info.block_height.into());
            put("peers", &[], info.peers.into());
            put("channels", &[], info.channels.into());
            put("usable_channels", &[], info.usable_channels.into());
            if let Some(theirs) = s.watched.bitcoind_height {
                put("chain_lag_blocks", &[], f64::from(theirs) - f64::from(info.block_height));
            }
        }
    }
    if let Ok(leader) = &s.leader {
        if !leader.leader.is_empty() {
            put("leader_info", &[("replica", &leader.leader)], 1.0);
            put("leader_since_timestamp_seconds", &[], leader.since_ms as f64 / 1e3);
        }
        if let Some(takeover) = leader.history.first() {
            for (phase, took_us) in &takeover.phases_us {
                put("takeover_phase_seconds", &[("phase", phase)], *took_us as f64 / 1e6);
            }
            let all: u64 = takeover.phases_us.values().sum();
            put("takeover_seconds", &[], all as f64 / 1e6);
        }
    }
    for Part { name, away, took } in &s.watched.parts {
        put("part_up", &[("part", name)], f64::from(u8::from(away.is_none())));
        if let Some(took) = took {
            put("part_answer_seconds", &[("part", name)], took.as_secs_f64());
        }
    }
    if let Some(height) = s.watched.bitcoind_height {
        put("bitcoind_height", &[], height.into());
    }
    if let Some(bytes) = s.watched.database_bytes {
        put("database_bytes", &[], bytes as f64);
    }
    if let Some(expire) = s.watched.certificates_expire {
        put("certificate_remaining_seconds", &[], seconds_until(expire));
    }
    if let Some(peers) = &s.peers {
        let away = peers.iter().filter(|peer| peer.persistent && !peer.connected).count();
        put("peers_away", &[], away as f64);
        let holding = peers.iter().filter(|peer| peer.holds_backup).count();
        put("peers_with_backup", &[], holding as f64);
    }
    if let Some(balance) = &s.balance {
        put("balance_sat", &[("where", "onchain-confirmed")], balance.onchain_confirmed_sat as f64);
        put("balance_sat", &[("where", "onchain-pending")], balance.onchain_pending_sat as f64);
        put("balance_sat", &[("where", "lightning")], balance.lightning_sat as f64);
        put("balance_sat", &[("where", "closing")], balance.closing_sat as f64);
        put("liquidity_msat", &[("direction", "outbound")], balance.lightning_outbound_msat as f64);
        put("liquidity_msat", &[("direction", "inbound")], balance.lightning_inbound_msat as f64);
    }
    if let Some(htlcs) = &s.htlcs {
        put("htlcs", &[("direction", "inbound")], htlcs.inbound as f64);
        put("htlcs", &[("direction", "outbound")], htlcs.outbound as f64);
        put("htlcs_msat", &[("direction", "inbound")], htlcs.inbound_msat as f64);
        put("htlcs_msat", &[("direction", "outbound")], htlcs.outbound_msat as f64);
        if let Some(blocks) = htlcs.nearest_deadline_blocks {
            put("htlc_nearest_deadline_blocks", &[], blocks as f64);
        }
    }
    if let Some(bytes) = resident_bytes() {
        put("process_resident_memory_bytes", &[], bytes as f64);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        put("process_open_fds", &[], open.count() as f64);
    }
    all
}

fn gauge(metric: &mut MetricEncoder<'_>, value: &Value) -> Result<(), fmt::Error> {
    if value.labels.is_empty() {
        return number(metric, value.value);
    }
    let labels: Vec<(&str, &str)> = value.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
    number(&mut metric.encode_family(&labels)?, value.value)
}

/// A whole number is written as one: its reader may be a person.
fn number(metric: &mut MetricEncoder<'_>, value: f64) -> Result<(), fmt::Error> {
    match value.fract() == 0.0 && value.abs() < 9e15 {
        true => metric.encode_gauge(&(value as i64)),
        false => metric.encode_gauge(&value),
    }
}

fn seconds_until(moment: SystemTime) -> f64 {
    match moment.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(gone) => -gone.duration().as_secs_f64(),
    }
}

/// Of this process, as /proc tells it; absent where there is none.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; utime and stime are the 14th and 15th fields.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux counts a hundred a second for programs, whatever its own clock does.
    Some(Duration::from_millis(ticks * 10).as_secs_f64())
}
