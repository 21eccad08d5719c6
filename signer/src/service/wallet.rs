//! Sweeps and the on-chain wallet.

use bitcoin::{Psbt, Transaction, consensus, policy::MAX_STANDARD_TX_WEIGHT};
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::{SpendableOutput, parse},
    signer::v1,
};

use super::SignerCore;
use crate::rules::{Call, check_wallet_spend};

impl SignerCore {
    pub fn sign_spendable_outputs(
        &self,
        caller: &Identity,
        request: v1::SignSpendableOutputsRequest,
    ) -> Result<v1::SignSpendableOutputsResponse, Error> {
        self.answer(caller, Call::SignSpendableOutputs, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let transaction = parse::transaction("transaction", &request.transaction)?;
            subject.transaction = Some(transaction.compute_txid());
            check_weight("transaction", &transaction)?;
            if request.outputs.len() > transaction.input.len() {
                return Err(Error::misuse("outputs", "are more than the transaction's inputs"));
            }
            let witnesses = request
                .outputs
                .iter()
                .enumerate()
                .map(|(i, wire)| {
                    let field = format!("outputs[{i}]");
                    let output = SpendableOutput::from_wire(&field, wire)?;
                    let witness = self.keys.sign_spendable_output(&field, &output, &transaction)?;
                    Ok(consensus::serialize(&witness))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            self.metrics.signed(witnesses.len());
            Ok(v1::SignSpendableOutputsResponse { witnesses })
        })
    }

    pub fn sign_wallet_psbt(
        &self,
        caller: &Identity,
        request: v1::SignWalletPsbtRequest,
    ) -> Result<v1::SignWalletPsbtResponse, Error> {
        self.answer(caller, Call::SignWalletPsbt, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let mut psbt =
                Psbt::deserialize(&request.psbt).map_err(|error| Error::misuse("psbt", error.to_string()))?;
            subject.transaction = Some(psbt.unsigned_tx.compute_txid());
            check_weight("psbt", &psbt.unsigned_tx)?;
            let wallet = self.keys.wallet();
            check_wallet_spend(&self.rules, &wallet.figures(&psbt)?)?;
            let signed = wallet.sign(&mut psbt)?;
            self.metrics.signed(signed);
            Ok(v1::SignWalletPsbtResponse { psbt: psbt.serialize() })
        })
    }
}

/// Each signature reads all of a transaction, and the term cannot rise meanwhile.
fn check_weight(field: &str, transaction: &Transaction) -> Result<(), Error> {
    match transaction.weight().to_wu() > u64::from(MAX_STANDARD_TX_WEIGHT) {
        true => Err(Error::misuse(field, "is heavier than what nodes relay")),
        false => Ok(()),
    }
}
