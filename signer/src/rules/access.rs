//! Who may ask what.

use holdfast_proto::identity::{Identity, Role};

use super::{Refusal, Rule};

/// Each RPC of the signer, by the name it has in metrics and the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    GetNodeInfo,
    GetReplicaSecrets,
    AnnounceTerm,
    Ecdh,
    SignInvoice,
    SignGossip,
    SignMessage,
    GetChannelPublicKeys,
    GetPerCommitmentPoints,
    RegisterFunding,
    SignCounterpartyCommitment,
    ValidateHolderCommitment,
    ReleaseCommitmentSecret,
    ValidateCounterpartyRevocation,
    SignHolderCommitment,
    SignHolderHtlc,
    SignCounterpartyHtlc,
    SignJustice,
    SignHolderAnchor,
    SignClosing,
    SignChannelAnnouncement,
    SignSpliceInput,
    SignSpendableOutputs,
    SignWalletPsbt,
    GetStatus,
    GetChannelState,
}

impl Call {
    pub const ALL: [Self; 26] = [
        Self::GetNodeInfo,
        Self::GetReplicaSecrets,
        Self::AnnounceTerm,
        Self::Ecdh,
        Self::SignInvoice,
        Self::SignGossip,
        Self::SignMessage,
        Self::GetChannelPublicKeys,
        Self::GetPerCommitmentPoints,
        Self::RegisterFunding,
        Self::SignCounterpartyCommitment,
        Self::ValidateHolderCommitment,
        Self::ReleaseCommitmentSecret,
        Self::ValidateCounterpartyRevocation,
        Self::SignHolderCommitment,
        Self::SignHolderHtlc,
        Self::SignCounterpartyHtlc,
        Self::SignJustice,
        Self::SignHolderAnchor,
        Self::SignClosing,
        Self::SignChannelAnnouncement,
        Self::SignSpliceInput,
        Self::SignSpendableOutputs,
        Self::SignWalletPsbt,
        Self::GetStatus,
        Self::GetChannelState,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::GetNodeInfo => "get-node-info",
            Self::GetReplicaSecrets => "get-replica-secrets",
            Self::AnnounceTerm => "announce-term",
            Self::Ecdh => "ecdh",
            Self::SignInvoice => "sign-invoice",
            Self::SignGossip => "sign-gossip",
            Self::SignMessage => "sign-message",
            Self::GetChannelPublicKeys => "get-channel-public-keys",
            Self::GetPerCommitmentPoints => "get-per-commitment-points",
            Self::RegisterFunding => "register-funding",
            Self::SignCounterpartyCommitment => "sign-counterparty-commitment",
            Self::ValidateHolderCommitment => "validate-holder-commitment",
            Self::ReleaseCommitmentSecret => "release-commitment-secret",
            Self::ValidateCounterpartyRevocation => "validate-counterparty-revocation",
            Self::SignHolderCommitment => "sign-holder-commitment",
            Self::SignHolderHtlc => "sign-holder-htlc",
            Self::SignCounterpartyHtlc => "sign-counterparty-htlc",
            Self::SignJustice => "sign-justice",
            Self::SignHolderAnchor => "sign-holder-anchor",
            Self::SignClosing => "sign-closing",
            Self::SignChannelAnnouncement => "sign-channel-announcement",
            Self::SignSpliceInput => "sign-splice-input",
            Self::SignSpendableOutputs => "sign-spendable-outputs",
            Self::SignWalletPsbt => "sign-wallet-psbt",
            Self::GetStatus => "get-status",
            Self::GetChannelState => "get-channel-state",
        }
    }

    /// The call whose method of the contract (`SignWalletPsbt`) this is.
    pub fn of_method(method: &str) -> Option<Self> {
        let is = |call: &Self| call.name().split('-').collect::<String>().eq_ignore_ascii_case(method);
        Self::ALL.into_iter().find(is)
    }

    /// The table: replicas may ask everything, operators may look, fronts may only do ECDH, signers nothing.
    const fn open_to(self, role: Role) -> bool {
        match role {
            Role::Replica => true,
            Role::Operator => matches!(self, Self::GetNodeInfo | Self::GetStatus | Self::GetChannelState),
            Role::Front => matches!(self, Self::Ecdh),
            Role::Signer => false,
        }
    }
}

/// `identity`.
pub fn authorise(caller: &Identity, call: Call) -> Result<(), Refusal> {
    if call.open_to(caller.role) {
        return Ok(());
    }
    Rule::Identity.refuse(format!("{} is not open to the role {}", call.name(), caller.role))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method of the contract is a call, and every call a method.
    #[test]
    fn methods_and_calls_are_the_same() {
        let contract = include_str!("../../../proto/proto/holdfast/signer/v1/signer.proto");
        let methods = contract.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let mut calls: Vec<_> =
            methods.map(|method| Call::of_method(method.trim()).unwrap_or_else(|| panic!("{method}"))).collect();
        calls.sort_unstable();
        let mut all = Call::ALL.to_vec();
        all.sort_unstable();
        assert_eq!(calls, all);
        assert_eq!(Call::of_method("SignEverything"), None);
    }

    #[test]
    fn the_table_is_the_one_that_was_promised() {
        for call in Call::ALL {
            let open: Vec<_> = Role::ALL.into_iter().filter(|role| call.open_to(*role)).collect();
            let expected = match call {
                Call::GetNodeInfo | Call::GetStatus | Call::GetChannelState => vec![Role::Replica, Role::Operator],
                Call::Ecdh => vec![Role::Replica, Role::Front],
                _ => vec![Role::Replica],
            };
            assert_eq!(open, expected, "{}", call.name());
        }
    }
}
