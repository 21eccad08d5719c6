//! The wallet with the signer behind it: what funds channels and bumps fees.

use std::sync::Arc;

use bitcoin::{Psbt, ScriptBuf, Transaction};
use holdfast_proto::error::Error;
use holdfast_signer_client::{DestinationSource, RemoteKeys};
use lightning::{
    events::bump_transaction::{Utxo, sync::WalletSourceSync},
    ln::script::ShutdownScript,
    sign::ChangeDestinationSourceSync,
};

use crate::chain::{Destinations, Wallet};

/// Chooses coins here and has them signed there.
pub struct SigningWallet {
    wallet: Arc<Wallet>,
    keys: Arc<RemoteKeys>,
}

impl SigningWallet {
    pub fn new(wallet: Arc<Wallet>, keys: Arc<RemoteKeys>) -> Self {
        Self { wallet, keys }
    }

    /// Has the signer sign what is ours of a transaction. Blocks while the signer is away; the error is its refusal.
    pub fn sign(&self, mut psbt: Psbt) -> Result<Transaction, Error> {
        let internal = |e: crate::chain::wallet::WalletError| Error::Internal(e.to_string());
        self.wallet.describe_inputs(&mut psbt).map_err(internal)?;
        let signed = self.keys.sign_wallet_psbt(&psbt)?;
        self.wallet.extract(signed).map_err(internal)
    }
}

impl WalletSourceSync for SigningWallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        Ok(self.wallet.confirmed_coins())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.wallet.own_script())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        let signed =
            self.sign(psbt).map_err(|error| tracing::error!(%error, "cannot sign a fee-bumping transaction"))?;
        self.wallet.keep_for_bumping(&signed);
        Ok(signed)
    }
}

impl ChangeDestinationSourceSync for Wallet {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.own_script())
    }
}

/// Money that leaves a channel lands in the wallet.
impl DestinationSource for Destinations {
    fn destination_script(&self, _: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.script().ok_or(())
    }

    fn shutdown_script(&self) -> Result<ShutdownScript, ()> {
        // The wallet's scripts are P2WPKH, which every peer must accept (BOLT 2).
        self.script().and_then(|script| ShutdownScript::try_from(script).ok()).ok_or(())
    }
}
