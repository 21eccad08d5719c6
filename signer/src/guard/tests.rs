//! The guard around the machine: what is durable when, who waits for whom, and what a failing store does.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    thread,
};

use holdfast_proto::{
    error::Error,
    identity::{Identity, Role},
};

use super::{
    machine::{Countersigned, Request},
    state::{Commitment, FundingOutpoint, Parameters},
    *,
};

const ID: [u8; 32] = [1; 32];

fn replica(name: &str) -> Identity {
    Identity::new("test", Role::Replica, name).unwrap()
}

fn key() -> Zeroizing<[u8; 32]> {
    Zeroizing::new([7; 32])
}

fn guard(store: &Arc<impl GuardStore + 'static>) -> Guard {
    Guard::open(Arc::clone(store) as Arc<dyn GuardStore>, key()).unwrap()
}

fn funding() -> FundingOutpoint {
    FundingOutpoint { txid: Bytes([2; 32]), vout: 0 }
}

fn register() -> Request {
    let parameters = Parameters { encoded: vec![1], lasting: Bytes([1; 32]), parent: None };
    Request::Register { funding: funding(), parameters, early: None }
}

fn sign(number: u64, content: u8) -> Request {
    let commitment = Commitment { content: Bytes([content; 32]), txid: Bytes([content; 32]) };
    Request::SignCounterparty { funding: funding(), number, point: Bytes([3; 33]), commitment, htlcs: 0 }
}

fn validate(number: u64) -> Request {
    let commitment = Commitment { content: Bytes([number as u8; 32]), txid: Bytes([9; 32]) };
    Request::Validate { funding: funding(), commitment: Countersigned { number, commitment, htlcs: 0, valid: Ok(()) } }
}

fn rule(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Refused { rule, .. }) => rule,
        other => panic!("{other:?} is not a refusal"),
    }
}

/// A store that fails as told: 0 works, 1 fails before it writes, 2 writes and then says that it failed.
struct Flaky {
    inner: EmbeddedStore,
    mode: AtomicU8,
}

impl Flaky {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: EmbeddedStore::in_memory().unwrap(), mode: AtomicU8::new(0) })
    }
}

impl GuardStore for Flaky {
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError> {
        self.inner.load()
    }

    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(name)
    }

    fn put(&self, write: Write) -> Result<(), StoreError> {
        let mode = self.mode.load(Ordering::SeqCst);
        if mode != 1 {
            self.inner.put(write)?;
        }
        if mode != 0 {
            return Err(StoreError::Unavailable("told to fail".into()));
        }
        Ok(())
    }
}

#[test]
fn a_failed_write_changes_nothing_that_was_not_written() {
    for mode in [1, 2] {
        let store = Flaky::new();
        let guard = guard(&store);
        guard.permit(&ID, &register()).unwrap();
        guard.permit(&ID, &sign(0, 1)).unwrap();
        store.mode.store(mode, Ordering::SeqCst);
        assert!(matches!(guard.permit(&ID, &sign(1, 1)), Err(Error::Unavailable { .. })));
        store.mode.store(0, Ordering::SeqCst);
        let newest = guard.state(&ID).unwrap().counterparty.newest;
        assert_eq!(newest, Some(if mode == 1 { 0 } else { 1 }), "the memory follows the store");
        // Nobody got an answer; the question, asked again, is answered, and only that question if it was written.
        if mode == 2 {
            assert_eq!(rule(guard.permit(&ID, &sign(1, 2))), "commitment-repeat");
        }
        guard.permit(&ID, &sign(1, 1)).unwrap();
    }
}

#[test]
fn what_was_permitted_is_known_after_a_restart() {
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    {
        let guard = guard(&store);
        guard.announce(&replica("a"), 5).unwrap();
        guard.permit(&ID, &register()).unwrap();
        guard.permit(&ID, &sign(0, 1)).unwrap();
        guard.permit(&ID, &validate(0)).unwrap();
        guard.permit(&ID, &validate(1)).unwrap();
        guard.permit(&ID, &Request::ReleaseSecret { number: 0 }).unwrap();
    }
    let guard = guard(&store);
    assert_eq!(guard.newest_term(), 5);
    assert_eq!(guard.channel_count(), 1);
    guard.permit(&ID, &sign(0, 1)).unwrap();
    assert_eq!(rule(guard.permit(&ID, &sign(0, 2))), "commitment-repeat");
    let signs_old = Request::SignHolder { funding: funding(), number: 0, content: Bytes([0; 32]) };
    assert_eq!(rule(guard.permit(&ID, &signs_old)), "holder-revoked");
}

#[test]
fn records_of_another_seed_are_not_read() {
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    guard(&store).permit(&ID, &register()).unwrap();
    let other = Guard::open(store, Zeroizing::new([8; 32]));
    assert!(matches!(other, Err(StoreError::Damaged(_))));
}

#[test]
fn a_record_that_goes_back_is_not_believed() {
    let store = Flaky::new();
    let guard = guard(&store);
    guard.permit(&ID, &register()).unwrap();
    let name = Name::Channel(ID);
    let old = store.get(&name).unwrap().unwrap();
    guard.permit(&ID, &sign(0, 1)).unwrap();
    // A failed write makes the guard read again, and somebody has put the older record back.
    store.mode.store(1, Ordering::SeqCst);
    guard.permit(&ID, &sign(1, 1)).unwrap_err();
    store.inner.put(Write { name, previous: 2, version: 1, record: old }).unwrap();
    store.mode.store(0, Ordering::SeqCst);
    assert!(matches!(guard.permit(&ID, &sign(0, 2)), Err(Error::Internal(_))));
}

#[test]
fn p5_of_many_different_questions_at_once_exactly_one_is_answered() {
    for _ in 0..20 {
        let guard = Arc::new(guard(&Arc::new(EmbeddedStore::in_memory().unwrap())));
        guard.permit(&ID, &register()).unwrap();
        let barrier = Arc::new(Barrier::new(10));
        let threads: Vec<_> = (0..10)
            .map(|content| {
                let (guard, barrier) = (Arc::clone(&guard), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    guard.permit(&ID, &sign(0, content)).is_ok()
                })
            })
            .collect();
        let answered = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(answered.filter(|answered| *answered).count(), 1);
    }
}

#[test]
fn p6_signing_and_revoking_at_once_never_both_succeed() {
    for _ in 0..50 {
        let guard = Arc::new(guard(&Arc::new(EmbeddedStore::in_memory().unwrap())));
        for request in [register(), validate(0), validate(1)] {
            guard.permit(&ID, &request).unwrap();
        }
        let barrier = Arc::new(Barrier::new(2));
        let sign = Request::SignHolder { funding: funding(), number: 0, content: Bytes([0; 32]) };
        let threads = [sign, Request::ReleaseSecret { number: 0 }].map(|request| {
            let (guard, barrier) = (Arc::clone(&guard), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                guard.permit(&ID, &request).is_ok()
            })
        });
        let [signed, revoked] = threads.map(|thread| thread.join().unwrap());
        assert!(signed != revoked, "signed {signed}, revoked {revoked}");
    }
}

#[test]
fn questions_about_unknown_channels_leave_nothing() {
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    let guard = guard(&store);
    for n in 0..100 {
        guard.permit(&[n; 32], &Request::ReleaseSecret { number: 0 }).unwrap_err();
        guard.permit(&[n; 32], &sign(0, 1)).unwrap_err();
    }
    assert_eq!((guard.channel_count(), store.load().unwrap().len()), (0, 0));
}

#[test]
fn p3_only_the_newest_term_passes_and_only_its_replica() {
    let store = Arc::new(EmbeddedStore::in_memory().unwrap());
    let guard = guard(&store);
    let (a, b) = (replica("a"), replica("b"));
    let stale = |result: Result<Fence<'_>, Error>, expected: u64| match result.err() {
        Some(Error::StaleTerm { newest }) => assert_eq!(newest, expected),
        other => panic!("{other:?}"),
    };
    assert!(matches!(guard.fence(&a, 0), Err(Error::Misuse { .. })), "no term yet");
    assert!(matches!(guard.fence(&a, 1), Err(Error::Misuse { .. })), "never announced");
    assert_eq!(guard.announce(&a, 3).unwrap(), 3);
    assert_eq!(guard.announce(&a, 3).unwrap(), 3, "said again");
    guard.fence(&a, 3).unwrap();
    stale(guard.fence(&a, 2), 3);
    stale(guard.fence(&b, 3), 3);
    assert_eq!(guard.announce(&b, 3), Err(Error::StaleTerm { newest: 3 }));
    assert_eq!(guard.announce(&b, 2), Err(Error::StaleTerm { newest: 3 }));
    for greedy in [MAX_TERM_STEP + 4, u64::MAX] {
        assert!(matches!(guard.announce(&b, greedy), Err(Error::Misuse { .. })), "no term would be left");
    }
    assert_eq!(guard.announce(&b, 4).unwrap(), 4);
    stale(guard.fence(&a, 3), 4);
    guard.fence(&b, 4).unwrap();
    guard.fence(&Identity::new("test", Role::Front, "f").unwrap(), 4).unwrap();
}

#[test]
fn p3_a_new_term_waits_for_what_the_old_one_is_being_answered() {
    let guard = Arc::new(guard(&Arc::new(EmbeddedStore::in_memory().unwrap())));
    guard.announce(&replica("a"), 1).unwrap();
    let a = replica("a");
    let fence = guard.fence(&a, 1).unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let announcing = {
        let (guard, steps) = (Arc::clone(&guard), Arc::clone(&steps));
        thread::spawn(move || {
            guard.announce(&replica("b"), 2).unwrap();
            steps.fetch_add(1, Ordering::SeqCst)
        })
    };
    // However long the request takes, the term has not risen before it is done.
    for _ in 0..1000 {
        thread::yield_now();
        assert_eq!(steps.load(Ordering::SeqCst), 0);
    }
    drop(fence);
    announcing.join().unwrap();
    assert_eq!(guard.newest_term(), 2);
}

#[test]
fn a_store_that_is_not_there_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard.redb");
    let why = EmbeddedStore::open(&path).err().unwrap().to_string();
    assert!(why.contains("guard.redb: is missing; never put an old copy") && why.contains("docs/recovery.md"), "{why}");
    let first = EmbeddedStore::create(&path).unwrap();
    let why = EmbeddedStore::open(&path).err().unwrap().to_string();
    assert!(why.contains("another holdfast-signer is using it"), "{why}");
    drop(first);
    assert!(matches!(EmbeddedStore::create(&path), Err(StoreError::Unavailable(_))), "never made twice");
    let store = EmbeddedStore::open(&path).unwrap();
    assert!(store.load().unwrap().is_empty());
    let write = |previous, version| Write { name: Name::Term, previous, version, record: vec![version as u8] };
    store.put(write(0, 1)).unwrap();
    assert_eq!(
        store.put(write(0, 1)),
        Err(StoreError::Conflict { name: Name::Term, expected: 0, found: 1 }),
        "versions are compared"
    );
    store.put(write(1, 2)).unwrap();
    assert_eq!(store.get(&Name::Term).unwrap(), Some(vec![2]));
    assert_eq!(store.get(&Name::Channel(ID)).unwrap(), None);
}
