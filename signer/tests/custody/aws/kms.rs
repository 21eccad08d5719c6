//! What is particular to KMS.

use std::{fs, path::Path, sync::Arc, time::Duration};

use aws_sdk_kms::primitives::Blob;
use bitcoin::{Network, secp256k1::PublicKey};
use holdfast_signer::{
    config::{AwsKmsCustody, CustodyConfig},
    custody::{self, Custody, CustodyError, Seed},
};
use serde_json::json;

use crate::{
    proxy::Fault,
    suite::{NETWORK, Subject, assert_unavailable, assert_wrong, conforms},
    world::with_aws,
};

fn init(config: &AwsKmsCustody, data_dir: &Path) -> Result<Arc<dyn Custody>, CustodyError> {
    custody::init(&CustodyConfig::AwsKms(config.clone()), NETWORK, data_dir)
}

fn open(config: &AwsKmsCustody, data_dir: &Path, node_id: &PublicKey) -> Result<Arc<dyn Custody>, CustodyError> {
    custody::open(&CustodyConfig::AwsKms(config.clone()), NETWORK, data_dir, node_id)
}

const DISABLED: Fault =
    Fault::Answer { status: 400, code: "DisabledException", message: "arn:aws:kms:us-east-1:1:key/1 is disabled." };
const THROTTLED: Fault = Fault::Answer { status: 400, code: "ThrottlingException", message: "Rate exceeded" };

#[test]
fn the_kms_backend_conforms() {
    with_aws("kms::the_kms_backend_conforms", |world| {
        let data_dir = world.directory("data");
        let (breaks, heals) = (world.proxy.clone(), world.proxy.clone());
        let subject = Subject {
            config: CustodyConfig::AwsKms(world.kms(&world.moto.key())),
            sealed: Some(data_dir.join("seed.sealed")),
            data_dir,
            lose: Box::new(move || breaks.fail_always(DISABLED)),
            restore: Box::new(move || heals.heal()),
        };
        conforms(&subject, 1_000);
    });
}

/// The least that a role needs: `Decrypt` at run time, with the key by its ARN and the seed's context.
#[test]
fn a_running_signer_calls_decrypt_and_nothing_else() {
    with_aws("kms::a_running_signer_calls_decrypt_and_nothing_else", |world| {
        let (arn, data_dir) = (world.moto.key(), world.directory("data"));
        let config = world.kms(&arn);
        let made = init(&config, &data_dir).unwrap();
        let node_id = made.identity().public_key();
        let calls = world.proxy.calls();
        assert_eq!(calls.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["GenerateDataKey", "Decrypt"]);
        let context = json!({ "network": "regtest", "node-id": node_id.to_string(), "version": "1" });
        assert!(calls.iter().all(|call| call.body["EncryptionContext"] == context && call.body["KeyId"] == *arn));

        let opened = open(&config, &data_dir, &node_id).unwrap();
        let calls = world.proxy.calls();
        assert_eq!(calls.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["Decrypt"]);
        assert_eq!((&calls[0].body["KeyId"], &calls[0].body["EncryptionContext"]), (&json!(arn), &context));
        opened.self_test().unwrap();
        opened.unseal().unwrap();
        opened.identity().sign(&[1; 32]).unwrap();
        assert!(world.proxy.calls().is_empty(), "KMS is asked once a start");
    });
}

#[test]
fn the_seed_never_goes_to_kms_and_its_key_opens_in_one_context_only() {
    with_aws("kms::the_seed_never_goes_to_kms_and_its_key_opens_in_one_context_only", |world| {
        let data_dir = world.directory("data");
        let made = init(&world.kms(&world.moto.key()), &data_dir).unwrap();
        let seed = made.unseal().unwrap();
        let file = fs::read_to_string(data_dir.join("seed.sealed")).unwrap();
        assert!(!file.contains(&hex::encode(*seed)));
        let field = |name: &str| {
            let line = file.lines().find(|line| line.starts_with(&format!("{name} ="))).unwrap();
            hex::decode(line.split('"').nth(1).unwrap()).unwrap()
        };
        let data_key = Blob::new(field("data_key"));
        let ask = |node_id: &str| {
            let request = world.moto.kms().decrypt().ciphertext_blob(data_key.clone());
            let request = request.encryption_context("network", "regtest").encryption_context("version", "1");
            let answer = world.moto.block_on(request.encryption_context("node-id", node_id).send());
            answer.map_err(|error| error.to_string())
        };
        let node_id = made.identity().public_key();
        let opened = ask(&node_id.to_string()).unwrap().plaintext.unwrap();
        assert_ne!(opened.as_ref(), seed.as_slice(), "KMS holds a key to the seed, not the seed");
        assert!(ask(&node_id.to_string().replace('0', "1")).is_err());
        assert!(world.moto.block_on(world.moto.kms().decrypt().ciphertext_blob(data_key.clone()).send()).is_err());
    });
}

#[test]
fn another_key_is_refused() {
    with_aws("kms::another_key_is_refused", |world| {
        let (arn, other, data_dir) = (world.moto.key(), world.moto.key(), world.directory("data"));
        let config = world.kms(&arn);
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.proxy.calls();
        // The configuration names another: nothing is asked.
        let why = assert_wrong(open(&world.kms(&other), &data_dir, &node_id), "another key");
        assert!(why.contains(&arn) && why.contains(&other), "{why}");
        assert!(world.proxy.calls().is_empty());
        // KMS says that another answered.
        world.proxy.fail(1, Fault::Changed { field: "KeyId", value: "arn:aws:kms:eu-central-1:1:key/other" });
        assert!(assert_wrong(open(&config, &data_dir, &node_id), "another key").contains("key/other answered"));
        // Another key in the file, which an alias in the configuration does not contradict.
        let path = data_dir.join("seed.sealed");
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, good.replace(&arn, &other)).unwrap();
        // KMS says so by name, moto only that it refuses, which may pass.
        assert!(open(&world.kms("alias/any"), &data_dir, &node_id).is_err(), "another key in the file");
        // A data key that was changed, and one that is gone.
        let line = good.lines().find(|line| line.starts_with("data_key =")).unwrap();
        let last = if line.ends_with("0\"") { "1\"" } else { "0\"" };
        for changed in [format!("{}{last}", &line[..line.len() - 2]), "data_key = \"\"".to_owned()] {
            fs::write(&path, good.replace(line, &changed)).unwrap();
            assert_wrong(open(&config, &data_dir, &node_id), "a changed data key");
        }
        // A data key that KMS gives back wrongly.
        fs::write(&path, &good).unwrap();
        for value in ["AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
            world.proxy.fail(1, Fault::Changed { field: "Plaintext", value });
            assert_wrong(open(&config, &data_dir, &node_id), "another data key");
        }
        open(&config, &data_dir, &node_id).unwrap();
    });
}

/// Credentials of whoever answers the metadata endpoint lead to his key under our alias: nothing is sealed with it.
#[test]
fn no_key_of_another_account_seals_a_seed() {
    with_aws("kms::no_key_of_another_account_seals_a_seed", |world| {
        let (arn, data_dir) = (world.moto.key(), world.directory("data"));
        let kms = world.moto.kms();
        world.moto.block_on(kms.create_alias().alias_name("alias/holdfast").target_key_id(&arn).send()).unwrap();
        let unnamed = AwsKmsCustody { account: None, ..world.kms("alias/holdfast") };
        assert!(assert_wrong(init(&unnamed, &data_dir), "no account").contains("account = "));
        let ours = Some("999999999999".to_owned().try_into().unwrap());
        let config = AwsKmsCustody { account: ours, ..world.kms("alias/holdfast") };
        let why = assert_wrong(init(&config, &data_dir), "another account");
        assert!(why.contains("not in account 999999999999"), "{why}");
        assert_eq!(world.proxy.names(), ["GenerateDataKey"]);
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 0);
        // An ARN says it itself.
        init(&AwsKmsCustody { account: None, ..world.kms(&arn) }, &data_dir).unwrap();
    });
}

/// An alias counts when the seed is sealed; who may move it cannot make the signer ask another key.
#[test]
fn the_key_is_pinned_when_the_seed_is_sealed() {
    with_aws("kms::the_key_is_pinned_when_the_seed_is_sealed", |world| {
        let (arn, other, data_dir) = (world.moto.key(), world.moto.key(), world.directory("data"));
        let kms = world.moto.kms();
        world.moto.block_on(kms.create_alias().alias_name("alias/holdfast").target_key_id(&arn).send()).unwrap();
        let config = world.kms("alias/holdfast");
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.moto.block_on(kms.update_alias().alias_name("alias/holdfast").target_key_id(&other).send()).unwrap();
        world.proxy.calls();
        open(&config, &data_dir, &node_id).unwrap();
        assert_eq!(world.proxy.calls()[0].body["KeyId"], json!(arn));
        // By its id as well.
        open(&world.kms(arn.rsplit('/').next().unwrap()), &data_dir, &node_id).unwrap();
    });
}

/// Each says on one line what is wrong, and is asked once: no retry helps.
#[test]
fn what_kms_refuses_is_told_clearly() {
    with_aws("kms::what_kms_refuses_is_told_clearly", |world| {
        let data_dir = world.directory("data");
        let config = world.kms(&world.moto.key());
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.proxy.calls();
        let ask = |code, message, says: &str| {
            world.proxy.fail_always(Fault::Answer { status: 400, code, message });
            let refusal = open(&config, &data_dir, &node_id).map(|_| ()).unwrap_err();
            world.proxy.heal();
            let text = refusal.to_string();
            assert!(text.contains(says) && !text.contains('\n'), "{code}: {text}");
            assert_eq!(world.proxy.names(), ["Decrypt"], "{code}");
            refusal
        };
        for (code, message, says) in [
            ("DisabledException", "", "is disabled: enable it"),
            ("KMSInvalidStateException", "arn:aws:kms:r:1:key/1 is pending deletion.", "cancel-key-deletion"),
            ("KMSInvalidStateException", "arn:aws:kms:r:1:key/1 is pending import.", "pending import"),
            ("NotFoundException", "Key 'arn' does not exist", "is not found: Key 'arn' does not exist"),
            ("ExpiredTokenException", "The security token is\nexpired", "credentials are expired"),
            ("AccessDeniedException", "User: arn:aws:sts::1:r is not authorized", "needs kms:Decrypt"),
            ("UnrecognizedClientException", "The security token is invalid", "refuses the credentials"),
            ("InvalidSignatureException", "does not match", "refuses the credentials"),
        ] {
            assert!(matches!(ask(code, message, says), CustodyError::Unavailable(_)), "{code}");
        }
        for (code, message, says) in [
            ("IncorrectKeyException", "", "another key did"),
            ("InvalidCiphertextException", "", "does not open the sealed seed"),
            ("InvalidKeyUsageException", "", "not a symmetric key"),
            ("SomethingNewException", "of tomorrow", "SomethingNewException of tomorrow"),
        ] {
            assert!(matches!(ask(code, message, says), CustodyError::Wrong(_)), "{code}");
        }
        // Nobody is asked where others could listen: the address is one at which nobody answers.
        let clear = AwsKmsCustody { endpoint: Some("http://192.0.2.1:5000".into()), ..config.clone() };
        let why = open(&clear, &data_dir, &node_id).map(|_| ()).unwrap_err();
        assert!(
            matches!(&why, CustodyError::Wrong(why) if why.contains("http://192.0.2.1:5000 is not https")),
            "{why}"
        );
        open(&config, &data_dir, &node_id).unwrap();
    });
}

/// P7: what passes is waited for, until the deadline.
#[test]
fn what_passes_is_retried() {
    with_aws("kms::what_passes_is_retried", |world| {
        let data_dir = world.directory("data");
        let mut config = world.kms(&world.moto.key());
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.proxy.calls();
        let internal = Fault::Answer { status: 500, code: "KMSInternalException", message: "" };
        let unavailable = Fault::Answer { status: 500, code: "KeyUnavailableException", message: "" };
        for (times, fault) in [(4, THROTTLED), (2, internal), (2, unavailable), (2, Fault::CutOff)] {
            world.proxy.fail(times, fault.clone());
            open(&config, &data_dir, &node_id).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
            assert_eq!(world.proxy.names().len(), times + 1, "{fault:?}");
        }
        // One slow answer is asked for again within the deadline.
        config.timeout = Duration::from_secs(15);
        world.proxy.fail(1, Fault::Silence);
        open(&config, &data_dir, &node_id).unwrap();
        assert_eq!(world.proxy.names().len(), 2);
    });
}

#[test]
fn the_deadline_ends_the_retries() {
    with_aws("kms::the_deadline_ends_the_retries", |world| {
        let data_dir = world.directory("data");
        let mut config = world.kms(&world.moto.key());
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        config.timeout = Duration::from_millis(1_500);
        for (fault, says) in [(THROTTLED, "Rate exceeded"), (Fault::Silence, ""), (Fault::CutOff, "")] {
            world.proxy.fail_always(fault);
            let why = assert_unavailable(open(&config, &data_dir, &node_id), says);
            assert!(why.contains("AWS KMS gave no answer within 1500 ms") && why.contains(says), "{why}");
        }
        world.proxy.heal();
        // Nobody listens there.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        config.endpoint = Some(format!("http://{nobody}"));
        assert_unavailable(open(&config, &data_dir, &node_id), "nobody listens");
    });
}

/// A failed init leaves nothing behind that the next would stumble over.
#[test]
fn nothing_is_sealed_that_kms_does_not_open_again() {
    with_aws("kms::nothing_is_sealed_that_kms_does_not_open_again", |world| {
        let data_dir = world.directory("data");
        let config = world.kms(&world.moto.key());
        let denied = Fault::Answer { status: 400, code: "AccessDeniedException", message: "no" };
        world.proxy.fail(1, denied);
        assert!(assert_unavailable(init(&config, &data_dir), "no GenerateDataKey").contains("kms:GenerateDataKey"));
        world
            .proxy
            .fail(1, Fault::Changed { field: "Plaintext", value: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" });
        assert!(assert_wrong(init(&config, &data_dir), "a data key of zeros").contains("does not give back"));
        let gone = world.kms("alias/none");
        assert!(assert_unavailable(init(&gone, &data_dir), "no key").contains("alias/none is not found"));
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 0);
        init(&config, &data_dir).unwrap();
    });
}

#[test]
fn a_key_of_another_region_is_refused_before_it_is_asked() {
    with_aws("kms::a_key_of_another_region_is_refused_before_it_is_asked", |world| {
        let data_dir = world.directory("data");
        let mut config = world.kms(&world.moto.key());
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.proxy.calls();
        config.region = Some("eu-west-1".into());
        let why = assert_wrong(open(&config, &data_dir, &node_id), "another region");
        assert!(why.contains("is in region eu-central-1, and the signer asks in eu-west-1"), "{why}");
        assert!(world.proxy.calls().is_empty());
    });
}

#[test]
fn an_imported_seed_keeps_its_node() {
    with_aws("kms::an_imported_seed_keeps_its_node", |world| {
        let config = CustodyConfig::AwsKms(world.kms(&world.moto.key()));
        let (data_dir, seed) = (world.directory("data"), Seed::new([7; 32]));
        let made = custody::import(&config, NETWORK, &data_dir, seed.clone()).unwrap();
        let node_id = made.identity().public_key();
        let opened = custody::open(&config, NETWORK, &data_dir, &node_id).unwrap();
        assert_eq!(*opened.unseal().unwrap(), *seed);
        assert_wrong(custody::import(&config, NETWORK, &data_dir, seed.clone()), "a second import");
        assert_wrong(custody::init(&config, NETWORK, &data_dir), "an init after an import");
        // The same seed for another network is sealed for that network.
        let other = world.directory("other");
        custody::import(&config, Network::Signet, &other, seed).unwrap();
        assert_wrong(custody::open(&config, NETWORK, &other, &node_id), "another network's");
    });
}
