//! Tokens, on SoftHSM: the suite, and how keys come to be.

use std::fs;

use bitcoin::secp256k1::PublicKey;
use cryptoki::object::{Attribute, ObjectClass};
use holdfast_signer::config::CustodyConfig;

use crate::{
    softhsm::in_its_own_process,
    suite::{Subject, assert_unavailable, assert_wrong, conforms},
};

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
        assert_ne!(first.identity().public_key(), sealed_node_id(&two.subject()));
        // A sealed seed is of no use with another token.
        fs::copy(one.data_dir.join("seed.sealed"), two.data_dir.join("seed.sealed")).unwrap();
        assert_unavailable(two.subject().open(&first.identity().public_key()), "another token's seed");
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
        let mut by_serial = token.config.clone();
        by_serial.token = format!("pkcs11:token=one;serial={}", token.serials()[0]).parse().unwrap();
        subject.config = CustodyConfig::Pkcs11(by_serial.clone());
        subject.init().unwrap().self_test().unwrap();

        let mut elsewhere = token.config.clone();
        elsewhere.token = "pkcs11:token=two".parse().unwrap();
        subject.config = CustodyConfig::Pkcs11(elsewhere.clone());
        subject.data_dir = hsm.tokens();
        assert!(assert_unavailable(subject.init(), "no such token").contains("pkcs11:token=two"));
        elsewhere.module = "/nonexistent/module.so".into();
        subject.config = CustodyConfig::Pkcs11(elsewhere);
        assert!(assert_unavailable(subject.init(), "no such module").contains("/nonexistent/module.so"));
    });
}

pub fn sealed_node_id(subject: &Subject) -> PublicKey {
    let text = fs::read_to_string(subject.sealed.as_ref().unwrap()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("node_id = ")).unwrap();
    line.trim_matches('"').parse().unwrap()
}
