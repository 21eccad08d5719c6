//! What happens while the signer is away, and when it says no.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use holdfast_proto::identity::Role;
use holdfast_signer_client::{Destinations, Error, Grpc, RemoteKeys, Transport, announce_term, v1};
use lightning::sign::{ChannelSigner, NodeSigner, Recipient, SignerProvider};

use super::signer::{InProcess, Server, TERM, keys, options};

const LAST: u64 = (1 << 48) - 1;

fn secp() -> Secp256k1<All> {
    Secp256k1::new()
}

fn point(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&secp())
}

/// What `on_fatal` was told, when the call ends in it.
fn fatal_of<T>(call: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(call()))).expect_err("the call came back");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_call_waits_until_the_signer_is_back() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let away = || Error::unavailable("the token is away");
    signer.order([away(), Error::Internal("a bug".into()), Error::refused("paused", "by an operator"), away()]);
    let secret = keys.ecdh(Recipient::Node, &point(7), None).unwrap();
    assert_eq!(signer.calls(), ["ecdh"; 5]);
    assert_eq!(keys.ecdh(Recipient::Node, &point(7), None).unwrap(), secret);
}

#[test]
fn only_a_rules_refusal_is_an_err() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let channel = keys.derive_channel_signer([1; 32]);
    signer.order([Error::refused("revoke-signed", "it was signed for broadcast")]);
    assert_eq!(channel.release_commitment_secret(LAST), Err(()));
    assert_eq!(signer.calls(), ["release_commitment_secret"], "a refusal is not asked again");
    // The real rule: nothing newer was validated.
    assert_eq!(channel.release_commitment_secret(LAST), Err(()));
}

#[test]
fn a_stale_term_ends_the_process() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    signer.announce_term(v1::AnnounceTermRequest { term: TERM + 4 }).unwrap();
    let channel = keys.derive_channel_signer([1; 32]);
    assert!(fatal_of(|| channel.release_commitment_secret(LAST)).contains("term 7"));
    assert!(fatal_of(|| keys.ecdh(Recipient::Node, &point(7), None)).contains("term 7"));
}

#[test]
fn the_deadline_ends_the_process_instead_of_an_err() {
    let signer = InProcess::new();
    drop(keys(&signer));
    let keys =
        RemoteKeys::over(signer.clone(), options(Duration::from_millis(50)), TERM, Destinations::Signer).unwrap();
    signer.order(vec![Error::unavailable("for ever"); 100]);
    let channel = keys.derive_channel_signer([1; 32]);
    let said = fatal_of(|| channel.release_commitment_secret(LAST));
    assert!(said.contains("release_commitment_secret before the deadline"), "{said}");
}

#[test]
fn where_ldk_hears_no_refusal_there_is_none() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let channel = keys.derive_channel_signer([1; 32]);
    let refuse = || signer.order([Error::refused("identity", "not a replica")]);
    refuse();
    assert!(fatal_of(|| keys.ecdh(Recipient::Node, &point(7), None)).contains("refused ecdh"));
    refuse();
    assert!(fatal_of(|| channel.pubkeys(&secp())).contains("refused get_channel_public_keys"));
    refuse();
    assert!(fatal_of(|| channel.get_per_commitment_point(LAST, &secp())).contains("refused get_per_commitment"));
    // A replica that is not admitted must not close its channels over it.
    refuse();
    assert!(fatal_of(|| channel.release_commitment_secret(LAST)).contains("rule identity"));
}

#[test]
fn what_never_changes_is_asked_once() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let one = keys.derive_channel_signer([1; 32]);
    let same = keys.derive_channel_signer([1; 32]);
    assert!(signer.calls().is_empty(), "a handle costs nothing");
    for n in 0..16 {
        one.get_per_commitment_point(LAST - n, &secp()).unwrap();
        same.get_per_commitment_point(LAST - n, &secp()).unwrap();
    }
    assert_eq!(one.pubkeys(&secp()), same.pubkeys(&secp()));
    keys.get_node_id(Recipient::Node).unwrap();
    assert_eq!(signer.calls(), ["get_per_commitment_points", "get_channel_public_keys"]);
    // The last number has no next.
    one.get_per_commitment_point(0, &secp()).unwrap();
    one.get_per_commitment_point(3, &secp()).unwrap();
    assert_eq!(signer.calls(), ["get_per_commitment_points"; 2]);
}

#[test]
fn ecdh_can_be_asked_ahead() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let asked_when_needed = keys.ecdh(Recipient::Node, &point(1), None).unwrap();
    signer.calls();
    keys.prefetch_ecdh([point(1), point(2)]);
    assert_eq!(signer.calls(), ["ecdh"; 2]);
    assert_eq!(keys.ecdh(Recipient::Node, &point(1), None).unwrap(), asked_when_needed);
    keys.ecdh(Recipient::Node, &point(2), None).unwrap();
    assert!(signer.calls().is_empty());
    // What did not arrive is asked for when it is needed.
    signer.order([Error::unavailable("away")]);
    keys.prefetch_ecdh([point(3)]);
    keys.ecdh(Recipient::Node, &point(3), None).unwrap();
    assert_eq!(signer.calls(), ["ecdh"; 2]);
}

#[test]
fn a_signer_killed_and_restarted_is_a_pause() {
    let mut server = Server::start();
    let config = server.config(Duration::from_secs(60));
    let credentials = server.credentials(Role::Replica);
    assert_eq!(announce_term(&config, &credentials, TERM), Ok(TERM));
    let keys = RemoteKeys::connect(config, credentials, TERM, Destinations::Signer).unwrap();
    let before = keys.ecdh(Recipient::Node, &point(7), None).unwrap();

    server.kill();
    let waiting = thread::spawn({
        let keys = keys.clone();
        move || (keys.ecdh(Recipient::Node, &point(7), None).unwrap(), Instant::now())
    });
    let held = Duration::from_millis(300);
    thread::sleep(held);
    assert!(!waiting.is_finished(), "there is nobody to answer");
    let back = Instant::now();
    server.restart();
    let (after, answered) = waiting.join().unwrap();
    assert_eq!(after, before);
    assert!(answered > back);
}

#[test]
fn a_takeover_can_use_a_connection_that_was_warm() {
    let server = Server::start();
    let config = server.config(Duration::from_secs(10));
    let grpc = Arc::new(Grpc::new(&config.endpoints, &server.credentials(Role::Replica)).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(grpc.newest_term().await, Ok(0));
        assert_eq!(grpc.announce_term(5).await, Ok(5));
        assert_eq!(grpc.newest_term().await, Ok(5));
        // Also from within a runtime that has one thread only, which the call then holds.
        let keys = RemoteKeys::over(grpc.clone(), options(Duration::from_secs(10)), 5, Destinations::Signer).unwrap();
        assert_eq!(keys.info().newest_term, 5);
        drop(grpc);
        drop(keys);
    });
}

#[test]
fn a_worker_that_waits_does_not_hold_up_the_others() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    signer.order(vec![Error::unavailable("away"); 6]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let waiting = tokio::spawn(async move { keys.ecdh(Recipient::Node, &point(1), None) });
        // The only worker is in the call; this task needs one too.
        let other = tokio::spawn(async { Instant::now() });
        let ran = other.await.unwrap();
        waiting.await.unwrap().unwrap();
        assert!(ran.elapsed() > Duration::from_millis(100), "the other task ran only after the call");
    });
}

#[test]
fn wrong_certificates_are_an_outage_and_no_refusal() {
    let server = Server::start();
    let other = Server::start();
    let config = server.config(Duration::from_millis(200));
    let strangers = other.credentials(Role::Replica);
    let error = RemoteKeys::connect(config, strangers, TERM, Destinations::Signer).err().unwrap();
    assert!(matches!(&error, Error::Unavailable { what, .. } if what.contains("another authority")), "{error}");
}
