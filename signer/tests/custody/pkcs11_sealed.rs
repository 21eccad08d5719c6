//! Tokens that cannot hold the node key, or cannot do AES-GCM: what is sealed, and how.

use std::{fs, sync::Arc};

use holdfast_signer::custody::{self, Custody, CustodyError, IdentityPlace};

use crate::{
    pkcs11::sealed_node_id,
    softhsm::in_its_own_process,
    suite::{NETWORK, Subject, assert_wrong, check, conforms, key},
};

fn init_sealed(subject: &Subject) -> Result<Arc<dyn Custody>, CustodyError> {
    custody::init_with_identity(&subject.config, NETWORK, &subject.data_dir, IdentityPlace::Sealed)
}

#[test]
fn a_sealed_identity_conforms() {
    in_its_own_process("pkcs11_sealed::a_sealed_identity_conforms", |hsm| {
        let token = hsm.wrapped_token("one");
        hsm.tell("lacks", "1041 1050 1040");
        let subject = token.subject();
        assert_wrong(subject.init(), "a token without ECDH");
        let made = init_sealed(&subject).unwrap();
        assert!(!made.identity_in_token());
        assert_eq!(token.session().find_objects(&[]).unwrap().len(), 1, "only the sealing key");
        let header = fs::read_to_string(subject.sealed.as_ref().unwrap()).unwrap();
        assert!(header.contains("aes-256-gcm") && !header.contains("identity_id"), "{header}");
        check(&subject, made, 200);
    });
}

/// Small tokens have no AES-GCM; their ECDH seals as well.
#[test]
fn a_seed_sealed_by_ecdh_conforms() {
    in_its_own_process("pkcs11_sealed::a_seed_sealed_by_ecdh_conforms", |hsm| {
        let token = hsm.wrapped_token("one");
        hsm.tell("lacks", "1087");
        let subject = token.subject();
        conforms(&subject, 200);
        let sealed = subject.sealed.as_ref().unwrap();
        let header = fs::read_to_string(sealed).unwrap();
        assert!(header.contains("ecdh-secp256k1"), "{header}");
        // Another point, or the other cipher's name, and it does not open.
        let line = header.lines().find(|line| line.starts_with("ephemeral")).unwrap();
        let node_id = sealed_node_id(&subject);
        fs::write(sealed, header.replace(line, &format!("ephemeral = \"{node_id}\""))).unwrap();
        assert_wrong(subject.open(&node_id).unwrap().unseal(), "another ephemeral point");
        fs::write(sealed, header.replace("ecdh-secp256k1-xchacha20-poly1305", "aes-256-gcm")).unwrap();
        assert_wrong(subject.open(&node_id), "another cipher");
    });
}

#[test]
fn a_sealed_identity_under_an_ecdh_key_conforms() {
    in_its_own_process("pkcs11_sealed::a_sealed_identity_under_an_ecdh_key_conforms", |hsm| {
        let token = hsm.wrapped_token("one");
        hsm.tell("lacks", "1087 1041");
        let subject = token.subject();
        let made = init_sealed(&subject).unwrap();
        check(&subject, made, 100);
    });
}

#[test]
fn a_seed_is_imported_into_a_token_once() {
    in_its_own_process("pkcs11_sealed::a_seed_is_imported_into_a_token_once", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let seed = key(7).secret_bytes();
        let import = |seed: [u8; 32]| custody::import(&subject.config, NETWORK, &subject.data_dir, seed.into());
        let custody = import(seed).unwrap();
        assert_eq!(*custody.unseal().unwrap(), seed);
        assert!(!custody.identity_in_token());
        let node_id = custody.identity().public_key();
        assert_wrong(import(key(8).secret_bytes()), "a second import");
        assert_wrong(subject.init(), "an init after an import");
        drop(custody);
        check(&subject, subject.open(&node_id).unwrap(), 50);
    });
}
