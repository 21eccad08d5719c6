//! The file backend, and its identity against LDK's own.

use std::fs;

use bitcoin::secp256k1::{Secp256k1, ecdh};
use holdfast_signer::config::{CustodyConfig, FileCustody};
use lightning::sign::KeysManager;

use crate::{
    softhsm::write_private,
    suite::{Subject, conforms, key},
};

fn subject(directory: &std::path::Path) -> Subject {
    let (sealed, passphrase_file) = (directory.join("seed.sealed"), directory.join("passphrase"));
    write_private(&passphrase_file, "correct horse battery staple\n");
    let (away, lost) = (directory.join("away"), sealed.clone());
    let (found, back) = (away.clone(), sealed.clone());
    Subject {
        config: CustodyConfig::File(FileCustody { path: sealed.clone(), passphrase_file }),
        data_dir: directory.to_owned(),
        sealed,
        lose: Box::new(move || fs::rename(&lost, &away).unwrap()),
        restore: Box::new(move || fs::rename(&found, &back).unwrap()),
    }
}

#[test]
fn the_file_backend_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&subject(directory.path()), 5_000);
}

/// An imported LDK node keeps its id, and its peers' shared secrets.
#[test]
fn its_identity_is_that_of_ldks_keys_manager() {
    let directory = tempfile::tempdir().unwrap();
    let custody = subject(directory.path()).init().unwrap();
    let ldk = KeysManager::new(&custody.unseal().unwrap(), 0, 0, true).get_node_secret_key();
    let (secp, identity) = (Secp256k1::new(), custody.identity());
    let node_id = identity.public_key();
    assert_eq!(node_id, ldk.public_key(&secp));
    let points = [node_id, node_id.negate(&secp), key(0).public_key(&secp)];
    for point in points {
        assert_eq!(*identity.ecdh(&point).unwrap(), ecdh::SharedSecret::new(&point, &ldk).secret_bytes());
    }
}
