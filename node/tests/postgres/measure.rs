//! Figures, not tests: `cargo test -p holdfast-node --test postgres -- --ignored --nocapture measure`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use holdfast_node::store::{Batch, MonitorKey, MonitorWrite, Store};

use crate::server::{Server, open};

/// 3.2 kB of noise a channel, as a manager has.
fn manager(channels: u64) -> Vec<u8> {
    (0..channels * 100).flat_map(|block| sha256::Hash::hash(&block.to_be_bytes()).to_byte_array()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_commits() {
    let server = Server::start(&[]).await;
    let (_leadership, store) = open(&server.config()).await;
    for channels in [0, 1, 100, 1000] {
        let mut manager = manager(channels);
        let full = |at: u64| MonitorWrite::Full {
            key: MonitorKey(sha256::Hash::hash(&at.to_be_bytes()).to_byte_array()),
            update_id: 0,
            bytes: vec![at as u8; 4800],
        };
        let begin = Instant::now();
        let first = Batch {
            manager: Some(manager.clone()),
            monitors: (0..channels.max(2)).map(full).collect(),
            ..Batch::default()
        };
        store.commit(&first).await.unwrap();
        println!("{channels} channels, all of it: {:?}", begin.elapsed());
        let stats = store.stats();
        let (given, sent) = (stats.manager_bytes.load(Ordering::Relaxed), stats.chunk_bytes.load(Ordering::Relaxed));
        let wal = wal(&server).await;
        let mut took = Vec::new();
        const ROUNDS: u64 = 300;
        for round in 1..=ROUNDS {
            // A payment's commit: two channels change in the manager, each has a monitor update.
            let touched = [round % channels.max(1), (round * 7) % channels.max(1)];
            for channel in touched {
                for at in [100, 900, 3000] {
                    if let Some(byte) = manager.get_mut(channel as usize * 3200 + at) {
                        *byte = byte.wrapping_add(1);
                    }
                }
            }
            let update = |at: u64| MonitorWrite::Update {
                key: MonitorKey(sha256::Hash::hash(&(at % channels.max(2)).to_be_bytes()).to_byte_array()),
                update_id: round,
                bytes: vec![round as u8; 700],
            };
            let batch = Batch {
                manager: Some(manager.clone()),
                monitors: vec![update(round), update(round + 1)],
                ..Batch::default()
            };
            let begin = Instant::now();
            store.commit(&batch).await.unwrap();
            took.push(begin.elapsed());
        }
        let wal = self::wal(&server).await - wal;
        let given = stats.manager_bytes.load(Ordering::Relaxed) - given;
        let sent = stats.chunk_bytes.load(Ordering::Relaxed) - sent;
        println!(
            "{channels} channels: commit p50 {:?} p99 {:?}; manager {} B, chunks sent {} B, WAL {} B a commit",
            percentile(&mut took, 50),
            percentile(&mut took, 99),
            given / ROUNDS,
            sent / ROUNDS,
            wal as u64 / ROUNDS,
        );
        let begin = Instant::now();
        let loaded = store.load().await.unwrap();
        println!("{channels} channels: load {:?}", begin.elapsed());
        assert_eq!(loaded.manager.unwrap(), manager);
    }
}

fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort();
    took[(took.len() - 1) * percent / 100]
}

async fn wal(server: &Server) -> i64 {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    server.admin().await.query_one(sql, &[]).await.unwrap().get(0)
}
