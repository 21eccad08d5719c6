//! A node that ran on ldk-node keeps its id when its keys move into the signer. One id of two programs means one seed, and so
//! one set of channel keys: that those are `KeysManager`'s is proved beside them, in the signer.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use holdfast_local::{process::Launch, programs::Programs};
use ldk_node::{Builder, bip39::Mnemonic, bitcoin::Network};

const WORDS: &str = "scheme spot photo card baby mountain device kick cradle pact join borrow";

#[test]
fn an_ldk_node_keeps_its_id_when_its_keys_are_imported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let words: Mnemonic = WORDS.parse().context("the words")?;
    write_private(&folder.path().join("words"), WORDS.as_bytes())?;
    write_private(&folder.path().join("passphrase"), "ein größeres Paßwort\n".as_bytes())?;

    for (name, network, passphrase) in [
        ("bare", Network::Regtest, None),
        ("with", Network::Regtest, Some("ein größeres Paßwort")),
        ("main", Network::Bitcoin, None),
    ] {
        let theirs = ldk_node(&folder.path().join(name), network, |builder| {
            builder.set_entropy_bip39_mnemonic(words.clone(), passphrase.map(Into::into));
        })?;
        let mut origin = vec!["--mnemonic-file", "words"];
        if passphrase.is_some() {
            origin.extend(["--mnemonic-passphrase-file", "passphrase"]);
        }
        let ours = imported(folder.path(), name, network, &origin, &theirs)?;
        ensure!(ours == theirs, "{name}: {ours} instead of {theirs}");
    }

    // The file of a node that made its own seed.
    let theirs = ldk_node(&folder.path().join("own"), Network::Regtest, |_| {})?;
    let seed = fs::read(folder.path().join("own/keys_seed")).context("keys_seed")?;
    write_private(&folder.path().join("keys_seed"), &seed)?;
    let ours = imported(folder.path(), "own", Network::Regtest, &["--ldk-node-seed-file", "keys_seed"], &theirs)?;
    ensure!(ours == theirs, "keys_seed: {ours} instead of {theirs}");
    Ok(())
}

/// The id of a real ldk-node, which is built and never started.
fn ldk_node(storage: &Path, network: Network, entropy: impl FnOnce(&mut Builder)) -> Result<String> {
    let mut builder = Builder::new();
    builder.set_network(network);
    builder.set_storage_dir_path(storage.display().to_string());
    entropy(&mut builder);
    Ok(builder.build().context("building an ldk-node")?.node_id().to_string())
}

/// What `holdfast-signer import` prints, once it was told which id to expect.
fn imported(folder: &Path, name: &str, network: Network, origin: &[&str], expect: &str) -> Result<String> {
    let config = folder.join(format!("{name}.toml"));
    write_private(&folder.join("signer.pass"), b"correct horse\n")?;
    let text = format!(
        "network = \"{network}\"\ndata_dir = \"signer-{name}\"\nlisten = \"127.0.0.1:0\"\n\
         [tls]\ncertificate = \"none\"\nkey = \"none\"\nca = \"none\"\n\
         [custody]\nbackend = \"file\"\n[custody.file]\npath = \"signer-{name}/seed.sealed\"\npassphrase_file = \"signer.pass\"\n"
    );
    fs::write(&config, text)?;
    let config = config.display().to_string();
    let place = |word: &str| match word.starts_with("--") {
        true => word.to_owned(),
        false => folder.join(word).display().to_string(),
    };
    let mut args =
        vec!["import".to_owned(), "--config".into(), config.clone(), "--expect-node-id".into(), expect.into()];
    args.extend(origin.iter().map(|word| place(word)));
    let signer = Programs::find()?.signer;
    let printed = Launch::new(&signer, args).run().context("import")?;
    Launch::new(&signer, ["check", "--config", &config]).run().context("check")?;
    Ok(printed.trim().to_owned())
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content)?)
}
