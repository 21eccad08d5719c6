//! The same calls over mutual TLS.

use std::{
    path::Path,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bitcoin::secp256k1::{PublicKey, ecdsa::RecoverableSignature};
use holdfast_proto::{
    error::Error,
    pki,
    signer::v1::signer_client::SignerClient,
    tls::{self, Credentials},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};
use tonic::transport::Channel;

use super::*;
use crate::{
    custody::SharedSecret,
    service::{grpc::serve_with, serve},
};

fn credentials(folder: &Path, role: Role) -> Credentials {
    let issued = pki::issue(&folder.join("ca"), role, "one", folder, Duration::from_secs(3600)).unwrap();
    Credentials::load(&issued.certificate, &issued.key, &issued.ca).unwrap()
}

async fn client(folder: &Path, endpoint: &str, role: Role) -> SignerClient<Channel> {
    let credentials = credentials(folder, role);
    SignerClient::new(tls::connect(endpoint, &credentials, Role::Signer, Duration::from_secs(5)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_is_who_the_certificate_says_and_errors_keep_their_type() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(&folder.path().join("ca"), "test").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let core = Arc::new(core(1, Arc::new(EmbeddedStore::in_memory().unwrap())));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(core, listener, credentials(folder.path(), Role::Signer), async {
        stopped.await.ok();
    }));

    let mut replica = client(folder.path(), &endpoint, Role::Replica).await;
    let mut front = client(folder.path(), &endpoint, Role::Front).await;
    let mut operator = client(folder.path(), &endpoint, Role::Operator).await;
    replica.announce_term(v1::AnnounceTermRequest { term: 4 }).await.unwrap();
    let info = replica.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.network.as_str(), info.newest_term), ("regtest", 4));

    let ecdh = |term| v1::EcdhRequest { term, point: info.node_id.clone(), tweak: None };
    front.ecdh(ecdh(4)).await.unwrap();
    let error = |status: tonic::Status| Error::from(status);
    assert!(matches!(
        error(front.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap_err()),
        Error::Refused { rule, .. } if rule == "identity"
    ));
    assert_eq!(error(replica.ecdh(ecdh(3)).await.unwrap_err()), Error::StaleTerm { newest: 4 });
    assert!(matches!(error(replica.ecdh(ecdh(5)).await.unwrap_err()), Error::Misuse { .. }));
    let bad = v1::SignMessageRequest { term: 4, message: vec![0; 9 << 20] };
    let refused = error(operator.sign_message(bad.clone()).await.unwrap_err());
    assert!(
        matches!(&refused, Error::Refused { rule, .. } if rule == "identity"),
        "read before it was refused: {refused}"
    );
    assert!(replica.sign_message(bad).await.is_err(), "a request beyond the limit");
    // What the limit is depends on who asks what: one that says how large it is, is not read.
    let too_large = |status: tonic::Status| assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    let message = vec![0; 1 << 20];
    too_large(replica.sign_message(v1::SignMessageRequest { term: 4, message }).await.unwrap_err());
    let psbt = |size: usize| v1::SignWalletPsbtRequest { term: 4, psbt: vec![0; size] };
    let read = replica.sign_wallet_psbt(psbt(7 << 20)).await.unwrap_err();
    assert!(matches!(error(read), Error::Misuse { field, .. } if field == "psbt"), "a large PSBT is read");
    too_large(replica.sign_wallet_psbt(psbt(8 << 20)).await.unwrap_err());
    let channel_keys_id = vec![0; 64 << 10];
    too_large(
        operator
            .get_channel_state(v1::GetChannelStateRequest { channel_keys_id, with_parameters: false })
            .await
            .unwrap_err(),
    );
    assert!(operator.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner().ready);

    // More at once than there are places: all are answered.
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let (mut replica, ecdh) = (replica.clone(), ecdh(4));
        calls.spawn(async move { replica.ecdh(ecdh).await.unwrap() });
    }
    assert_eq!(calls.join_all().await.len(), 200);

    drop((replica, front, operator));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

/// A certificate counts for as long as a connection lasts at most; who calls asks again at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_and_calls_go_on() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(&folder.path().join("ca"), "test").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let signer = listener.local_addr().unwrap();
    let core = Arc::new(core(1, Arc::new(EmbeddedStore::in_memory().unwrap())));
    let credentials = credentials(folder.path(), Role::Signer);
    let age = Duration::from_millis(100);
    let server = tokio::spawn(serve_with(core, listener, credentials, age, std::future::pending()));

    // Between the two stands a relay that counts connections.
    let connections = Arc::new(AtomicUsize::new(0));
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = relay.local_addr().unwrap().to_string();
    let counted = Arc::clone(&connections);
    let relaying = tokio::spawn(async move {
        loop {
            let (mut client, _) = relay.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(signer).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    let mut replica = client(folder.path(), &endpoint, Role::Replica).await;
    let several = async {
        while connections.load(Ordering::SeqCst) < 4 {
            // A call that was sent in the moment of the end has no answer, and is safe to ask again.
            if let Err(status) = replica.get_node_info(v1::GetNodeInfoRequest {}).await {
                assert!(matches!(Error::from(status.clone()), Error::Unavailable { .. }), "{status:?}");
            }
        }
    };
    timeout(Duration::from_secs(60), several).await.expect("connections never end");
    relaying.abort();
    server.abort();
}

/// A token that hangs until it is told to go on.
struct Hanging {
    identity: SeedIdentity,
    entered: AtomicUsize,
    free: Mutex<bool>,
    freed: Condvar,
}

impl NodeIdentity for Hanging {
    fn public_key(&self) -> PublicKey {
        self.identity.public_key()
    }

    fn sign(&self, digest: &[u8; 32]) -> Result<RecoverableSignature, CustodyError> {
        self.identity.sign(digest)
    }

    fn ecdh(&self, point: &PublicKey) -> Result<SharedSecret, CustodyError> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        drop(self.freed.wait_while(self.free.lock().unwrap(), |free| !*free).unwrap());
        self.identity.ecdh(point)
    }
}

/// Frees the token when it is dropped, so that a failing test ends too.
struct Free(Arc<Hanging>);

impl Drop for Free {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap() = true;
        self.0.freed.notify_all();
    }
}

struct HangingCustody(Arc<Hanging>);

impl Custody for HangingCustody {
    fn backend(&self) -> &'static str {
        "pkcs11"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        Arc::clone(&self.0) as Arc<dyn NodeIdentity>
    }

    fn identity_in_token(&self) -> bool {
        true
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new([1; 32]))
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_while_the_token_hangs_channels_still_move() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(&folder.path().join("ca"), "test").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let identity = SeedIdentity::new(&Zeroizing::new([1; 32])).unwrap();
    let token =
        Arc::new(Hanging { identity, entered: AtomicUsize::new(0), free: Mutex::new(false), freed: Condvar::new() });
    let freed_at_the_end = Free(Arc::clone(&token));
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    let custody = Arc::new(HangingCustody(Arc::clone(&token)));
    let core = Arc::new(SignerCore::new(custody, Network::Regtest, store, RulesConfig::default()).unwrap());
    tokio::spawn(serve(core, listener, credentials(folder.path(), Role::Signer), std::future::pending()));

    let mut replica = client(folder.path(), &endpoint, Role::Replica).await;
    replica.announce_term(v1::AnnounceTermRequest { term: 1 }).await.unwrap();
    let point = token.public_key().serialize().to_vec();
    let mut hanging = JoinSet::new();
    for _ in 0..150 {
        let (mut replica, point) = (replica.clone(), point.clone());
        hanging.spawn(async move { replica.ecdh(v1::EcdhRequest { term: 1, point, tweak: None }).await });
    }
    let busy = async {
        while token.entered.load(Ordering::SeqCst) < 32 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), busy).await.unwrap();
    for n in 0..60 {
        let request =
            v1::GetChannelPublicKeysRequest { term: 1, channel_keys_id: vec![n; 32], splice_parent_funding_txid: None };
        timeout(Duration::from_secs(20), replica.get_channel_public_keys(request)).await.unwrap().unwrap();
    }
    // A new leader can take over as well.
    timeout(Duration::from_secs(20), replica.announce_term(v1::AnnounceTermRequest { term: 2 }))
        .await
        .unwrap()
        .unwrap();

    drop(freed_at_the_end);
    let answered = hanging.join_all().await;
    // Those that had not begun when the term rose are of an old term now; the others are answered.
    assert!(answered.iter().any(Result::is_ok));
    let errors = answered.into_iter().filter_map(Result::err).map(Error::from);
    assert!(errors.into_iter().all(|error| error == Error::StaleTerm { newest: 2 }));
}
