//! Habits of other tokens, shown by SoftHSM behind a wrapper.

use std::thread;

use bitcoin::secp256k1::{Secp256k1, ecdh::SharedSecret};

use crate::{
    softhsm::in_its_own_process,
    suite::{assert_unavailable, assert_wrong, conforms, key},
};

#[test]
fn a_token_with_habits_of_its_own_conforms() {
    in_its_own_process("pkcs11_habits::a_token_with_habits_of_its_own_conforms", |hsm| {
        let token = hsm.wrapped_token("one");
        for habit in ["raw-point", "short-x", "high-s", "own-nonce"] {
            hsm.tell(habit, "");
        }
        // Enough points for leading zeros.
        conforms(&token.subject(), 1_000);
    });
}

#[test]
fn what_a_token_lacks_is_named_at_init() {
    in_its_own_process("pkcs11_habits::what_a_token_lacks_is_named_at_init", |hsm| {
        let token = hsm.wrapped_token("one");
        let refusal = || assert_wrong(token.subject().init(), "a token that lacks something");
        for (lacks, named) in [
            ("1041", "token one lacks CKM_ECDSA (to sign as the node)"),
            ("1050", "token one lacks CKM_ECDH1_DERIVE (to talk to peers as the node)"),
            ("1041 1050", "CKM_ECDSA (to sign as the node), CKM_ECDH1_DERIVE"),
            ("1040", "CKM_EC_KEY_PAIR_GEN (to make the node key)"),
        ] {
            hsm.tell("lacks", lacks);
            let why = refusal();
            assert!(why.contains(named) && why.contains("init --identity sealed"), "{why}");
        }
        hsm.tell("lacks", "1050 1087");
        let why = refusal();
        assert!(why.contains("(to seal the seed)") && !why.contains("--identity sealed"), "{why}");
        hsm.untell("lacks");

        hsm.tell("no-secp256k1", "");
        assert!(refusal().contains("the token makes no keys on secp256k1 (CurveNotSupported)"));
        hsm.untell("no-secp256k1");
        hsm.tell("no-null-kdf", "");
        let why = refusal();
        assert!(why.contains("CKD_NULL") && why.contains("init --identity sealed"), "{why}");
        hsm.untell("no-null-kdf");
        // Keys that come out other than ordered are not kept.
        hsm.tell("hides", "162");
        assert!(refusal().contains("CKA_EXTRACTABLE is not false"));
        hsm.untell("hides");
        assert!(token.session().find_objects(&[]).unwrap().is_empty(), "keys were left behind");
        token.subject().init().unwrap();
    });
}

#[test]
fn what_a_token_lacks_is_named_at_start() {
    in_its_own_process("pkcs11_habits::what_a_token_lacks_is_named_at_start", |hsm| {
        let token = hsm.wrapped_token("one");
        let subject = token.subject();
        let node_id = subject.init().unwrap().identity().public_key();
        for (lacks, named) in
            [("1041", "CKM_ECDSA"), ("1050", "CKM_ECDH1_DERIVE"), ("1087", "CKM_AES_GCM (to unseal the seed)")]
        {
            hsm.tell("lacks", lacks);
            let why = assert_wrong(subject.open(&node_id), named);
            assert!(why.contains(&format!("token one lacks {named}")), "{why}");
        }
        // What only init needs may be gone.
        hsm.tell("lacks", "1040 1080");
        subject.open(&node_id).unwrap();
        hsm.untell("lacks");
        // An attribute that the token does not tell is not taken for granted.
        hsm.tell("hides", "162");
        let why = assert_wrong(subject.open(&node_id), "a hidden attribute");
        assert!(why.contains("CKA_EXTRACTABLE is not false"), "{why}");
    });
}

#[test]
fn the_pool_keeps_to_the_tokens_limit() {
    in_its_own_process("pkcs11_habits::the_pool_keeps_to_the_tokens_limit", |hsm| {
        let mut token = hsm.wrapped_token("one");
        token.config.sessions = 8;
        hsm.tell("max-sessions", "3");
        let custody = token.subject().init().unwrap();
        at_once(8, || custody.self_test().unwrap());
        assert_eq!(hsm.told("opened"), "2", "one is for the operator");
    });
}

/// A token that allows fewer sessions than it says serves all callers with those that it gives.
#[test]
fn fewer_sessions_than_promised_are_enough() {
    in_its_own_process("pkcs11_habits::fewer_sessions_than_promised_are_enough", |hsm| {
        let token = hsm.wrapped_token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        at_once(8, || custody.self_test().unwrap());
        // From here on only one is given. The three that are open end with a failure that restarts the library.
        hsm.tell("sessions", "1");
        hsm.tell("fail", "30");
        assert_unavailable(custody.self_test(), "a device error");
        hsm.untell("fail");
        at_once(8, || (0..20).for_each(|_| custody.self_test().unwrap()));
        drop(custody);
        subject.open(&node_id).unwrap().self_test().unwrap();

        hsm.tell("sessions", "0");
        let why = assert_unavailable(subject.open(&node_id), "no session at all");
        assert!(why.contains("no session left"), "{why}");
    });
}

/// Both derivations of an ECDH are issued at once where that is faster, and one after another where it is not.
#[test]
fn the_pace_is_that_of_the_token() {
    in_its_own_process("pkcs11_habits::the_pace_is_that_of_the_token", |hsm| {
        let token = hsm.wrapped_token("one");
        let subject = token.subject();
        let node_id = subject.init().unwrap().identity().public_key();
        let derivations = || {
            let custody = subject.open(&node_id).unwrap();
            hsm.untell("derivations");
            custody.identity().ecdh(&key(0).public_key(&Secp256k1::new())).unwrap();
            // Two that begin at once may write in either order.
            let mut underway: Vec<char> = hsm.told("derivations").chars().collect();
            underway.sort_unstable();
            underway.into_iter().collect::<String>()
        };
        hsm.tell("slow-derive", "150");
        assert_eq!(derivations(), "12", "at once");
        hsm.tell("one-at-a-time", "");
        assert_eq!(derivations(), "11", "one after another");
    });
}

/// ECDHs that wait for a session are served together: a derivation each, and one more for all of them.
#[test]
fn ecdhs_that_wait_share_a_derivation() {
    in_its_own_process("pkcs11_habits::ecdhs_that_wait_share_a_derivation", |hsm| {
        const CALLERS: usize = 16;
        let token = hsm.wrapped_token("one");
        hsm.tell("slow-derive", "40");
        hsm.tell("one-at-a-time", "");
        let custody = token.subject().init().unwrap();
        let node_id = custody.identity().public_key();
        hsm.untell("derivations");
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let identity = custody.identity();
                scope.spawn(move || {
                    let ours = key(caller);
                    let shared = identity.ecdh(&ours.public_key(&Secp256k1::new())).unwrap();
                    assert_eq!(*shared, SharedSecret::new(&node_id, &ours).secret_bytes());
                });
            }
        });
        let derivations = hsm.told("derivations").len();
        assert!((CALLERS + 1..2 * CALLERS).contains(&derivations), "{derivations} derivations for {CALLERS} callers");
    });
}

fn at_once(callers: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(&work);
        }
    });
}
