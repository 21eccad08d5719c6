//! The file backend.

use std::fs;

use holdfast_signer::{
    config::{CustodyConfig, FileCustody},
    custody::{self, IdentityPlace},
};

use crate::{
    softhsm::write_private,
    suite::{NETWORK, Subject, assert_wrong, conforms},
};

fn subject(directory: &std::path::Path) -> Subject {
    let (sealed, passphrase_file) = (directory.join("seed.sealed"), directory.join("passphrase"));
    write_private(&passphrase_file, "correct horse battery staple\n");
    let (away, lost) = (directory.join("away"), sealed.clone());
    let (found, back) = (away.clone(), sealed.clone());
    Subject {
        config: CustodyConfig::File(FileCustody { path: sealed.clone(), passphrase_file }),
        data_dir: directory.to_owned(),
        sealed: Some(sealed),
        lose: Box::new(move || fs::rename(&lost, &away).unwrap()),
        restore: Box::new(move || fs::rename(&found, &back).unwrap()),
    }
}

#[test]
fn the_file_backend_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&subject(directory.path()), 5_000);
}

#[test]
fn a_file_has_no_token_for_the_node_key() {
    let directory = tempfile::tempdir().unwrap();
    let subject = subject(directory.path());
    let refused = custody::init_with_identity(&subject.config, NETWORK, &subject.data_dir, IdentityPlace::Token);
    assert!(assert_wrong(refused, "no token").contains("--identity sealed"));
    assert!(!subject.sealed.unwrap().exists());
}

/// The wrong key, for this backend: another passphrase.
#[test]
fn another_passphrase_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let subject = subject(directory.path());
    let node_id = subject.init().unwrap().identity().public_key();
    write_private(&directory.path().join("passphrase"), "correct horse battery stable\n");
    assert!(assert_wrong(subject.open(&node_id), "another passphrase").contains("the passphrase is wrong"));
}
