//! What is the same for every call: who may ask, how long it took, what the audit log says.

use std::{fmt, sync::PoisonError, time::Instant};

use bitcoin::Txid;
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::{ChannelRef, CommitmentNumber},
    outage::Outage,
};

use super::SignerCore;
use crate::{
    harden::memory::on_clean_stack,
    rules::{Call, Rule, authorise},
};

/// What a call is about, for the audit log. Filled in as it becomes known.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) channel: Option<[u8; 32]>,
    pub(super) number: Option<u64>,
    pub(super) term: Option<u64>,
    /// Where value goes: what it says is on the chain, or in the replica's log.
    pub(super) transaction: Option<Txid>,
}

impl Subject {
    pub(super) fn channel(&mut self, channel: &ChannelRef) {
        self.channel = Some(channel.keys_id);
    }

    pub(super) fn commitment(&mut self, channel: &ChannelRef, number: CommitmentNumber) {
        self.channel(channel);
        self.number = Some(number.get());
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(term) = self.term {
            write!(f, "term {term}")?;
        }
        if let Some(channel) = self.channel {
            write!(f, "channel {}", hex::encode(channel))?;
        }
        if let Some(number) = self.number {
            write!(f, " commitment {number}")?;
        }
        if let Some(transaction) = self.transaction {
            write!(f, " transaction {transaction}")?;
        }
        Ok(())
    }
}

impl SignerCore {
    /// Authorises, answers, counts, and writes the audit line of a call that changes or signs something, or is refused.
    pub(super) fn answer<T>(
        &self,
        caller: &Identity,
        call: Call,
        answer: impl FnOnce(&mut Subject) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let mut subject = Subject::default();
        let result = match authorise(caller, call) {
            // Keys are derived in it, and nowhere else.
            Ok(()) => on_clean_stack(|| answer(&mut subject)),
            Err(refusal) => Err(refusal.into()),
        };
        self.metrics.answered(call, started.elapsed());
        match &result {
            Ok(_) => {
                if audited(call) {
                    tracing::info!(target: "audit", call = call.name(), %caller, %subject, "done");
                }
            }
            Err(Error::Refused { rule, why }) => {
                self.metrics.refused(rule);
                tracing::warn!(target: "audit", call = call.name(), %caller, %subject, rule, why, "refused");
            }
            Err(Error::StaleTerm { newest }) => {
                let rule = Rule::Term.name();
                self.metrics.refused(rule);
                tracing::warn!(target: "audit", call = call.name(), %caller, %subject, rule, newest, "refused");
            }
            Err(error @ Error::Misuse { .. }) => {
                tracing::warn!(call = call.name(), %caller, %subject, %error, "not answered");
            }
            Err(error) => {
                self.doubt_custody();
                // Replicas ask again twice a second for as long as it lasts.
                match self.failing(call, Outage::failed) {
                    true => tracing::warn!(call = call.name(), %caller, %subject, %error, "not answered"),
                    false => tracing::debug!(call = call.name(), %caller, %subject, %error, "not answered"),
                }
            }
        }
        if result.is_ok()
            && let Some(lasted) = self.failing(call, Outage::over)
        {
            tracing::info!(call = call.name(), lasted_ms = lasted.as_millis() as u64, "answered again");
        }
        result
    }

    fn failing<T>(&self, call: Call, then: impl FnOnce(&Outage) -> T) -> T {
        then(self.failing.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default())
    }
}

/// Calls whose answers move money, end a state or hand over a secret. What is asked a hundred times a second and
/// binds nothing (ECDH, points, gossip) leaves only its count.
fn audited(call: Call) -> bool {
    match call {
        Call::GetNodeInfo
        | Call::Ecdh
        | Call::SignGossip
        | Call::GetChannelPublicKeys
        | Call::GetPerCommitmentPoints
        | Call::GetStatus
        | Call::GetChannelState => false,
        Call::GetReplicaSecrets
        | Call::AnnounceTerm
        | Call::SignInvoice
        | Call::SignMessage
        | Call::RegisterFunding
        | Call::SignCounterpartyCommitment
        | Call::ValidateHolderCommitment
        | Call::ReleaseCommitmentSecret
        | Call::ValidateCounterpartyRevocation
        | Call::SignHolderCommitment
        | Call::SignHolderHtlc
        | Call::SignCounterpartyHtlc
        | Call::SignJustice
        | Call::SignHolderAnchor
        | Call::SignClosing
        | Call::SignChannelAnnouncement
        | Call::SignSpliceInput
        | Call::SignSpendableOutputs
        | Call::SignWalletPsbt => true,
    }
}
