//! Against real sockets: who gets through, who does not, and what they are told.

mod log;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};
use tonic::{Request, Response, Status};

use super::*;
use crate::{
    error::Error,
    pki,
    signer::v1::{self, GetStatusRequest, GetStatusResponse, signer_client::SignerClient, signer_server::SignerServer},
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = Ca::new("d");
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    let channel = connect(&server.endpoint, &ca.leaf(&["spiffe://d/replica/a"]), Role::Signer, PATIENCE).await.unwrap();
    assert_eq!(caller_as_seen(channel).await.unwrap(), "spiffe://d/replica/a");

    let lazy = connect_lazy(&server.endpoint, &ca.leaf(&["spiffe://d/operator/o"]), Role::Signer);
    assert_eq!(caller_as_seen(lazy).await.unwrap(), "spiffe://d/operator/o");
}

#[tokio::test]
async fn a_server_of_another_role_domain_or_authority_is_not_spoken_to() {
    let (ca, stranger) = (Ca::new("d"), Ca::new("d"));
    let client = ca.leaf(&["spiffe://d/replica/a"]);
    let cases = [
        (ca.leaf(&["spiffe://d/replica/b"]), "spiffe://d/replica/b, not of a signer"),
        (ca.leaf(&["spiffe://e/signer/s"]), "outside our trust domain d"),
        (stranger.leaf(&["spiffe://d/signer/s"]), "another authority"),
    ];
    for (credentials, says) in cases {
        let server = Echo::start(credentials).await;
        let error = reach(&server.endpoint, &client, Role::Signer, PATIENCE).await.unwrap_err();
        assert!(matches!(&error.why, ConnectFailure::TheirCertificate(_)), "{error:?}");
        assert!(error.to_string().contains(says) && error.to_string().contains(&server.endpoint), "{error}");
        // P7: to code that acts on refusals, a bad certificate is an outage.
        let error = connect(&server.endpoint, &client, Role::Signer, PATIENCE).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable { what, .. } if what.contains(says)), "{error:?}");
    }
}

#[tokio::test]
async fn files_that_are_replaced_count_from_the_next_connection_on() {
    let (old, new) = (Ca::new("d"), Ca::new("d"));
    let signer = ["spiffe://d/signer/s"];
    let files = Files::of(&old.issue(&signer, Dates::Now), &old.pem);
    let server = Echo::start(files.load().unwrap()).await;
    let [old_client, new_client] = [&old, &new].map(|ca| ca.leaf(&["spiffe://d/replica/a"]));
    let served = async |client| match reach(&server.endpoint, client, Role::Signer, PATIENCE).await {
        Ok(channel) => caller_as_seen(channel).await.is_ok(),
        Err(_) => false,
    };
    assert_eq!((served(&old_client).await, served(&new_client).await), (true, false));

    files.write(&new.issue(&signer, Dates::Now), &new.pem);
    assert_eq!((served(&old_client).await, served(&new_client).await), (false, true));

    // A bad one never replaces a good one: of somebody else, expired, half written, gone.
    files.write(&old.issue(&["spiffe://d/signer/other"], Dates::Now), &old.pem);
    assert_eq!((served(&old_client).await, served(&new_client).await), (false, true));
    files.write(&old.issue(&signer, Dates::Past), &old.pem);
    assert_eq!((served(&old_client).await, served(&new_client).await), (false, true));
    fs::write(files.0.path().join("leaf.pem"), "-----BEGIN CERT").unwrap();
    assert_eq!((served(&old_client).await, served(&new_client).await), (false, true));
    fs::remove_file(files.0.path().join("leaf.key")).unwrap();
    assert_eq!((served(&old_client).await, served(&new_client).await), (false, true));

    // And a client's likewise.
    let client_files = Files::of(&old.issue(&["spiffe://d/replica/a"], Dates::Now), &old.pem);
    let client = client_files.load().unwrap();
    assert!(!served(&client).await);
    client_files.write(&new.issue(&["spiffe://d/replica/a"], Dates::Now), &new.pem);
    assert!(served(&client).await);
}

/// What makes them of no use may pass while they stay as they are.
#[test]
fn files_that_are_not_of_use_yet_are_looked_at_again() {
    let ca = Ca::new("d");
    let files = Files::of(&ca.issue(&["spiffe://d/replica/a"], Dates::Now), &ca.pem);
    let credentials = files.load().unwrap();
    let old = credentials.current();
    let from = SystemTime::now() + Duration::from_secs(3);
    files.write(&ca.issue(&["spiffe://d/replica/a"], Dates::From(from)), &ca.pem);
    let early = credentials.current();
    // Certificates know whole seconds.
    let late = SystemTime::now() + Duration::from_secs(1) >= from;
    assert!(late || Arc::ptr_eq(&early, &old), "taken before its time");
    let deadline = Instant::now() + PATIENCE;
    while Arc::ptr_eq(&credentials.current(), &old) {
        assert!(Instant::now() < deadline, "never looked at again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_refused_client_is_told_that_it_is_its_certificate() {
    let (ca, stranger) = (Ca::new("d"), Ca::new("d"));
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    let client = stranger.with_roots_of(&ca, "spiffe://d/replica/a");
    // The refusal may arrive while connecting or with the first call.
    let error = match reach(&server.endpoint, &client, Role::Signer, PATIENCE).await {
        Err(error) => error,
        Ok(channel) => {
            let status = caller_as_seen(channel).await.unwrap_err();
            ConnectError::in_chain(&status).unwrap_or_else(|| panic!("{status:?}"))
        }
    };
    assert_eq!(error.why, ConnectFailure::OurCertificate("it is of another authority".into()));
}

/// Clients that our own code would not load: the server must refuse them by itself.
#[tokio::test]
async fn the_server_refuses_clients_by_itself() {
    let (ca, stranger) = (Ca::new("d"), Ca::new("d"));
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    let misfits = [
        ("none", None),
        ("no identity", Some(ca.issue(&[], Dates::Now))),
        ("two identities", Some(ca.issue(&["spiffe://d/operator/o", "spiffe://d/replica/a"], Dates::Now))),
        ("no SPIFFE identity", Some(ca.issue(&["https://d/replica/a"], Dates::Now))),
        ("another domain", Some(ca.issue(&["spiffe://e/replica/a"], Dates::Now))),
        ("expired", Some(ca.issue(&["spiffe://d/replica/a"], Dates::Past))),
        ("not yet valid", Some(ca.issue(&["spiffe://d/replica/a"], Dates::Future))),
        ("another authority", Some(stranger.issue(&["spiffe://d/replica/a"], Dates::Now))),
    ];
    for (name, misfit) in misfits {
        assert!(!raw_client_gets_through(&server, &ca, misfit, &rustls::version::TLS13).await, "{name}");
    }
    let good = || Some(ca.issue(&["spiffe://d/replica/a"], Dates::Now));
    assert!(raw_client_gets_through(&server, &ca, good(), &rustls::version::TLS13).await);
    assert!(!raw_client_gets_through(&server, &ca, good(), &rustls::version::TLS12).await, "TLS 1.2");
}

#[tokio::test]
async fn silent_and_noisy_strangers_hold_up_nobody() {
    let ca = Ca::new("d");
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    let mut silent = Vec::new();
    // More than the handshakes that are under way at once, and from another address.
    for _ in 0..300 {
        let stranger = TcpSocket::new_v4().unwrap();
        stranger.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(stranger.connect(server.endpoint.parse().unwrap()).await.unwrap());
    }
    for _ in 0..8 {
        let mut noisy = TcpStream::connect(&server.endpoint).await.unwrap();
        noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = noisy.read(&mut [0; 64]).await;
    }
    let started = Instant::now();
    let channel = connect(&server.endpoint, &ca.leaf(&["spiffe://d/replica/a"]), Role::Signer, PATIENCE).await.unwrap();
    assert!(caller_as_seen(channel).await.is_ok());
    assert!(started.elapsed() < Duration::from_secs(4), "waited for the strangers: {:?}", started.elapsed());
    // The silent ones are sent away when their time is over.
    let end = tokio::time::timeout(PATIENCE, silent[0].read(&mut [0; 1])).await.expect("the deadline");
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let ca = Ca::new("d");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let client = ca.leaf(&["spiffe://d/replica/a"]);
    let error = reach(&endpoint, &client, Role::Signer, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error.why, ConnectFailure::Silent(_)), "{error:?}");
    drop(listener);
    let error = reach(&endpoint, &client, Role::Signer, PATIENCE).await.unwrap_err();
    assert!(matches!(error.why, ConnectFailure::Unreachable(_)), "{error:?}");
    let error = reach("no port here", &client, Role::Signer, PATIENCE).await.unwrap_err();
    assert!(matches!(error.why, ConnectFailure::Unreachable(_)), "{error:?}");
}

/// The machine is gone: packets go nowhere and no reset comes back.
#[tokio::test]
async fn a_dead_peer_is_noticed_within_seconds() {
    let ca = Ca::new("d");
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    let wire = Wire::to(&server.endpoint).await;
    let channel = connect(&wire.endpoint, &ca.leaf(&["spiffe://d/replica/a"]), Role::Signer, PATIENCE).await.unwrap();
    caller_as_seen(channel.clone()).await.unwrap();
    wire.cut.send(()).unwrap();
    let started = Instant::now();
    let call = tokio::time::timeout(PATIENCE, caller_as_seen(channel)).await.expect("keepalive");
    assert!(call.is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn our_own_bad_files_are_named() {
    let (ca, stranger) = (Ca::new("d"), Ca::new("d"));
    let good = "spiffe://d/replica/a";
    let cases: [(Issued, &str); 7] = [
        (ca.issue(&[], Dates::Now), "no URI subject alternative name"),
        (ca.issue(&[good, "spiffe://d/replica/b"], Dates::Now), "2 URI subject alternative names"),
        (ca.issue(&["spiffe://d/root/a"], Dates::Now), "`root` is not a role"),
        (ca.issue(&[good], Dates::Past), "expired on"),
        (ca.issue(&[good], Dates::Future), "not valid before"),
        (stranger.issue(&[good], Dates::Now), "not issued by the authority in"),
        (Issued { pem: "junk".into(), key: ca.issue(&[good], Dates::Now).key }, "no certificate in PEM"),
    ];
    for (issued, says) in cases {
        let files = Files::of(&issued, &ca.pem);
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("leaf.pem"), "{error}");
    }

    let (one, two) = (ca.issue(&[good], Dates::Now), ca.issue(&[good], Dates::Now));
    let error = Files::of(&Issued { pem: one.pem.clone(), key: two.key }, &ca.pem).load().unwrap_err().to_string();
    assert!(error.contains("leaf.key is not the key of") && error.contains("leaf.pem"), "{error}");
    let error = Files::of(&one, "").load().unwrap_err().to_string();
    assert!(error.contains("ca.pem holds no certificate"), "{error}");
    let error = Credentials::load(Path::new("/nowhere/x.pem"), Path::new("/k"), Path::new("/c")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/x.pem"), "{error}");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let ca = Ca::new("d");
    let files = Files::of(&ca.issue(&["spiffe://d/replica/a"], Dates::Now), &ca.pem);
    let key = files.0.path().join("leaf.key");
    for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", key.display())), "{error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        files.load().unwrap();
    }
}

#[test]
fn credentials_do_not_show_their_key() {
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), "d").unwrap();
    let issued = pki::issue(dir.path(), Role::Signer, "s", dir.path(), pki::LEAF_LIFETIME).unwrap();
    let credentials = Credentials::load(&issued.certificate, &issued.key, &issued.ca).unwrap();
    assert_eq!(format!("{credentials:?}"), "Credentials(\"spiffe://d/signer/s\")");
}

// ---- what the tests need ------------------------------------------------------------------------------------

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Issued {
    pem: String,
    key: String,
}

enum Dates {
    Past,
    Now,
    Future,
    From(SystemTime),
}

impl Ca {
    fn new(domain: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&pair).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, pair) }
    }

    fn issue(&self, uris: &[&str], dates: Dates) -> Issued {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = match dates {
            Dates::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Dates::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2999, 1, 1)),
            Dates::Future => (date_time_ymd(2998, 1, 1), date_time_ymd(2999, 1, 1)),
            Dates::From(time) => (time.into(), date_time_ymd(2999, 1, 1)),
        };
        let pem = params.signed_by(&pair, &self.issuer).unwrap().pem();
        Issued { pem, key: pair.serialize_pem() }
    }

    fn leaf(&self, uris: &[&str]) -> Credentials {
        let issued = self.issue(uris, Dates::Now);
        Credentials::from_pem(issued.pem.as_bytes(), issued.key.as_bytes(), self.pem.as_bytes()).unwrap()
    }

    /// A leaf of ours whose holder trusts `other` as well, and so gets as far as being refused by it.
    fn with_roots_of(&self, other: &Ca, uri: &str) -> Credentials {
        let issued = self.issue(&[uri], Dates::Now);
        let both = format!("{}{}", self.pem, other.pem);
        Credentials::from_pem(issued.pem.as_bytes(), issued.key.as_bytes(), both.as_bytes()).unwrap()
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn of(issued: &Issued, ca: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(issued, ca);
        files
    }

    fn write(&self, issued: &Issued, ca: &str) {
        for (name, content) in [("leaf.pem", issued.pem.as_str()), ("leaf.key", &issued.key), ("ca.pem", ca)] {
            let file = self.0.path().join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn load(&self) -> Result<Credentials, TlsError> {
        let file = |name| self.0.path().join(name);
        Credentials::load(&file("leaf.pem"), &file("leaf.key"), &file("ca.pem"))
    }
}

/// A signer that knows one call, and answers it with the caller's identity. Ends when dropped.
struct Echo {
    endpoint: String,
    _stop: oneshot::Sender<()>,
}

impl Echo {
    async fn start(credentials: Credentials) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = EchoService;
        tokio::spawn(async move {
            server()
                .add_service(SignerServer::new(service))
                .serve_with_incoming_shutdown(incoming(listener, credentials), async { drop(stopped.await) })
                .await
        });
        Self { endpoint, _stop: stop }
    }
}

async fn caller_as_seen(channel: tonic::transport::Channel) -> Result<String, Status> {
    Ok(SignerClient::new(channel).get_status(GetStatusRequest {}).await?.into_inner().version)
}

/// Speaks TLS without any of our own checks. True if the server answered in HTTP/2.
async fn raw_client_gets_through(
    server: &Echo,
    ca: &Ca,
    leaf: Option<Issued>,
    version: &'static rustls::SupportedProtocolVersion,
) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = ca.leaf(&["spiffe://d/operator/test"]);
    let verifier =
        verify::ServerOfRole::new(trusting.current().roots.clone(), provider.clone(), "d".into(), Role::Signer);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain = certificates(leaf.pem.as_bytes(), Path::new("leaf")).unwrap();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    let tcp = TcpStream::connect(&server.endpoint).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("signer.example").unwrap();
    let Ok(mut tls) = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await else {
        return false;
    };
    let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut answer = [0; 9];
    tls.read_exact(&mut answer).await.is_ok() && answer[3] == 4 // a SETTINGS frame
}

/// A wire that can be cut in the middle without either end being told.
struct Wire {
    endpoint: String,
    cut: oneshot::Sender<()>,
}

impl Wire {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (cut, is_cut) = oneshot::channel();
        let server = server.to_owned();
        tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = is_cut => {}
            }
            // Both sockets stay open and are never read again.
            std::future::pending::<()>().await;
            drop((near, far, listener));
        });
        Self { endpoint, cut }
    }
}

struct EchoService;

macro_rules! unsupported {
    ($($method:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl v1::signer_server::Signer for EchoService {
            async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
                let version = peer_identity(&request)?.to_string();
                Ok(Response::new(GetStatusResponse { version, ..Default::default() }))
            }
            $(async fn $method(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::internal("this test's server knows one call"))
            })*
        }
    };
}

unsupported! {
    get_node_info: GetNodeInfoRequest -> GetNodeInfoResponse,
    get_replica_secrets: GetReplicaSecretsRequest -> GetReplicaSecretsResponse,
    announce_term: AnnounceTermRequest -> AnnounceTermResponse,
    ecdh: EcdhRequest -> EcdhResponse,
    sign_invoice: SignInvoiceRequest -> SignInvoiceResponse,
    sign_gossip: SignGossipRequest -> SignatureResponse,
    sign_message: SignMessageRequest -> SignMessageResponse,
    get_channel_public_keys: GetChannelPublicKeysRequest -> ChannelPublicKeys,
    get_per_commitment_points: GetPerCommitmentPointsRequest -> GetPerCommitmentPointsResponse,
    register_funding: RegisterFundingRequest -> RegisterFundingResponse,
    sign_counterparty_commitment: SignCounterpartyCommitmentRequest -> SignCounterpartyCommitmentResponse,
    validate_holder_commitment: ValidateHolderCommitmentRequest -> ValidateHolderCommitmentResponse,
    release_commitment_secret: ReleaseCommitmentSecretRequest -> ReleaseCommitmentSecretResponse,
    validate_counterparty_revocation: ValidateCounterpartyRevocationRequest -> ValidateCounterpartyRevocationResponse,
    sign_holder_commitment: SignHolderCommitmentRequest -> SignatureResponse,
    sign_holder_htlc: SignHolderHtlcRequest -> SignatureResponse,
    sign_counterparty_htlc: SignCounterpartyHtlcRequest -> SignatureResponse,
    sign_justice: SignJusticeRequest -> SignatureResponse,
    sign_holder_anchor: SignHolderAnchorRequest -> SignatureResponse,
    sign_closing: SignClosingRequest -> SignatureResponse,
    sign_channel_announcement: SignChannelAnnouncementRequest -> SignatureResponse,
    sign_splice_input: SignSpliceInputRequest -> SignatureResponse,
    sign_spendable_outputs: SignSpendableOutputsRequest -> SignSpendableOutputsResponse,
    sign_wallet_psbt: SignWalletPsbtRequest -> SignWalletPsbtResponse,
    get_channel_state: GetChannelStateRequest -> GetChannelStateResponse,
}
