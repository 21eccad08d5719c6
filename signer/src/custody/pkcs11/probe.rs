//! What the token can do, asked at every start, so that what it lacks is said then and not at the first payment.

use cryptoki::{
    mechanism::{MechanismInfo, MechanismType},
    slot::Slot,
};

use super::{error::CallError, module::Entered};
use crate::custody::sealed::{TokenCipher, TokenKeys};

/// The mechanisms of one token.
pub struct Probe {
    label: String,
    known: Vec<(MechanismType, MechanismInfo)>,
}

struct Need {
    name: &'static str,
    mechanism: MechanismType,
    can: fn(&MechanismInfo) -> bool,
}

const ECDSA: Need =
    Need { name: "CKM_ECDSA (to sign as the node)", mechanism: MechanismType::ECDSA, can: MechanismInfo::sign };
const ECDH: Need = Need {
    name: "CKM_ECDH1_DERIVE (to talk to peers as the node)",
    mechanism: MechanismType::ECDH1_DERIVE,
    can: MechanismInfo::derive,
};
const MAKE_PAIR: Need = Need {
    name: "CKM_EC_KEY_PAIR_GEN (to make the node key)",
    mechanism: MechanismType::ECC_KEY_PAIR_GEN,
    can: MechanismInfo::generate_key_pair,
};
const UNSEAL_AES: Need = Need {
    name: "CKM_AES_GCM (to unseal the seed)",
    mechanism: MechanismType::AES_GCM,
    can: |info| info.encrypt() && info.decrypt(),
};
const MAKE_AES: Need = Need {
    name: "CKM_AES_KEY_GEN (to make the sealing key)",
    mechanism: MechanismType::AES_KEY_GEN,
    can: MechanismInfo::generate,
};
const UNSEAL_ECDH: Need = Need {
    name: "CKM_ECDH1_DERIVE (to unseal the seed)",
    mechanism: MechanismType::ECDH1_DERIVE,
    can: MechanismInfo::derive,
};

/// Which kind of sealing key `init` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    AesGcm,
    Ecdh,
}

impl Probe {
    pub fn of(entered: &Entered<'_>, slot: Slot) -> Result<Self, CallError> {
        let library = &entered.library;
        let info = |mechanism| library.get_mechanism_info(slot, mechanism).ok().map(|info| (mechanism, info));
        let known = library.get_mechanism_list(slot)?.into_iter().filter_map(info).collect();
        Ok(Self { label: library.get_token_info(slot)?.label().to_owned(), known })
    }

    /// Refuses a token that cannot do what these keys are for.
    pub fn can_use(&self, keys: &TokenKeys) -> Result<(), CallError> {
        let seal = match keys.cipher {
            TokenCipher::AesGcm => &UNSEAL_AES,
            TokenCipher::Ecdh { .. } => &UNSEAL_ECDH,
        };
        let identity: &[&Need] = if keys.identity_id.is_some() { &[&ECDSA, &ECDH] } else { &[] };
        match self.lacking(identity.iter().copied().chain([seal])) {
            lacking if lacking.is_empty() => Ok(()),
            lacking => Err(CallError::refused(format!("token {} lacks {}", self.label, lacking.join(", ")))),
        }
    }

    /// The sealing key that the token can make; AES-GCM where it has that, because no plaintext key leaves it then.
    pub fn can_make(&self, identity_in_token: bool) -> Result<SealKind, CallError> {
        let (aes, ecdh) = ([&UNSEAL_AES, &MAKE_AES], [&UNSEAL_ECDH, &MAKE_PAIR]);
        let seal = match (self.lacking(aes).is_empty(), self.lacking(ecdh).is_empty()) {
            (true, _) => Some(SealKind::AesGcm),
            (false, true) => Some(SealKind::Ecdh),
            (false, false) => None,
        };
        let mut lacking = match identity_in_token {
            true => self.lacking([&ECDSA, &ECDH, &MAKE_PAIR]),
            false => vec![],
        };
        let identity_lacks = !lacking.is_empty();
        if seal.is_none() {
            lacking.push(
                "CKM_AES_GCM with CKM_AES_KEY_GEN, or CKM_ECDH1_DERIVE with CKM_EC_KEY_PAIR_GEN (to seal the seed)",
            );
        }
        match seal {
            Some(kind) if !identity_lacks => Ok(kind),
            _ => {
                let hint = match seal {
                    Some(_) => {
                        "; `init --identity sealed` keeps the node key in the sealed seed, which this token can do"
                    }
                    None => "",
                };
                Err(CallError::refused(format!("token {} lacks {}{hint}", self.label, lacking.join(", "))))
            }
        }
    }

    fn lacking<'n>(&self, needs: impl IntoIterator<Item = &'n Need>) -> Vec<&'static str> {
        let has =
            |need: &Need| self.known.iter().any(|(mechanism, info)| *mechanism == need.mechanism && (need.can)(info));
        needs.into_iter().filter(|need| !has(need)).map(|need| need.name).collect()
    }
}
