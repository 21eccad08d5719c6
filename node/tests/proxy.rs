//! Connections through a real SOCKS5 server: `microsocks`, which `deploy/local/scripts/system.sh` installs.
//!
//! What goes to it passes a relay that writes it down: that names arrive there as names is that nobody here resolves them.

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use holdfast_node::net::{Outbound, TorConfig, TorMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const ONION: &str = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion:9735";

struct Proxy {
    process: Child,
    /// Of the relay before it.
    address: String,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Proxy {
    async fn start(arguments: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let process = Command::new("microsocks")
            .args(["-i", "127.0.0.1", "-p", &port])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .expect("microsocks, which deploy/local/scripts/system.sh installs");
        let server = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&server).await.is_err() {
            assert!(Instant::now() < deadline, "microsocks does not listen");
            tokio::task::yield_now().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let written = requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let at = {
                    let mut written = written.lock().unwrap();
                    written.push(Vec::new());
                    written.len() - 1
                };
                tokio::spawn(relay(client, server, written.clone(), at));
            }
        });
        Self { process, address, requests }
    }

    fn outbound(&self, mode: TorMode) -> Outbound {
        Outbound::new(TorConfig { socks: Some(self.address.parse().unwrap()), mode })
    }

    /// What the last connection sent.
    fn last(&self) -> Vec<u8> {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn relay(client: TcpStream, server: TcpStream, written: Arc<Mutex<Vec<Vec<u8>>>>, at: usize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
        written.lock().unwrap()[at].extend_from_slice(&buffer[..n]);
        if to_server.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    drop(to_server);
    let _ = back.await;
}

/// Sends back what it gets; gives its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

async fn echoes(mut stream: TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn names_go_to_the_proxy_as_names() {
    let proxy = Proxy::start(&[]).await;
    let port = echo().await;
    let all = proxy.outbound(TorMode::All);
    echoes(all.connect(&format!("localhost:{port}"), "peer").await.unwrap()).await;
    // Version 5, CONNECT, reserved, a name of nine bytes.
    assert!(holds(&proxy.last(), b"\x05\x01\x00\x03\x09localhost"), "{:?}", proxy.last());

    // A name that nobody on this machine knows: the proxy is asked, and says no.
    let error = all.connect("peer.invalid:9735", "peer").await.unwrap_err();
    assert!(holds(&proxy.last(), b"peer.invalid") && error.contains("through the proxy"), "{error}");
    let error = all.connect(ONION, "peer").await.unwrap_err();
    assert!(holds(&proxy.last(), &ONION.as_bytes()[..62]) && error.contains("through the proxy"), "{error}");

    echoes(all.connect(&format!("127.0.0.1:{port}"), "peer").await.unwrap()).await;
    assert!(holds(&proxy.last(), b"\x05\x01\x00\x01\x7f\x00\x00\x01"));
}

#[tokio::test]
async fn in_onion_mode_all_else_goes_its_own_way() {
    let proxy = Proxy::start(&[]).await;
    let port = echo().await;
    let onion = proxy.outbound(TorMode::Onion);
    echoes(onion.connect(&format!("localhost:{port}"), "peer").await.unwrap()).await;
    assert!(proxy.requests.lock().unwrap().is_empty());
    onion.connect(ONION, "peer").await.unwrap_err();
    assert!(holds(&proxy.last(), &ONION.as_bytes()[..62]));
}

/// Tor keeps streams with different credentials apart; that they arrive, a proxy shows that lets nobody else in.
#[tokio::test]
async fn each_peer_has_credentials_of_its_own() {
    let proxy = Proxy::start(&["-u", "peer-1", "-P", "peer-1"]).await;
    let port = echo().await;
    let all = proxy.outbound(TorMode::All);
    echoes(all.connect(&format!("localhost:{port}"), "peer-1").await.unwrap()).await;
    let error = all.connect(&format!("localhost:{port}"), "peer-2").await.unwrap_err();
    assert!(error.contains("through the proxy"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named_and_nothing_goes_around_it() {
    let port = echo().await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let outbound = Outbound::new(TorConfig { socks: Some(unused.parse().unwrap()), mode: TorMode::All });
    let error = outbound.connect(&format!("localhost:{port}"), "peer").await.unwrap_err();
    assert!(error.contains(&unused) && error.contains("is away"), "{error}");
    let error = Outbound::default().connect(ONION, "peer").await.unwrap_err();
    assert!(error.contains("[tor] socks"), "{error}");
}

/// A server that speaks something else, or nothing that makes sense, is an error and no hang.
#[tokio::test]
async fn what_is_no_proxy_is_an_error() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", b"\x05\xff", b"\x04\x00", b"\x05\x00\x05\x00\x00\x09"]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socks = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 1];
            let _ = stream.read_exact(&mut first).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let (mut sink, _keep) = tokio::io::duplex(64);
            let _ = copy_bidirectional(&mut stream, &mut sink).await;
        });
        let outbound = Outbound::new(TorConfig { socks: Some(socks), mode: TorMode::All });
        outbound.connect("peer.example:9735", "peer").await.unwrap_err();
    }
}
