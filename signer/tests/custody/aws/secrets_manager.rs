//! What is particular to Secrets Manager.

use std::{fs, path::Path, sync::Arc, time::Duration};

use aws_sdk_secretsmanager::primitives::Blob;
use bitcoin::{Network, secp256k1::PublicKey};
use holdfast_signer::{
    config::{AwsSecretsManagerCustody, CustodyConfig},
    custody::{self, Custody, CustodyError, NodeIdentity, Seed},
    keys::SeedIdentity,
};

use crate::{
    moto::Moto,
    proxy::Fault,
    suite::{NETWORK, Subject, assert_unavailable, assert_wrong, conforms},
    world::with_aws,
};

type Opened = Result<Arc<dyn Custody>, CustodyError>;

fn init(config: &AwsSecretsManagerCustody, data_dir: &Path) -> Opened {
    custody::init(&CustodyConfig::AwsSecretsManager(config.clone()), NETWORK, data_dir)
}

fn import(config: &AwsSecretsManagerCustody, data_dir: &Path, seed: &Seed) -> Opened {
    custody::import(&CustodyConfig::AwsSecretsManager(config.clone()), NETWORK, data_dir, seed.clone())
}

fn open(config: &AwsSecretsManagerCustody, data_dir: &Path, node_id: &PublicKey) -> Opened {
    custody::open(&CustodyConfig::AwsSecretsManager(config.clone()), NETWORK, data_dir, node_id)
}

fn node_of(seed: &Seed) -> PublicKey {
    SeedIdentity::new(seed).unwrap().public_key()
}

fn pinned(data_dir: &Path) -> String {
    fs::read_to_string(data_dir.join("secret.pinned")).unwrap()
}

/// What an administrator does to secrets.
impl Moto {
    /// The ARN and the version.
    fn secret_text(&self, name: &str, text: &str) -> (String, String) {
        let made = self.block_on(self.secrets_manager().create_secret().name(name).secret_string(text).send()).unwrap();
        (made.arn.unwrap(), made.version_id.unwrap())
    }

    fn secret_bytes(&self, name: &str, bytes: &[u8]) {
        let request = self.secrets_manager().create_secret().name(name).secret_binary(Blob::new(bytes));
        self.block_on(request.send()).unwrap();
    }

    fn put(&self, name: &str, text: &str) -> String {
        let put = self.secrets_manager().put_secret_value().secret_id(name).secret_string(text);
        self.block_on(put.send()).unwrap().version_id.unwrap()
    }

    fn versions(&self, name: &str) -> usize {
        let described = self.block_on(self.secrets_manager().describe_secret().secret_id(name).send()).unwrap();
        described.version_ids_to_stages.unwrap_or_default().len()
    }
}

#[test]
fn the_secrets_manager_backend_conforms() {
    with_aws("secrets_manager::the_secrets_manager_backend_conforms", |world| {
        let (loses, restores) = (world.moto.clone(), world.moto.clone());
        let subject = Subject {
            config: CustodyConfig::AwsSecretsManager(world.secret("holdfast/seed")),
            data_dir: world.directory("data"),
            sealed: None,
            lose: Box::new(move || {
                loses.block_on(loses.secrets_manager().delete_secret().secret_id("holdfast/seed").send()).unwrap();
            }),
            restore: Box::new(move || {
                let request = restores.secrets_manager().restore_secret().secret_id("holdfast/seed");
                restores.block_on(request.send()).unwrap();
            }),
        };
        conforms(&subject, 1_000);
    });
}

#[test]
fn a_running_signer_reads_the_secret_once_and_does_nothing_else() {
    with_aws("secrets_manager::a_running_signer_reads_the_secret_once_and_does_nothing_else", |world| {
        let (config, data_dir) = (world.secret("holdfast/seed"), world.directory("data"));
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        assert_eq!(world.proxy.names(), ["DescribeSecret", "CreateSecret", "PutSecretValue", "GetSecretValue"]);
        let opened = open(&config, &data_dir, &node_id).unwrap();
        opened.self_test().unwrap();
        opened.unseal().unwrap();
        assert_eq!(world.proxy.names(), ["GetSecretValue"]);
    });
}

#[test]
fn secrets_of_every_form_are_read_by_name_and_by_arn() {
    with_aws("secrets_manager::secrets_of_every_form_are_read_by_name_and_by_arn", |world| {
        let seed = Seed::new(std::array::from_fn(|i| i as u8));
        let (node_id, digits) = (node_of(&seed), hex::encode(*seed));
        let document =
            format!("{{\"version\": 1, \"network\": \"regtest\", \"node_id\": \"{node_id}\", \"seed\": \"{digits}\"}}");
        world.moto.secret_bytes("bytes", seed.as_slice());
        world.moto.secret_bytes("bytes-of-digits", format!("{digits}\n").as_bytes());
        world.moto.secret_text("digits", &digits);
        world.moto.secret_text("fields", &format!("{{\"seed\":\"{digits}\"}}"));
        let (arn, version) = world.moto.secret_text("document", &document);
        for name in ["bytes", "bytes-of-digits", "digits", "fields", "document", &arn] {
            let data_dir = world.directory(&hex::encode(name));
            let opened = open(&world.secret(name), &data_dir, &node_id).unwrap();
            assert_eq!(*opened.unseal().unwrap(), *seed, "{name}");
            let text = pinned(&data_dir);
            assert!(text.contains("version_id") && !text.contains(&digits), "{text}");
        }
        let text = pinned(&world.directory(&hex::encode("document")));
        assert!(text.contains(&arn) && text.contains(&version), "{text}");
    });
}

#[test]
fn what_is_no_seed_of_this_node_is_refused_and_not_quoted() {
    with_aws("secrets_manager::what_is_no_seed_of_this_node_is_refused_and_not_quoted", |world| {
        let seed = Seed::new([0xab; 32]);
        let (node_id, digits) = (node_of(&seed), hex::encode(*seed));
        let other = node_of(&Seed::new([1; 32]));
        let cases = [
            ("short", digits[2..].to_owned(), "holds neither 32 bytes"),
            ("words", "abandon abandon about".to_owned(), "holds neither 32 bytes"),
            ("field", format!("{{\"sed\":\"{digits}\"}}"), "its document is wrong at line 1"),
            ("net", format!("{{\"network\":\"signet\",\"seed\":\"{digits}\"}}"), "is for network signet, not regtest"),
            ("node", format!("{{\"node_id\":\"{other}\",\"seed\":\"{digits}\"}}"), "belongs to node"),
            ("seed", hex::encode([1; 32]), "gives node id"),
        ];
        for (name, text, says) in cases {
            let (arn, version) = world.moto.secret_text(name, &text);
            let data_dir = world.directory(name);
            let why = assert_wrong(open(&world.secret(name), &data_dir, &node_id), name);
            assert!(why.contains(says) && why.contains(&arn) && why.contains(&version), "{why}");
            assert!(!why.contains(&digits[..16]) && !why.contains("abandon"), "{why}");
            assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 0, "nothing is pinned");
        }
    });
}

/// A new current version counts only when it gives the same node, and is then the one that is recorded.
#[test]
fn a_version_is_pinned() {
    with_aws("secrets_manager::a_version_is_pinned", |world| {
        let (config, data_dir) = (world.secret("holdfast/seed"), world.directory("data"));
        let made = init(&config, &data_dir).unwrap();
        let (node_id, seed) = (made.identity().public_key(), made.unseal().unwrap());
        let first = pinned(&data_dir);

        // The same seed in another form.
        let second = world.moto.put("holdfast/seed", &hex::encode(*seed));
        assert!(!first.contains(&second));
        open(&config, &data_dir, &node_id).unwrap();
        let after = pinned(&data_dir);
        assert!(after.contains(&second), "{after}");

        // Another seed, as a careless rotation would write it: refused, with the way back.
        let third = world.moto.put("holdfast/seed", &hex::encode([3; 32]));
        let why = assert_wrong(open(&config, &data_dir, &node_id), "another seed");
        assert!(why.contains(&third) && why.contains("make it current again") && why.contains(&second), "{why}");
        assert_eq!(pinned(&data_dir), after);

        // Made current again; moto only knows new versions as current ones.
        let fourth = world.moto.put("holdfast/seed", &hex::encode(*seed));
        open(&config, &data_dir, &node_id).unwrap();
        let after = pinned(&data_dir);
        assert!(after.contains(&fourth), "{after}");

        // A pin that says another node or network, or nothing that is understood.
        for (from, to) in [(node_id.to_string(), node_of(&seed_of(9)).to_string()), ("regtest".into(), "signet".into())]
        {
            fs::write(data_dir.join("secret.pinned"), after.replace(&from, &to)).unwrap();
            assert_wrong(open(&config, &data_dir, &node_id), &to);
        }
        fs::write(data_dir.join("secret.pinned"), "x").unwrap();
        assert_wrong(open(&config, &data_dir, &node_id), "a broken pin");
    });
}

fn seed_of(byte: u8) -> Seed {
    Seed::new([byte; 32])
}

/// P8: a secret that is there is never written to, and one that is not is never made but by init.
#[test]
fn init_writes_only_where_nothing_is() {
    with_aws("secrets_manager::init_writes_only_where_nothing_is", |world| {
        let seed = seed_of(5);
        world.moto.secret_text("taken", &hex::encode(*seed));
        let data_dir = world.directory("refused");
        let why = assert_wrong(init(&world.secret("taken"), &data_dir), "a secret with a value");
        assert!(why.contains("already holds a value"), "{why}");
        assert_eq!((world.moto.versions("taken"), fs::read_dir(&data_dir).unwrap().count()), (1, 0));

        // Made without a value, by whoever manages the account.
        for (name, by_arn) in [("empty-one", false), ("empty-two", true)] {
            let made = world.moto.block_on(world.moto.secrets_manager().create_secret().name(name).send()).unwrap();
            let config = world.secret(if by_arn { made.arn.as_ref().unwrap() } else { name });
            let data_dir = world.directory(name);
            let node_id = init(&config, &data_dir).unwrap().identity().public_key();
            open(&config, &data_dir, &node_id).unwrap();
            assert_wrong(init(&config, &world.directory("again")), "a second init elsewhere");
            assert_eq!(world.moto.versions(name), 1);
        }

        world.proxy.calls();
        let why = assert_unavailable(open(&world.secret("none"), &data_dir, &node_of(&seed)), "no secret");
        assert!(why.contains("secret none is not found"), "{why}");
        assert_eq!(world.proxy.names(), ["GetSecretValue"]);

        world.moto.block_on(world.moto.secrets_manager().delete_secret().secret_id("taken").send()).unwrap();
        let why = assert_unavailable(open(&world.secret("taken"), &data_dir, &node_of(&seed)), "a deleted secret");
        assert!(why.contains("restore-secret"), "{why}");
    });
}

/// Credentials of whoever answers the metadata endpoint lead to his account: what is written there is an empty secret.
#[test]
fn no_other_account_is_given_a_seed() {
    with_aws("secrets_manager::no_other_account_is_given_a_seed", |world| {
        let data_dir = world.directory("data");
        let unnamed = AwsSecretsManagerCustody { account: None, ..world.secret("unnamed") };
        let why = assert_wrong(import(&unnamed, &data_dir, &seed_of(8)), "no account");
        assert!(why.contains("account = "), "{why}");
        assert_eq!(world.proxy.names(), [""; 0]);

        // One that is not there, and one that he made ready.
        world.moto.block_on(world.moto.secrets_manager().create_secret().name("ready").send()).unwrap();
        for (name, calls) in [("none", &["DescribeSecret", "CreateSecret"][..]), ("ready", &["DescribeSecret"])] {
            let ours = Some("999999999999".to_owned().try_into().unwrap());
            let config = AwsSecretsManagerCustody { account: ours, ..world.secret(name) };
            let why = assert_wrong(import(&config, &data_dir, &seed_of(8)), name);
            assert!(why.contains("not in account 999999999999"), "{why}");
            assert_eq!(world.proxy.names(), calls);
            assert_eq!((world.moto.versions(name), fs::read_dir(&data_dir).unwrap().count()), (0, 0), "{name}");
        }
    });
}

#[test]
fn an_imported_seed_keeps_its_node_and_a_secret_that_holds_it_is_taken_as_it_is() {
    let name = "secrets_manager::an_imported_seed_keeps_its_node_and_a_secret_that_holds_it_is_taken_as_it_is";
    with_aws(name, |world| {
        let seed = seed_of(6);
        let (config, data_dir) = (world.secret("holdfast/seed"), world.directory("data"));
        import(&config, &data_dir, &seed).unwrap();
        let opened = open(&config, &data_dir, &node_of(&seed)).unwrap();
        assert_eq!(*opened.unseal().unwrap(), *seed);
        assert_wrong(import(&config, &data_dir, &seed), "a second import");

        world.proxy.calls();
        let elsewhere = world.directory("elsewhere");
        import(&config, &elsewhere, &seed).unwrap();
        assert!(!world.proxy.names().contains(&"PutSecretValue".to_owned()));
        assert_eq!((world.moto.versions("holdfast/seed"), pinned(&elsewhere)), (1, pinned(&data_dir)));
        let why = assert_wrong(import(&config, &world.directory("third"), &seed_of(7)), "another seed");
        assert!(why.contains("belongs to node"), "{why}");
        assert_eq!(world.moto.versions("holdfast/seed"), 1);
    });
}

#[test]
fn a_secret_is_encrypted_by_the_key_that_is_named() {
    with_aws("secrets_manager::a_secret_is_encrypted_by_the_key_that_is_named", |world| {
        let (key, data_dir) = (world.moto.key(), world.directory("data"));
        let mut config = world.secret("holdfast/seed");
        config.kms_key = Some(key.clone().try_into().unwrap());
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        let describe = world.moto.secrets_manager().describe_secret().secret_id("holdfast/seed").send();
        assert_eq!(world.moto.block_on(describe).unwrap().kms_key_id, Some(key));
        open(&config, &data_dir, &node_id).unwrap();
    });
}

#[test]
fn what_secrets_manager_refuses_is_told_clearly() {
    with_aws("secrets_manager::what_secrets_manager_refuses_is_told_clearly", |world| {
        let (mut config, data_dir) = (world.secret("holdfast/seed"), world.directory("data"));
        let node_id = init(&config, &data_dir).unwrap().identity().public_key();
        world.proxy.calls();
        let ask = |code, message, says: &str| {
            world.proxy.fail_always(Fault::Answer { status: 400, code, message });
            let refusal = open(&config, &data_dir, &node_id).map(|_| ()).unwrap_err();
            world.proxy.heal();
            assert!(refusal.to_string().contains(says), "{code}: {refusal}");
            assert_eq!(world.proxy.names(), ["GetSecretValue"], "{code}");
            refusal
        };
        for (code, message, says) in [
            ("ResourceNotFoundException", "Secrets Manager can't find the specified secret.", "is not found"),
            (
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for \
              deletion.",
                "restore-secret",
            ),
            ("DecryptionFailure", "Secrets Manager can't decrypt", "not decrypted by its KMS key"),
            ("AccessDeniedException", "User: u is not authorized", "needs secretsmanager:GetSecretValue"),
            ("AccessDeniedException", "Access to KMS is not allowed", "needs kms:Decrypt"),
        ] {
            assert!(matches!(ask(code, message, says), CustodyError::Unavailable(_)), "{code}");
        }
        let unknown = ask("InvalidParameterException", "what", "InvalidParameterException what");
        assert!(matches!(unknown, CustodyError::Wrong(_)), "{unknown}");
        // Throttled, then not; and for ever.
        let throttled = Fault::Answer { status: 400, code: "ThrottlingException", message: "Rate exceeded" };
        world.proxy.fail(3, throttled.clone());
        open(&config, &data_dir, &node_id).unwrap();
        assert_eq!(world.proxy.names().len(), 4);
        config.timeout = Duration::from_millis(1_500);
        world.proxy.fail_always(throttled);
        let why = assert_unavailable(open(&config, &data_dir, &node_id), "throttled");
        assert!(why.contains("AWS Secrets Manager gave no answer within 1500 ms; the last try failed"), "{why}");
    });
}

#[test]
fn a_secret_that_is_written_and_not_read_back_says_so() {
    with_aws("secrets_manager::a_secret_that_is_written_and_not_read_back_says_so", |world| {
        let (config, data_dir) = (world.secret("holdfast/seed"), world.directory("data"));
        world.proxy.fail(3, Fault::Changed { field: "VersionId", value: "00000000-0000-4000-8000-000000000000" });
        let why = assert_unavailable(init(&config, &data_dir), "another version");
        assert!(why.contains("was written and could not be read back"), "{why}");
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 0);
        let other = CustodyConfig::AwsSecretsManager(config);
        assert_wrong(custody::init(&other, Network::Signet, &data_dir), "init never replaces");
    });
}
