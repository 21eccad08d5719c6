//! The on-chain wallet: BIP 84, account 0. The replica watches it through an xpub; the keys stay here.

use bitcoin::{
    Amount, EcdsaSighashType, Network, NetworkKind, Psbt, Script, TxOut,
    bip32::{ChildNumber, DerivationPath, Fingerprint, Xpub},
    ecdsa,
    secp256k1::Message,
    sighash::SighashCache,
};
use holdfast_proto::error::Error;

use super::{
    Secret,
    derive::p2wpkh,
    own_scripts::OwnScripts,
    secp,
    secret::{ExtendedSecret, LockedExtended},
    sign::sign,
};
use crate::harden::memory::MemoryError;
use crate::rules::{Spend, SpentCoin};

pub struct Wallet {
    fingerprint: Fingerprint,
    origin: DerivationPath,
    account: LockedExtended,
    account_public: Xpub,
    own: OwnScripts,
}

impl Wallet {
    pub(super) fn new(master: &ExtendedSecret, network: Network) -> Result<Self, MemoryError> {
        let coin = match NetworkKind::from(network) {
            NetworkKind::Main => 0,
            NetworkKind::Test => 1,
        };
        let path = [84, coin, 0].map(|index| ChildNumber::Hardened { index });
        let mut account = master.hardened(84);
        for child in &path[1..] {
            account = account.child(*child);
        }
        let account_public = Xpub::from_priv(secp(), account.expose());
        Ok(Self {
            fingerprint: master.expose().fingerprint(secp()),
            origin: path.to_vec().into(),
            own: OwnScripts::new(&account_public),
            account_public,
            account: account.lock()?,
        })
    }

    /// Whether a script is that of one of the wallet's addresses, within a window that no wallet uses up.
    pub fn owns(&self, script: &Script) -> bool {
        self.own.contains(script)
    }

    /// Watch-only descriptor of the addresses that are given out.
    pub fn descriptor(&self) -> String {
        self.branch(0)
    }

    /// Watch-only descriptor of change.
    pub fn change_descriptor(&self) -> String {
        self.branch(1)
    }

    fn branch(&self, branch: u32) -> String {
        format!("wpkh([{}/{}]{}/{branch}/*)", self.fingerprint, self.origin, self.account_public)
    }

    /// Adds our signature to each input that spends one of our addresses, known by its BIP 32 derivation, and returns
    /// how many it added. Inputs of others are left alone.
    pub fn sign(&self, psbt: &mut Psbt) -> Result<usize, Error> {
        let transaction = psbt.unsigned_tx.clone();
        let mut sighashes = SighashCache::new(&transaction);
        let mut added = 0;
        for index in 0..psbt.inputs.len() {
            let field = format!("psbt.inputs[{index}]");
            let Some(key) = self.key_of(&psbt.inputs[index]) else { continue };
            let public = key.public_key();
            let output = spent_output(psbt, index, &field)?;
            if output.script_pubkey != p2wpkh(&public) {
                return Err(Error::misuse(field, "the output spent is not the P2WPKH of its derivation"));
            }
            if psbt.inputs[index].sighash_type.is_some_and(|kind| kind != EcdsaSighashType::All.into()) {
                return Err(Error::misuse(field, "only SIGHASH_ALL is signed"));
            }
            let sighash = sighashes
                .p2wpkh_signature_hash(index, &output.script_pubkey, output.value, EcdsaSighashType::All)
                .map_err(|error| Error::misuse(field, error.to_string()))?;
            let signature = sign(&Message::from(sighash), &key, &public)?;
            psbt.inputs[index].partial_sigs.insert(public.into(), ecdsa::Signature::sighash_all(signature));
            added += 1;
        }
        Ok(added)
    }

    /// What a PSBT spends and pays, for the rules.
    pub fn figures(&self, psbt: &Psbt) -> Result<Spend, Error> {
        let coin = |index: usize| {
            let input = &psbt.inputs[index];
            let known = input.witness_utxo.is_some() || input.non_witness_utxo.is_some();
            let output = known.then(|| spent_output(psbt, index, &format!("psbt.inputs[{index}]"))).transpose()?;
            Ok(SpentCoin { ours: self.key_of(input).is_some(), output, proven: input.non_witness_utxo.is_some() })
        };
        let outputs = psbt.unsigned_tx.output.iter().map(|output| output.value);
        let sum = outputs.into_iter().try_fold(Amount::ZERO, Amount::checked_add);
        Ok(Spend {
            inputs: (0..psbt.inputs.len()).map(coin).collect::<Result<_, Error>>()?,
            outputs: sum.ok_or_else(|| Error::misuse("psbt", "its outputs are worth more than there is"))?,
            weight: psbt.unsigned_tx.weight(),
        })
    }

    /// The key that the input's derivation leads to, when that is one of ours. What we sign has one key alone, so only the
    /// first derivation with our origin counts: an input may list thousands.
    fn key_of(&self, input: &bitcoin::psbt::Input) -> Option<Secret> {
        let (public, [branch, address]) = input.bip32_derivation.iter().find_map(|(public, (fingerprint, path))| {
            if *fingerprint != self.fingerprint {
                return None;
            }
            match path.as_ref().strip_prefix(self.origin.as_ref())? {
                [branch @ ChildNumber::Normal { index: 0 | 1 }, address @ ChildNumber::Normal { .. }] => {
                    Some((public, [*branch, *address]))
                }
                _ => None,
            }
        })?;
        let key = self.account.open().child(branch).child(address).secret();
        (key.public_key() == *public).then_some(key)
    }
}

/// The output that the input spends, from whichever of the two forms the PSBT gives; given both, they must agree.
fn spent_output(psbt: &Psbt, index: usize, field: &str) -> Result<TxOut, Error> {
    let outpoint = psbt.unsigned_tx.input[index].previous_output;
    let from_transaction = match &psbt.inputs[index].non_witness_utxo {
        Some(previous) if previous.compute_txid() != outpoint.txid => {
            return Err(Error::misuse(field, "non_witness_utxo is not the transaction spent"));
        }
        Some(previous) => Some(
            previous
                .output
                .get(outpoint.vout as usize)
                .ok_or_else(|| Error::misuse(field, "non_witness_utxo has no such output"))?,
        ),
        None => None,
    };
    match (from_transaction, &psbt.inputs[index].witness_utxo) {
        (Some(a), Some(b)) if a != b => Err(Error::misuse(field, "witness_utxo and non_witness_utxo differ")),
        (Some(output), _) | (None, Some(output)) => Ok(output.clone()),
        (None, None) => Err(Error::misuse(field, "does not say what it spends")),
    }
}
