//! What is particular to tokens, on SoftHSM.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use holdfast_signer::{
    config::CustodyConfig,
    custody::{Custody, CustodyError},
};

use crate::{
    softhsm::{Token, in_its_own_process, write_private},
    suite::{Subject, assert_unavailable, assert_wrong, conforms, key},
};

const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

#[test]
fn the_pkcs11_backend_conforms() {
    in_its_own_process("pkcs11::the_pkcs11_backend_conforms", |hsm| {
        let token = hsm.token("one");
        conforms(&token.subject(), 3_000);
    });
}

#[test]
fn two_tokens_of_one_module_conform() {
    in_its_own_process("pkcs11::two_tokens_of_one_module_conform", |hsm| {
        let (one, two) = (hsm.token("one"), hsm.token("two"));
        let first = one.subject().init().unwrap();
        // The suite restarts the library under the first backend's feet several times.
        conforms(&two.subject(), 200);
        first.self_test().unwrap();
        assert_ne!(first.identity().public_key(), two.subject().sealed_node_id());
        // A sealed seed is of no use with another token.
        fs::copy(one.data_dir.join("seed.sealed"), two.data_dir.join("seed.sealed")).unwrap();
        assert_unavailable(two.subject().open(&first.identity().public_key()), "another token's seed");
    });
}

/// P8 and P7: a token that goes away under load gives unavailable and nothing else, and is used again when it is back.
#[test]
fn an_outage_under_load_is_a_pause() {
    in_its_own_process("pkcs11::an_outage_under_load_is_a_pause", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let seed = custody.unseal().unwrap();
        let (stop, answers, outages) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for caller in 0..4 {
                let (custody, stop, answers, outages) = (&custody, &stop, &answers, &outages);
                scope.spawn(move || {
                    let identity = custody.identity();
                    let point = key(caller).public_key(&secp256k1::Secp256k1::new());
                    let right = identity.ecdh(&point).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        match identity.ecdh(&point).and_then(|x| identity.sign(&x).map(|_| x)) {
                            Ok(x) => assert_eq!(*x, *right),
                            Err(CustodyError::Unavailable(_)) => {
                                outages.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                            Err(wrong) => panic!("an outage was taken for a refusal: {wrong}"),
                        }
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..5 {
                wait_for("answers", || answers.load(Ordering::Relaxed) > 50);
                (subject.lose)();
                // SoftHSM notices when it is next asked for something that it does not remember.
                assert_unavailable(subject.open(&custody.identity().public_key()), "a lost token");
                (subject.restore)();
                answers.store(0, Ordering::Relaxed);
            }
            wait_for("answers after the last outage", || answers.load(Ordering::Relaxed) > 50);
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(*custody.unseal().unwrap(), *seed);
    });
}

#[test]
fn a_running_backend_survives_logout_and_the_loss_of_its_token() {
    in_its_own_process("pkcs11::a_running_backend_survives_logout_and_the_loss_of_its_token", |hsm| {
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

/// A call that does not return costs its caller a deadline, and the others nothing.
#[test]
fn a_hanging_token_is_unavailable() {
    in_its_own_process("pkcs11::a_hanging_token_is_unavailable", |hsm| {
        let mut token = hsm.token("one");
        token.config.module = hsm.wrapper();
        token.config.timeout = Duration::from_millis(700);
        let custody = token.subject().init().unwrap();
        let (identity, hang) = (custody.identity(), hsm.signal("hang"));
        let point = key(0).public_key(&secp256k1::Secp256k1::new());

        fs::write(&hang, "").unwrap();
        let started = Instant::now();
        let late = assert_unavailable(identity.sign(&[1; 32]), "a hanging signature");
        assert!(late.contains("no answer within 700 ms"), "{late}");
        assert!(started.elapsed() < Duration::from_secs(3));
        // One of three sessions hangs. The others work, even when they have to log in anew.
        identity.ecdh(&point).unwrap();
        token.session().logout().unwrap();
        identity.ecdh(&point).unwrap();
        // Now all of them.
        for _ in 0..2 {
            assert_unavailable(identity.sign(&[1; 32]), "a hanging signature");
        }
        assert_unavailable(identity.ecdh(&point), "all sessions hang");
        fs::remove_file(&hang).unwrap();
        recovers(&*custody);
    });
}

/// Tokens lock themselves after a few wrong PINs.
#[test]
fn a_wrong_pin_is_tried_once() {
    in_its_own_process("pkcs11::a_wrong_pin_is_tried_once", |hsm| {
        let mut token = hsm.token("one");
        token.config.module = hsm.wrapper();
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        let logins = || fs::read(hsm.signal("logins")).unwrap().len();

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
        write_private(&token.config.pin_file, crate::softhsm::PIN);
        custody.self_test().unwrap();

        drop(custody);
        write_private(&token.config.pin_file, "000000");
        let before = logins();
        let opened = subject.open(&node_id);
        assert!(assert_wrong(opened, "a wrong PIN").contains("wrong PIN for token one"));
        assert_eq!(logins(), before + 1);
    });
}

#[test]
fn a_replaced_sealing_key_is_refused() {
    in_its_own_process("pkcs11::a_replaced_sealing_key_is_refused", |hsm| {
        let token = hsm.token("one");
        let custody = token.subject().init().unwrap();
        let session = token.session();
        let old = find(&session, ObjectClass::SECRET_KEY);
        let mut template = identifiers(&session, old);
        session.destroy_object(old).unwrap();
        assert_unavailable(custody.unseal(), "no sealing key");
        // Looking for it ended every session of this process.
        let session = token.session();
        template.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::ValueLen(32.into()),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ]);
        session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
        let refusal = assert_wrong(custody.unseal(), "another sealing key");
        assert!(refusal.contains("another key sealed it"), "{refusal}");
        custody.self_test().unwrap();
    });
}

#[test]
fn keys_with_wrong_attributes_are_refused() {
    in_its_own_process("pkcs11::keys_with_wrong_attributes_are_refused", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let node_id = subject.init().unwrap().identity().public_key();
        let refusal = |what| assert_wrong(subject.open(&node_id), what);

        let good = [(AttributeType::Sensitive, true), (AttributeType::Extractable, false)];
        replace_identity(&token, &SECP256K1, &good);
        assert!(refusal("another identity").contains("not the recorded"));
        replace_identity(&token, &P256, &good);
        assert!(refusal("another curve").contains("CKA_EC_PARAMS is not secp256k1"));
        replace_identity(&token, &SECP256K1, &[(AttributeType::Sensitive, false), (AttributeType::Extractable, true)]);
        let why = refusal("an extractable key");
        assert!(why.contains("CKA_SENSITIVE is not true, CKA_EXTRACTABLE is not false"), "{why}");
    });
}

#[test]
fn init_makes_all_or_nothing() {
    in_its_own_process("pkcs11::init_makes_all_or_nothing", |hsm| {
        let token = hsm.token("one");
        let objects = || token.session().find_objects(&[Attribute::Token(true)]).unwrap().len();
        // Nowhere to write the sealed seed.
        let away = token.data_dir.with_extension("away");
        let mut subject = token.subject();
        subject.data_dir = away.join("none");
        assert_unavailable(subject.init(), "no data directory");
        assert_eq!(objects(), 0, "keys were left behind");
        // Something else in the token has one of our labels.
        let label = Attribute::Label("holdfast-seal".into());
        let data = [Attribute::Token(true), Attribute::Class(ObjectClass::DATA), label];
        let session = token.session();
        let squatter = session.create_object(&data).unwrap();
        assert!(assert_wrong(token.subject().init(), "a label in use").contains("already holds holdfast-seal"));
        assert_eq!(objects(), 1);
        session.destroy_object(squatter).unwrap();
        token.subject().init().unwrap();
        assert_eq!(objects(), 3);
        // The sealed seed is gone, the keys are not: a new seed would orphan the channels of the old one.
        fs::remove_file(token.data_dir.join("seed.sealed")).unwrap();
        assert!(assert_wrong(token.subject().init(), "keys are there").contains("init never replaces keys"));
    });
}

#[test]
fn a_token_that_is_not_there_is_unavailable() {
    in_its_own_process("pkcs11::a_token_that_is_not_there_is_unavailable", |hsm| {
        // Two tokens of one label are told apart by serial only.
        let (token, _twin) = (hsm.token("one"), hsm.token_beside("one", "twin"));
        let mut subject = token.subject();
        assert!(assert_wrong(subject.init(), "an ambiguous label").contains("add serial="));

        let mut elsewhere = token.config.clone();
        elsewhere.token = "pkcs11:token=two".parse().unwrap();
        subject.config = CustodyConfig::Pkcs11(elsewhere.clone());
        assert!(assert_unavailable(subject.init(), "no such token").contains("pkcs11:token=two"));
        elsewhere.module = "/nonexistent/module.so".into();
        subject.config = CustodyConfig::Pkcs11(elsewhere);
        assert!(assert_unavailable(subject.init(), "no such module").contains("/nonexistent/module.so"));
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

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn find(session: &Session, class: ObjectClass) -> ObjectHandle {
    session.find_objects(&[Attribute::Token(true), Attribute::Class(class)]).unwrap()[0]
}

fn identifiers(session: &Session, object: ObjectHandle) -> Vec<Attribute> {
    let mut identifiers = session.get_attributes(object, &[AttributeType::Label, AttributeType::Id]).unwrap();
    identifiers.push(Attribute::Token(true));
    identifiers
}

/// Puts another key pair where the identity was, under the same label and id.
fn replace_identity(token: &Token, curve: &[u8], flags: &[(AttributeType, bool)]) {
    let session = token.session();
    let old = [ObjectClass::PUBLIC_KEY, ObjectClass::PRIVATE_KEY].map(|class| find(&session, class));
    let mut public = identifiers(&session, old[0]);
    let mut private = public.clone();
    old.into_iter().for_each(|object| session.destroy_object(object).unwrap());
    public.extend([Attribute::EcParams(curve.to_vec()), Attribute::Private(false)]);
    private.extend([Attribute::Private(true), Attribute::Sign(true), Attribute::Derive(true)]);
    private.extend(flags.iter().map(|(kind, value)| match kind {
        AttributeType::Sensitive => Attribute::Sensitive(*value),
        _ => Attribute::Extractable(*value),
    }));
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

impl Subject {
    fn sealed_node_id(&self) -> secp256k1::PublicKey {
        let text = fs::read_to_string(&self.sealed).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("node_id = ")).unwrap();
        line.trim_matches('"').parse().unwrap()
    }
}
