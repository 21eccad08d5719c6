//! The keys are checked for what they are at every connection, not only when they are made.

use std::fs;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass},
    session::Session,
};

use crate::{
    softhsm::{Token, in_its_own_process},
    suite::{assert_unavailable, assert_wrong, ecdh_with_a_known_key},
};

const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// With a key that the test knows: every kind of point against libsecp256k1's own ECDH.
#[test]
fn ecdh_is_right_for_every_kind_of_point() {
    in_its_own_process("pkcs11_keys::ecdh_is_right_for_every_kind_of_point", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let made = subject.init().unwrap().identity().public_key();
        let secret = SecretKey::from_slice(&[0x5c; 32]).unwrap();
        let node_id = secret.public_key(&Secp256k1::new());
        plant_identity(&token, &secret, &node_id);
        let sealed = subject.sealed.as_ref().unwrap();
        let header = fs::read_to_string(sealed).unwrap().replace(&made.to_string(), &node_id.to_string());
        fs::write(sealed, header).unwrap();
        let custody = subject.open(&node_id).unwrap();
        ecdh_with_a_known_key(&*custody.identity(), &secret, 2_000);
        // The seed is sealed for the node that was made.
        assert_wrong(custody.unseal(), "the header of another node");
    });
}

#[test]
fn an_identity_with_wrong_attributes_is_refused() {
    in_its_own_process("pkcs11_keys::an_identity_with_wrong_attributes_is_refused", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let running = subject.init().unwrap();
        let node_id = running.identity().public_key();
        for (curve, changes, message) in [
            (&SECP256K1[..], vec![], "not the recorded"),
            (&P256, vec![], "CKA_EC_PARAMS is not secp256k1"),
            (&SECP256K1, vec![Attribute::Sign(false)], "CKA_SIGN is not true"),
            (&SECP256K1, vec![Attribute::Derive(false)], "CKA_DERIVE is not true"),
            (&SECP256K1, vec![Attribute::Extractable(true)], "CKA_EXTRACTABLE is not false"),
            (&SECP256K1, vec![Attribute::Sensitive(false)], "CKA_SENSITIVE is not true"),
            (
                &SECP256K1,
                vec![Attribute::Private(false), Attribute::Sensitive(false), Attribute::Extractable(true)],
                "CKA_PRIVATE is not true, CKA_SENSITIVE is not true, CKA_EXTRACTABLE is not false",
            ),
        ] {
            replace_pair(&token, "holdfast-identity", curve, &changes);
            let why = assert_wrong(subject.open(&node_id), message);
            assert!(why.contains(message), "{why}");
        }
        // The one that runs is told the same as soon as it has to look for its key again.
        token.session().logout().unwrap();
        assert_wrong(running.self_test(), "a key that was swapped while it ran");
    });
}

#[test]
fn a_sealing_key_with_wrong_attributes_is_refused() {
    in_its_own_process("pkcs11_keys::a_sealing_key_with_wrong_attributes_is_refused", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let node_id = subject.init().unwrap().identity().public_key();
        for (change, message) in [
            (Attribute::Sensitive(false), "CKA_SENSITIVE is not true"),
            (Attribute::Extractable(true), "CKA_EXTRACTABLE is not false"),
            (Attribute::Encrypt(false), "CKA_ENCRYPT is not true"),
            (Attribute::Decrypt(false), "CKA_DECRYPT is not true"),
            (Attribute::ValueLen(16.into()), "CKA_VALUE_LEN is not 32"),
        ] {
            replace_aes(&token, &[change]);
            let why = assert_wrong(subject.open(&node_id), message);
            assert!(why.contains("holdfast-seal is not fit") && why.contains(message), "{why}");
        }
    });
}

#[test]
fn a_replaced_sealing_key_is_refused() {
    in_its_own_process("pkcs11_keys::a_replaced_sealing_key_is_refused", |hsm| {
        let token = hsm.token("one");
        let custody = token.subject().init().unwrap();
        let session = token.session();
        let (old, template) = identifiers(&session, "holdfast-seal", ObjectClass::SECRET_KEY);
        session.destroy_object(old).unwrap();
        assert_unavailable(custody.unseal(), "no sealing key");
        // Looking for it ended every session of this process.
        make_aes(&token.session(), template, &[]);
        let refusal = assert_wrong(custody.unseal(), "another sealing key");
        assert!(refusal.contains("another key sealed it"), "{refusal}");
        custody.self_test().unwrap();
    });
}

#[test]
fn the_ecdh_sealing_key_is_checked_too() {
    in_its_own_process("pkcs11_keys::the_ecdh_sealing_key_is_checked_too", |hsm| {
        let token = hsm.wrapped_token("one");
        hsm.tell("lacks", "1087");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        replace_pair(&token, "holdfast-seal", &SECP256K1, &[]);
        let refusal = assert_wrong(custody.unseal(), "another sealing key");
        assert!(refusal.contains("another key sealed it"), "{refusal}");
        for (change, message) in [
            (Attribute::Extractable(true), "CKA_EXTRACTABLE is not false"),
            (Attribute::Derive(false), "CKA_DERIVE is not true"),
        ] {
            replace_pair(&token, "holdfast-seal", &SECP256K1, &[change]);
            let why = assert_wrong(subject.open(&node_id), message);
            assert!(why.contains("holdfast-seal is not fit") && why.contains(message), "{why}");
        }
    });
}

/// The object with this label and class, and a template that gives another the same label and id.
fn identifiers(session: &Session, label: &str, class: ObjectClass) -> (cryptoki::object::ObjectHandle, Vec<Attribute>) {
    let object = session.find_objects(&[Attribute::Label(label.into()), Attribute::Class(class)]).unwrap()[0];
    let mut template = session.get_attributes(object, &[AttributeType::Label, AttributeType::Id]).unwrap();
    template.push(Attribute::Token(true));
    (object, template)
}

/// `changes` instead of what init sets.
fn with(mut template: Vec<Attribute>, usual: Vec<Attribute>, changes: &[Attribute]) -> Vec<Attribute> {
    let changed = |attribute: &Attribute| changes.iter().any(|c| c.attribute_type() == attribute.attribute_type());
    template.extend(usual.into_iter().filter(|attribute| !changed(attribute)));
    template.extend_from_slice(changes);
    template
}

fn usual() -> Vec<Attribute> {
    vec![Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]
}

/// Puts another key pair where one was, under the same label and id.
fn replace_pair(token: &Token, label: &str, curve: &[u8], changes: &[Attribute]) {
    let session = token.session();
    let (old_public, mut public) = identifiers(&session, label, ObjectClass::PUBLIC_KEY);
    let (old_private, private) = identifiers(&session, label, ObjectClass::PRIVATE_KEY);
    [old_public, old_private].into_iter().for_each(|object| session.destroy_object(object).unwrap());
    public.extend([Attribute::EcParams(curve.to_vec()), Attribute::Private(false)]);
    let private = with(private, [usual(), vec![Attribute::Sign(true), Attribute::Derive(true)]].concat(), changes);
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

fn replace_aes(token: &Token, changes: &[Attribute]) {
    let session = token.session();
    let (old, template) = identifiers(&session, "holdfast-seal", ObjectClass::SECRET_KEY);
    session.destroy_object(old).unwrap();
    make_aes(&session, template, changes);
}

fn make_aes(session: &Session, template: Vec<Attribute>, changes: &[Attribute]) {
    let usage = vec![Attribute::ValueLen(32.into()), Attribute::Encrypt(true), Attribute::Decrypt(true)];
    session.generate_key(&Mechanism::AesKeyGen, &with(template, [usual(), usage].concat(), changes)).unwrap();
}

/// Puts a key that the test knows where the node key was.
fn plant_identity(token: &Token, secret: &SecretKey, public_key: &PublicKey) {
    let session = token.session();
    let (old_public, mut public) = identifiers(&session, "holdfast-identity", ObjectClass::PUBLIC_KEY);
    let (old_private, private) = identifiers(&session, "holdfast-identity", ObjectClass::PRIVATE_KEY);
    [old_public, old_private].into_iter().for_each(|object| session.destroy_object(object).unwrap());
    let kind =
        |class| vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::EcParams(SECP256K1.to_vec())];
    let point = [&[0x04, 65][..], &public_key.serialize_uncompressed()].concat();
    public.extend([kind(ObjectClass::PUBLIC_KEY), vec![Attribute::EcPoint(point), Attribute::Private(false)]].concat());
    let usage = vec![Attribute::Sign(true), Attribute::Derive(true), Attribute::Value(secret.secret_bytes().to_vec())];
    let private = [private, kind(ObjectClass::PRIVATE_KEY), usual(), usage].concat();
    session.create_object(&public).unwrap();
    session.create_object(&private).unwrap();
}
