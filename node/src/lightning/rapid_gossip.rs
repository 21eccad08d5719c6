//! Rapid gossip sync: the public graph as one file from a server, beside the gossip of peers.
//!
//! The server is trusted with routes, and with nothing else: what it says of the graph carries no signatures, so it can
//! hide channels or make up some, and payments would fail or cost more, up to their fee limits. Peers' gossip, which is
//! signed, goes on and takes the place of what it is newer than.

use std::{sync::Arc, time::Duration};

use bitcoin::{Network, constants::ChainHash};
use lightning::routing::gossip::NetworkGraph;
use lightning_rapid_gossip_sync::{GraphSyncError, RapidGossipSync};

use super::{
    payments::unix_now,
    types::{Graph, Logger},
};
use crate::net::{
    Outbound,
    fetch::{self, Source},
};

/// The main network's whole graph is about 6 MB; LDK itself bounds what may be in it.
const LIMIT: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// How old the graph may grow. Servers make a new file once a day or more often.
const FRESH: Duration = Duration::from_secs(3600);
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// How far a server's clock may be ahead of ours.
const AHEAD: u64 = 3600;

/// Fetches and applies, until dropped.
pub async fn keep(source: Source, outbound: Arc<Outbound>, network: Network, graph: Arc<Graph>, logger: Logger) {
    let mut failures = 0u32;
    loop {
        let last = u64::from(graph.get_last_rapid_gossip_sync_timestamp().unwrap_or(0));
        let age = Duration::from_secs(unix_now().saturating_sub(last));
        if age < FRESH {
            // As after a takeover: the last leader fetched it, and the graph came with the rest of the state.
            tokio::time::sleep(FRESH - age).await;
        }
        let pause = match sync(&source, &outbound, network, &graph, &logger).await {
            Ok(timestamp) => {
                let graph = graph.read_only();
                let (nodes, channels) = (graph.nodes().len(), graph.channels().len());
                tracing::info!(timestamp, nodes, channels, "rapid gossip sync");
                failures = 0;
                FRESH
            }
            Err(why) => {
                if failures == 0 {
                    tracing::warn!(
                        why,
                        "no rapid gossip sync; trying again from time to time, and peers' gossip goes on"
                    );
                }
                failures += 1;
                pause_after(failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Brings the graph up to date once; gives the time of what it is now, in seconds since the Unix epoch.
pub async fn sync(
    source: &Source,
    outbound: &Outbound,
    network: Network,
    graph: &Arc<Graph>,
    logger: &Logger,
) -> Result<u32, String> {
    let url = source.url.below(graph.get_last_rapid_gossip_sync_timestamp().unwrap_or(0));
    // Each time anew: authorities change while a replica runs.
    let tls = tokio::task::block_in_place(|| source.tls()).map_err(|why| format!("{url}: {why}"))?;
    let bytes = fetch::fetch(outbound, &tls, &url, LIMIT, PATIENCE).await?;
    tokio::task::block_in_place(|| apply(&bytes, network, graph, logger)).map_err(|why| format!("{url}: {why}"))
}

/// All of it or nothing: it is read into a graph of its own first, because LDK keeps what it has read of a file that then
/// turns out to be broken.
fn apply(bytes: &[u8], network: Network, graph: &Arc<Graph>, logger: &Logger) -> Result<u32, String> {
    check_header(bytes, network, unix_now())?;
    let trial: Arc<Graph> = Arc::new(NetworkGraph::new(network, logger.clone()));
    RapidGossipSync::new(trial, logger.clone()).update_network_graph(bytes).map_err(explain)?;
    RapidGossipSync::new(graph.clone(), logger.clone()).update_network_graph(bytes).map_err(explain)
}

/// What LDK would find out too late or not at all: a file from the future would be the last that we ever ask for.
fn check_header(bytes: &[u8], network: Network, now: u64) -> Result<(), String> {
    let (Some(b"LDK"), Some(chain), Some(time)) = (bytes.get(..3), bytes.get(4..36), bytes.get(36..40)) else {
        return Err("it is no snapshot of rapid gossip sync".into());
    };
    if chain != ChainHash::using_genesis_block(network).as_bytes() {
        return Err(format!("the snapshot is of another chain than {network}"));
    }
    // Four bytes were asked for.
    let time = u64::from(u32::from_be_bytes(time.try_into().unwrap_or([0xff; 4])));
    if time > now + AHEAD {
        return Err(format!("the snapshot is of {time}, and it is {now}"));
    }
    Ok(())
}

fn explain(error: GraphSyncError) -> String {
    match error {
        GraphSyncError::DecodeError(error) => format!("the snapshot does not parse: {error}"),
        GraphSyncError::LightningError(error) => error.err,
    }
}

fn pause_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(FRESH)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::lightning::logger::TracingLogger;

    /// LDK's own example, of four nodes and two channels on the main network, as of `time`.
    fn snapshot(time: u64) -> Vec<u8> {
        let hex = concat!(
            "4c444b016fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d619000000000061e362da00000004021607cfce19a4c5e7e6e738",
            "663dfafbbbac262e4ff76c2c9b30dbeefc35c0064302247d9db0dfafea745ef8c9e161eb322f73ac3f8858d8730b6fd97254747ce76b029e",
            "01f279986acc83ba235d46d80aede0b7595f410353b93a8ab540bb677f443202c913118a8895b9e29c89af6e20ed00d95a1f64e4952edbaf",
            "a84d048f26804c61000000020000ff0899c000021b000000010000ff0244e200060b0001020300000004002800000000000003e8000003e8",
            "00000001000000001d8119c0ff0899c000021b00003c000000000000000100000064000002e0000000003a5574d8001d000000010000007d",
            "000000003a5574d8ff0244e200060b0001000001",
        );
        let mut bytes = hex::decode(hex).unwrap();
        bytes[36..40].copy_from_slice(&(time as u32).to_be_bytes());
        bytes
    }

    fn graph() -> (Arc<Graph>, Logger) {
        let logger: Logger = Arc::new(TracingLogger);
        (Arc::new(NetworkGraph::new(Network::Bitcoin, logger.clone())), logger)
    }

    /// Answers each request in turn with these bytes, and tells the paths that were asked for.
    async fn server(answers: Vec<Vec<u8>>) -> (Source, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/snapshot", listener.local_addr().unwrap()).parse().unwrap();
        let source = Source { url, ca_file: None };
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let line = String::from_utf8(request).unwrap();
                asked.push(line.split(' ').nth(1).unwrap().to_owned());
                // A client that has seen enough may hang up.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
            asked
        });
        (source, task)
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_fills_the_graph_and_the_next_one_is_asked_for_from_there() {
        let (graph, logger) = graph();
        let now = unix_now();
        let (source, asked) = server(vec![ok(&snapshot(now)), ok(&snapshot(now + 60))]).await;
        let outbound = Outbound::default();
        for time in [now, now + 60] {
            let applied = sync(&source, &outbound, Network::Bitcoin, &graph, &logger).await.unwrap();
            assert_eq!(u64::from(applied), time);
            assert_eq!((graph.read_only().nodes().len(), graph.read_only().channels().len()), (4, 2));
        }
        assert_eq!(asked.await.unwrap(), ["/snapshot/0".to_owned(), format!("/snapshot/{now}")]);
        // The time is part of what replicas share.
        use lightning::util::ser::{ReadableArgs, Writeable};
        let read = Graph::read(&mut graph.encode().as_slice(), logger).unwrap();
        assert_eq!(read.get_last_rapid_gossip_sync_timestamp(), Some(now as u32 + 60));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_wrong_or_too_much_leaves_the_graph_as_it_was() {
        let now = unix_now();
        let good = snapshot(now);
        let mut other_chain = good.clone();
        other_chain[10] ^= 1;
        let mut many_nodes = good.clone();
        many_nodes[40..44].copy_from_slice(&[0xff; 4]);
        let declared_huge = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nLDK".to_vec();
        let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..LIMIT / (1 << 20) + 1 {
            endless.extend_from_slice(b"100000\r\n");
            endless.resize(endless.len() + (1 << 20), 7);
            endless.extend_from_slice(b"\r\n");
        }
        for (answer, says) in [
            (ok(&good[..good.len() - 1]), "does not parse"),
            (ok(&good[..60]), "does not parse"),
            (ok(b""), "no snapshot"),
            (ok(b"<html>"), "no snapshot"),
            (ok(&other_chain), "another chain"),
            (ok(&many_nodes), "nonsense number of nodes"),
            (ok(&snapshot(now + 2 * AHEAD)), "the snapshot is of"),
            (ok(&snapshot(now - 15 * 86_400)), "two weeks old"),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), "404"),
            (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n".to_vec(), "302"),
            (b"SSH-2.0\r\n".to_vec(), "snapshot/0"),
            (declared_huge, "length limit"),
            (endless, "length limit"),
        ] {
            let (graph, logger) = graph();
            let (source, _asked) = server(vec![answer]).await;
            let error = sync(&source, &Outbound::default(), Network::Bitcoin, &graph, &logger).await.unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
            assert_eq!((graph.read_only().nodes().len(), graph.read_only().channels().len()), (0, 0), "{error}");
            assert_eq!(graph.get_last_rapid_gossip_sync_timestamp(), None, "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_the_usual_one() {
        assert_eq!(pause_after(1), FIRST_RETRY);
        assert_eq!(pause_after(3), FIRST_RETRY * 4);
        assert_eq!(pause_after(99), FRESH);
    }
}
