//! P7 and P8: what a token that fails, hangs or goes away does to its callers, and that its return needs no hand.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::Secp256k1;
use cryptoki::types::AuthPin;
use holdfast_signer::custody::{Custody, CustodyError};

use crate::{
    softhsm::{PIN, Token, in_its_own_process, write_private},
    suite::{assert_unavailable, assert_wrong, key, wait_for},
};

/// A token directory that goes away under load gives unavailable and nothing else, and is used again when it is back.
#[test]
fn an_outage_under_load_is_a_pause() {
    in_its_own_process("pkcs11_outages::an_outage_under_load_is_a_pause", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        under_load(&*custody, |answers| {
            for _ in 0..5 {
                answers();
                (subject.lose)();
                // SoftHSM notices when it is next asked for something that it does not remember.
                assert_unavailable(subject.open(&node_id), "a lost token");
                (subject.restore)();
            }
        });
    });
}

/// The same for a token that says so when it is pulled out.
#[test]
fn a_token_pulled_out_under_load_is_a_pause() {
    in_its_own_process("pkcs11_outages::a_token_pulled_out_under_load_is_a_pause", |hsm| {
        let token = hsm.wrapped_token("one");
        let custody = token.subject().init().unwrap();
        let outages = under_load(&*custody, |answers| {
            for _ in 0..5 {
                answers();
                hsm.tell("removed", "");
                wait_for("the outage to show", || custody.self_test().is_err());
                hsm.untell("removed");
            }
        });
        assert!(outages > 0, "nobody noticed");
    });
}

/// Runs `story` while callers sign and derive; every answer is right or says unavailable, and afterwards all is well.
/// Gives the number of calls that were unavailable.
fn under_load(custody: &dyn Custody, story: impl FnOnce(&dyn Fn())) -> u64 {
    let seed = custody.unseal().unwrap();
    let (stop, answers, outages) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for caller in 0..4 {
            let (stop, answers, outages, identity) = (&stop, &answers, &outages, custody.identity());
            scope.spawn(move || {
                let point = key(caller).public_key(&Secp256k1::new());
                let right = identity.ecdh(&point).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match identity.ecdh(&point).and_then(|x| identity.sign(&x).map(|_| x)) {
                        Ok(x) => {
                            assert_eq!(*x, *right);
                            answers.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(CustodyError::Unavailable(_)) => outages.fetch_add(1, Ordering::Relaxed),
                        Err(wrong) => panic!("an outage was taken for a refusal: {wrong}"),
                    };
                }
            });
        }
        let answered = || {
            let before = answers.load(Ordering::Relaxed);
            wait_for("answers", || answers.load(Ordering::Relaxed) > before + 50);
        };
        story(&answered);
        answered();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(*custody.unseal().unwrap(), *seed);
    outages.into_inner()
}

#[test]
fn a_running_backend_survives_logout_and_the_loss_of_its_token() {
    in_its_own_process("pkcs11_outages::a_running_backend_survives_logout_and_the_loss_of_its_token", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        for _ in 0..3 {
            token.session().logout().unwrap();
            custody.self_test().unwrap();
        }
        for _ in 0..3 {
            (subject.lose)();
            // Logged out, it has to find its keys again, and cannot.
            log_out_of_a_lost_token(&token);
            assert_unavailable(custody.self_test(), "a lost token");
            assert_unavailable(custody.unseal(), "a lost token");
            (subject.restore)();
            recovers(&*custody);
        }
    });
}

/// Whatever a failing token returns is an outage, but for the few values by which it says that it cannot.
#[test]
fn failures_are_unavailable_and_incapacity_is_wrong() {
    in_its_own_process("pkcs11_outages::failures_are_unavailable_and_incapacity_is_wrong", |hsm| {
        let token = hsm.wrapped_token("one");
        let custody = token.subject().init().unwrap();
        // General error, function failed, device error, device memory, device removed, key handle invalid, operation
        // active, session closed, session handle invalid, token not present, user not logged in, a vendor's own.
        for code in ["5", "6", "30", "31", "32", "60", "90", "b0", "b3", "e0", "101", "80000001"] {
            hsm.tell("fail", code);
            assert_unavailable(custody.self_test(), code);
            hsm.untell("fail");
            recovers(&*custody);
        }
        // Key function not permitted, mechanism invalid, mechanism parameter invalid, function not supported.
        for code in ["68", "70", "71", "54"] {
            hsm.tell("fail", code);
            assert_wrong(custody.self_test(), code);
            hsm.untell("fail");
            custody.self_test().unwrap();
        }
    });
}

/// A call that does not return costs its caller a deadline, and the others nothing.
#[test]
fn a_hanging_token_is_unavailable() {
    in_its_own_process("pkcs11_outages::a_hanging_token_is_unavailable", |hsm| {
        let mut token = hsm.wrapped_token("one");
        token.config.timeout = Duration::from_millis(700);
        let custody = token.subject().init().unwrap();
        let identity = custody.identity();
        let point = key(0).public_key(&Secp256k1::new());

        hsm.tell("hang", "");
        let started = Instant::now();
        let late = assert_unavailable(identity.sign(&[1; 32]), "a hanging signature");
        assert!(late.contains("no answer within 700 ms"), "{late}");
        assert!(started.elapsed() < Duration::from_secs(30), "the caller waited for the token");
        // One of three sessions hangs. The others work, even when they have to log in anew.
        identity.ecdh(&point).unwrap();
        token.session().logout().unwrap();
        identity.ecdh(&point).unwrap();
        // Now all of them.
        for _ in 0..2 {
            assert_unavailable(identity.sign(&[1; 32]), "a hanging signature");
        }
        assert_unavailable(identity.ecdh(&point), "all sessions hang");
        hsm.untell("hang");
        recovers(&*custody);
    });
}

/// Tokens lock themselves after a few wrong PINs.
#[test]
fn a_wrong_pin_is_tried_once() {
    in_its_own_process("pkcs11_outages::a_wrong_pin_is_tried_once", |hsm| {
        let token = hsm.wrapped_token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        let logins = || hsm.told("logins").len();

        write_private(&token.config.pin_file, "000000");
        // The sessions that are there are logged in and go on; the next login needs the PIN.
        custody.self_test().unwrap();
        token.session().logout().unwrap();
        let before = logins();
        let first = assert_wrong(custody.self_test(), "a wrong PIN");
        assert!(first.contains("wrong PIN for token one (PinIncorrect)"), "{first}");
        for _ in 0..5 {
            let again = assert_wrong(custody.self_test(), "a wrong PIN");
            assert!(again.contains("not tried again until"), "{again}");
        }
        assert_eq!(logins(), before + 1);
        write_private(&token.config.pin_file, PIN);
        custody.self_test().unwrap();

        drop(custody);
        write_private(&token.config.pin_file, "000000");
        let before = logins();
        let opened = subject.open(&node_id);
        assert!(assert_wrong(opened, "a wrong PIN").contains("wrong PIN for token one"));
        assert_eq!(logins(), before + 1);
    });
}

/// A token that has one try left, or none, is not even asked: the refused PIN of an earlier start may be in the file still.
#[test]
fn the_last_try_is_left_to_the_operator() {
    in_its_own_process("pkcs11_outages::the_last_try_is_left_to_the_operator", |hsm| {
        let token = hsm.wrapped_token("one");
        let subject = token.subject();
        let node_id = subject.init().unwrap().identity().public_key();
        let before = hsm.told("logins");
        for (flags, message) in [("20000", "one wrong PIN more locks it"), ("40000", "the PIN of token one is locked")]
        {
            hsm.tell("token-flags", flags);
            assert!(assert_wrong(subject.open(&node_id), message).contains(message));
        }
        assert_eq!(hsm.told("logins"), before, "it was asked");
        hsm.untell("token-flags");
        subject.open(&node_id).unwrap();
    });
}

/// The PIN is changed under a signer that runs: it goes on, and asks for the new one when it has to log in again.
#[test]
fn a_changed_pin_is_taken_from_the_file() {
    in_its_own_process("pkcs11_outages::a_changed_pin_is_taken_from_the_file", |hsm| {
        let token = hsm.token("one");
        let custody = token.subject().init().unwrap();
        let (old, new) = (AuthPin::from(PIN), AuthPin::from("new-pin-7"));
        let session = token.session();
        session.set_pin(&old, &new).unwrap();
        custody.self_test().unwrap();
        session.logout().unwrap();
        assert!(assert_wrong(custody.self_test(), "the old PIN").contains("wrong PIN"));
        write_private(&token.config.pin_file, "new-pin-7");
        custody.self_test().unwrap();
        custody.unseal().unwrap();
        // A file that is gone for a moment is an outage, not a refusal.
        fs::rename(&token.config.pin_file, token.config.pin_file.with_extension("old")).unwrap();
        session.logout().unwrap();
        assert_unavailable(custody.self_test(), "no PIN file");
        write_private(&token.config.pin_file, "new-pin-7");
        recovers(&*custody);
    });
}

/// Ends this process's login to a token that is away, so that what SoftHSM remembers of its keys is forgotten.
fn log_out_of_a_lost_token(token: &Token) {
    let library = cryptoki::context::Pkcs11::new(crate::softhsm::MODULE).unwrap();
    for slot in library.get_slots_with_token().unwrap_or_default() {
        let ours = library.get_token_info(slot).is_ok_and(|info| info.label() == token.label);
        if let (true, Ok(session)) = (ours, library.open_ro_session(slot)) {
            // It may not be logged in, or be closed by a restart of the library meanwhile.
            let _ = session.logout();
        }
    }
}

fn recovers(custody: &dyn Custody) {
    wait_for("the token to be used again", || custody.self_test().is_ok() && custody.unseal().is_ok());
}
