//! `holdfast-signer import`: the keys of a node that ran on LDK elsewhere.

use std::path::PathBuf;

use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{
    config::SignerConfig,
    custody::{
        NodeIdentity,
        origin::{Origin, OriginError},
    },
    keys::SeedIdentity,
};

use super::{
    Exit, Failure,
    confirm::confirm,
    establish::{establish_with, refuse_existing},
};

/// The seed moves; the channels do not. Close them first: their state stays with the program that opened them, and a
/// signer without records of them refuses to go on with them, and to force-close them.
#[derive(clap::Args)]
#[command(after_help = "\
Example, for a node that ran on ldk-node with a mnemonic:
  holdfast-signer import --config signer.toml --mnemonic-file words.txt
  holdfast-signer import --config signer.toml --mnemonic-file words.txt --expect-node-id 02ab...

The first prints the node id and makes nothing; the second makes the node if the id fits. The files have to be
readable by you alone (chmod 600). Read docs/custody/keys.md before you import a node that has channels.")]
pub struct Args {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    origin: OriginArgs,
    /// The passphrase of the mnemonic, if it has one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ldk_seed_file", "ldk_node_seed_file"])]
    mnemonic_passphrase_file: Option<PathBuf>,
    /// The node that you mean; without it the node id is printed and nothing is made
    #[arg(long, value_name = "ID")]
    expect_node_id: Option<PublicKey>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct OriginArgs {
    /// 32 bytes, as LDK's KeysManager takes them: binary, or hexadecimal digits
    #[arg(long, value_name = "FILE")]
    ldk_seed_file: Option<PathBuf>,
    /// ldk-node's keys_seed, 64 bytes: binary, or hexadecimal digits
    #[arg(long, value_name = "FILE")]
    ldk_node_seed_file: Option<PathBuf>,
    /// A BIP 39 mnemonic (English), as ldk-node takes it
    #[arg(long, value_name = "FILE")]
    mnemonic_file: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = SignerConfig::load(&args.config)?;
    refuse_existing(&config)?;
    let OriginArgs { ldk_seed_file, ldk_node_seed_file, mnemonic_file } = args.origin;
    let passphrase = args.mnemonic_passphrase_file;
    let origin = ldk_seed_file
        .map(Origin::Ldk)
        .or(ldk_node_seed_file.map(Origin::LdkNode))
        .or(mnemonic_file.map(|words| Origin::Mnemonic { words, passphrase }))
        .ok_or_else(|| Failure::new(Exit::Usage, "one of the three files is needed"))?;
    let seed = origin.read()?;
    let found = SeedIdentity::new(&seed)?.public_key();
    confirm(&found, config.network, args.expect_node_id.as_ref())?;
    let id = establish_with(&config, &seed)?;
    println!("{id}");
    Ok(())
}

impl From<OriginError> for Failure {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Read(error) => Self::of_input(error),
            OriginError::Content { .. } => Self::new(Exit::DataError, error),
        }
    }
}
