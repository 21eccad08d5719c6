//! The same with AWS behind it: moto, through the real SDKs.

use std::fs;

use crate::{
    moto::{ACCOUNT, Moto, REGION},
    site::{Site, stderr},
};

struct Aws {
    site: Site,
    moto: Moto,
}

impl Aws {
    fn new() -> Self {
        let mut site = Site::new();
        let home = site.path("").display().to_string();
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "administrator"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("HOME", &home),
        ] {
            site.environment.push((name.into(), value.into()));
        }
        Self { site, moto: Moto::start() }
    }

    /// `<name>.toml`: a file sealed by a key of its own.
    fn kms(&self, name: &str) {
        self.configure(name, "aws-kms", &format!("key = \"{}\"", self.moto.key()));
    }

    fn secret(&self, name: &str) {
        self.configure(name, "aws-secretsmanager", &format!("secret = \"holdfast/{name}\"\naccount = \"{ACCOUNT}\""));
    }

    fn configure(&self, name: &str, backend: &str, what: &str) {
        let custody = format!(
            "backend = \"{backend}\"\n[custody.{backend}]\n{what}\nregion = \"{REGION}\"\nendpoint = \"{}\"\n",
            self.moto.url()
        );
        self.site.configure(name, name, "regtest", &custody);
    }
}

#[test]
fn a_seed_moves_from_key_to_key_and_backend_to_backend() {
    let aws = Aws::new();
    let site = &aws.site;
    let id = site.init("file");
    let config = holdfast_signer::config::SignerConfig::load(&site.path("file.toml")).unwrap();
    let custody = holdfast_signer::custody::open(&config.custody, config.network, &config.data_dir, &id).unwrap();
    let seed = custody.unseal().unwrap();
    ["kms-a", "kms-b"].iter().for_each(|name| aws.kms(name));
    aws.secret("secret");
    site.file("last", "last", "seed");
    // A name alone does not say whose secret it is: whoever answers for credentials would say so.
    aws.configure("anyone", "aws-secretsmanager", "secret = \"holdfast/anyone\"");
    site.fails(&["rewrap", "--from", "file.toml", "--to", "anyone.toml"], 78, "account = ");
    site.fails(&["init", "--config", "anyone.toml"], 78, "account = ");
    for (from, to, retire) in [
        ("file", "kms-a", "file.pass"),
        ("kms-a", "kms-b", "KMS key"),
        ("kms-b", "secret", "KMS key"),
        ("secret", "last", "secret holdfast/secret"),
    ] {
        let moved = site.output(&["rewrap", "--from", &format!("{from}.toml"), "--to", &format!("{to}.toml")]);
        assert!(moved.status.success(), "{from} to {to}: {}", stderr(&moved));
        assert!(stderr(&moved).contains(retire), "{retire}: {}", stderr(&moved));
        fs::rename(site.path(&format!("{from}/guard.redb")), site.path(&format!("{to}/guard.redb"))).unwrap();
        site.is_node(to, &id);
        let view: serde_json::Value =
            serde_json::from_str(&site.ok(&["list", "--config", &format!("{to}.toml"), "--json"])).unwrap();
        assert_eq!(view["node_id"], id.to_string());
        if to == "secret" {
            let pinned = |what: &str| view["configured"][what].as_str().unwrap_or_default().to_owned();
            assert!(pinned("pinned_secret").contains(":secret:holdfast/secret-"), "{view}");
            assert_eq!(pinned("pinned_version").len(), 36, "{view}");
        }
    }
    assert_eq!(site.files_with(&[seed.as_slice()]), Vec::<String>::new(), "the seed in the clear");
}

#[test]
fn seeds_are_imported_and_restored_into_aws() {
    let aws = Aws::new();
    let site = &aws.site;
    let id = site.init("file").to_string();
    let shares = site.ok(&["backup", "--config", "file.toml", "--threshold", "2", "--shares", "3", "--out", "shares"]);
    let shares: Vec<_> = shares.lines().collect();
    aws.kms("kms");
    site.ok(&["restore", "--config", "kms.toml", "--expect-node-id", &id, shares[2], shares[0]]);
    site.is_node("kms", &id.parse().unwrap());

    site.secret("words", b"legal winner thank year wave sausage worth useful legal winner thank yellow");
    aws.secret("secret");
    let import = ["import", "--config", "secret.toml", "--mnemonic-file", "words"];
    let imported = crate::site::stdout(&site.fails(&import, 64, "nothing was made"));
    site.ok(&[&import[..], &["--expect-node-id", &imported]].concat());
    site.is_node("secret", &imported.parse().unwrap());
    // The secret holds a seed now, and no other is put over it.
    aws.configure("other", "aws-secretsmanager", &format!("secret = \"holdfast/secret\"\naccount = \"{ACCOUNT}\""));
    let over = site.output(&["restore", "--config", "other.toml", "--expect-node-id", &id, shares[1], shares[0]]);
    assert_eq!(over.status.code(), Some(77), "{}", stderr(&over));
    assert!(!site.path("other/guard.redb").exists() && !site.path("other/node_id").exists());
    site.is_node("secret", &imported.parse().unwrap());
}
