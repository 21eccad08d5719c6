//! A server of rapid gossip sync over real TLS: certificates of every kind, and answers of every kind.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bitcoin::{Network, constants::ChainHash};
use holdfast_node::{
    lightning::{
        logger::TracingLogger,
        rapid_gossip,
        types::{Graph, Logger},
    },
    net::{
        Outbound,
        fetch::{Source, fetch},
    },
};
use lightning::routing::gossip::NetworkGraph;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const LIMIT: usize = 1 << 20;
const PATIENT: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_millis(500);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// What a server shows.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What it does when it was asked for something.
#[derive(Clone)]
enum Answer {
    /// These bytes, and TLS's own end.
    Bytes(Vec<u8>),
    /// The beginning of an answer without a length, and then no more of the connection.
    CutOff,
    /// A byte now and then, for ever.
    Drip,
    /// Nothing at all, not even TLS.
    Mute,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Authority {
    fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// An authority under this one.
    fn below(&self, name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// For `localhost` and this machine's address, but for what `change` makes different.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Shown { chain: vec![leaf.into()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Serves every connection in the same way.
async fn serve(shown: Shown, answer: Answer) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(shown.chain, shown.key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Answer::Mute = answer {
                tokio::spawn(async move { (std::future::pending::<()>().await, drop(stream)) });
                continue;
            }
            // A client that does not trust us hangs up.
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(reply(stream, answer.clone()));
            }
        }
    });
    address
}

async fn reply(mut stream: TlsStream<TcpStream>, answer: Answer) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    // A client that has seen enough hangs up: no error here is the server's.
    match answer {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Answer::CutOff => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nLDK").await;
            let _ = stream.flush().await;
        }
        Answer::Drip => {
            let mut alive = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            while alive.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                alive = stream.write_all(b"x").await;
                let _ = stream.flush().await;
            }
        }
        Answer::Mute => unreachable!("it does not come this far"),
    }
}

fn ok(body: &[u8]) -> Answer {
    Answer::Bytes([format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat())
}

fn status(line: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// A folder with `ca.pem`, which holds these certificates.
fn trusting(certificates: &[&rcgen::Certificate]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certificates.iter().map(|certificate| certificate.pem()).collect::<String>()).unwrap();
    (folder, file)
}

async fn get(host: &str, server: SocketAddr, ca_file: Option<PathBuf>, patience: Duration) -> Result<Vec<u8>, String> {
    let source = Source { url: format!("https://{host}:{}/x", server.port()).parse().unwrap(), ca_file };
    let body = fetch(&Outbound::default(), &source.tls()?, &source.url, LIMIT, patience).await?;
    Ok(body.to_vec())
}

#[tokio::test]
async fn a_chain_to_an_authority_that_is_named_is_accepted() {
    let root = Authority::new("a root");
    let between = root.below("one between");
    let other = Authority::new("another");
    let (_folder, ca_file) = trusting(&[&other.certificate, &root.certificate]);
    for host in ["localhost", "127.0.0.1"] {
        let mut shown = between.issue(|_| ());
        shown.chain.push(between.certificate.der().clone());
        let server = serve(shown, ok(b"hello")).await;
        assert_eq!(get(host, server, Some(ca_file.clone()), PATIENT).await.unwrap(), b"hello");
        // The machine knows nothing of that authority, if it knows any.
        let error = get(host, server, None, PATIENT).await.unwrap_err();
        assert!(error.contains("authorit"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_and_the_error_says_why() {
    let root = Authority::new("a root");
    let (_folder, ca_file) = trusting(&[&root.certificate]);
    let own_key = KeyPair::generate().unwrap();
    let own = leaf_params().self_signed(&own_key).unwrap();
    let self_signed = Shown { chain: vec![own.into()], key: PrivateKeyDer::try_from(own_key.serialize_der()).unwrap() };
    let of_nobody = "is of no authority that is trusted here";
    for (shown, says) in [
        (self_signed, of_nobody),
        (Authority::new("a root").issue(|_| ()), "invalid peer certificate"),
        (Authority::new("another").issue(|_| ()), of_nobody),
        // The one between is not sent along.
        (root.below("one between").issue(|_| ()), of_nobody),
        (root.issue(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1)), "certificate expired"),
        (root.issue(|leaf| leaf.not_before = date_time_ymd(2999, 1, 1)), "not valid yet"),
        (root.issue(|leaf| leaf.subject_alt_names = name("elsewhere.example")), "not valid for name"),
        (root.issue(|leaf| leaf.subject_alt_names.clear()), "not valid for name"),
        (
            root.issue(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "invalid peer certificate",
        ),
    ] {
        let server = serve(shown, ok(b"hello")).await;
        let error = get("localhost", server, Some(ca_file.clone()), PATIENT).await.unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.starts_with(&format!("https://localhost:{}/x: ", server.port())), "{error}");
    }
}

fn name(name: &str) -> Vec<rcgen::SanType> {
    vec![rcgen::SanType::DnsName(name.try_into().unwrap())]
}

#[tokio::test]
async fn an_answer_that_is_none_is_refused() {
    let root = Authority::new("a root");
    let (_folder, ca_file) = trusting(&[&root.certificate]);
    let too_long = vec![7; LIMIT + 1];
    for (answer, patience, says) in [
        (status("302 Found\r\nlocation: https://localhost/elsewhere"), PATIENT, "the server answers 302"),
        (status("301 Moved Permanently\r\nlocation: http://localhost/"), PATIENT, "the server answers 301"),
        (status("503 Service Unavailable"), PATIENT, "the server answers 503"),
        (ok(&too_long), PATIENT, "length limit"),
        (Answer::Bytes([b"HTTP/1.1 200 OK\r\n\r\n", &too_long[..]].concat()), PATIENT, "length limit"),
        (Answer::CutOff, PATIENT, "close_notify"),
        (Answer::Drip, IMPATIENT, "not here within 500ms"),
        (Answer::Mute, IMPATIENT, "not here within 500ms"),
    ] {
        let server = serve(root.issue(|_| ()), answer).await;
        let error = get("localhost", server, Some(ca_file.clone()), patience).await.unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_holds_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], 9));
    let file = folder.path().join("ca.pem");
    let error = async || get("localhost", server, Some(file.clone()), PATIENT).await.unwrap_err();
    assert!(error().await.contains("ca.pem: No such file"), "{}", error().await);
    for (content, says) in [
        ("", "no certificate in it"),
        ("not PEM", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.pem: "),
    ] {
        std::fs::write(&file, content).unwrap();
        assert!(error().await.contains(says), "{says}: {}", error().await);
    }
}

/// The whole way, with authorities that are changed while the replica runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_over_https() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
    let chain = ChainHash::using_genesis_block(Network::Regtest);
    // No nodes, no channels, no updates.
    let snapshot = [&b"LDK\x01"[..], chain.as_bytes(), &now.to_be_bytes()[..], &[0; 12]].concat();
    let root = Authority::new("a root");
    let (_folder, ca_file) = trusting(&[&Authority::new("another").certificate]);
    let server = serve(root.issue(|_| ()), ok(&snapshot)).await;
    let source =
        Source { url: format!("https://localhost:{}", server.port()).parse().unwrap(), ca_file: Some(ca_file.clone()) };
    let logger: Logger = Arc::new(TracingLogger);
    let graph: Arc<Graph> = Arc::new(NetworkGraph::new(Network::Regtest, logger.clone()));
    let outbound = Outbound::default();
    let sync = async || rapid_gossip::sync(&source, &outbound, Network::Regtest, &graph, &logger).await;
    let error = sync().await.unwrap_err();
    assert!(error.contains("is of no authority that is trusted here"), "{error}");
    std::fs::write(&ca_file, root.certificate.pem()).unwrap();
    assert_eq!(sync().await, Ok(now));
}
