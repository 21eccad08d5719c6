//! Custody that is away while the signer runs.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::*;
use crate::{
    rules::Call,
    service::self_test::{Pace, keep_testing},
};

#[derive(Clone)]
struct Leaving {
    at_home: Arc<TestCustody>,
    away: Arc<AtomicBool>,
}

impl Custody for Leaving {
    fn backend(&self) -> &'static str {
        self.at_home.backend()
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.at_home.identity()
    }

    fn identity_in_token(&self) -> bool {
        true
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        self.at_home.unseal()
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(CustodyError::Unavailable("no token".into())),
            false => Ok(()),
        }
    }
}

/// By itself it would be tested again in an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custody_that_leaves_is_noticed_at_the_first_call_that_fails_and_its_return_without_one() {
    let identity = Arc::new(SeedIdentity::new(&Zeroizing::new([1; 32])).unwrap());
    let away = Arc::new(AtomicBool::new(false));
    let custody = Leaving { at_home: Arc::new(TestCustody { seed: [1; 32], identity }), away: away.clone() };
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    let core = SignerCore::new(Arc::new(custody), Network::Regtest, store, RulesConfig::default()).unwrap();
    let core = Arc::new(core);
    let pace = Pace { well: Duration::from_secs(3600), away: Duration::from_millis(10) };
    let testing = tokio::spawn(keep_testing(core.clone(), pace));
    let replica = caller(Role::Replica);
    let told = || core.get_node_info(&replica, v1::GetNodeInfoRequest {}).unwrap().custody_unavailable;
    let until_told = async |why: &str| {
        let begun = Instant::now();
        while told() != why {
            assert!(begun.elapsed() < Duration::from_secs(60), "it says {:?}", told());
            time::sleep(Duration::from_millis(10)).await;
        }
    };

    until_told("").await;
    away.store(true, Ordering::SeqCst);
    let refused: Result<(), _> = core.answer(&replica, Call::Ecdh, |_| Err(Error::unavailable("no token")));
    refused.unwrap_err();
    until_told("custody unavailable: no token").await;
    assert_eq!(core.not_ready().as_deref(), Some("custody unavailable: no token"));
    away.store(false, Ordering::SeqCst);
    until_told("").await;
    testing.abort();
}

/// Replicas ask twice a second for as long as it lasts.
#[test]
fn a_kind_of_call_that_keeps_failing_is_told_once_and_when_it_is_answered_again() {
    let core = core(1, Arc::new(EmbeddedStore::in_memory().unwrap()));
    let log = Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || Tee(writer.clone()))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let replica = caller(Role::Replica);
        let ask = |call, answer: Result<(), Error>| {
            let _ = core.answer(&replica, call, |_| answer);
        };
        for _ in 0..20 {
            ask(Call::Ecdh, Err(Error::unavailable("no token")));
        }
        ask(Call::SignGossip, Err(Error::unavailable("no token")));
        ask(Call::Ecdh, Ok(()));
        ask(Call::Ecdh, Ok(()));
    });
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("not answered").count(), 2, "one a kind: {log}");
    assert_eq!(log.matches("answered again").count(), 1, "{log}");
}

struct Tee(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
