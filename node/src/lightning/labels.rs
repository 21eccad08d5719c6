//! Names that operators give to addresses, transactions and coins (BIP 329), in the key-value space.

use std::sync::Arc;

use holdfast_proto::error::Error;
use lightning::util::persist::KVStoreSync;

use super::{BufferedKv, CommitQueue};
use crate::{
    chain::wallet::TellDeposit,
    store::{Effect, batch::Deposit},
};

const NAMESPACE: &str = "labels";
/// As much as BIP 329 has wallets accept.
const LONGEST: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Address,
    Transaction,
    Output,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Address, Self::Transaction, Self::Output];

    /// BIP 329's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "addr",
            Self::Transaction => "tx",
            Self::Output => "output",
        }
    }
}

/// A label that may be kept.
pub fn check(label: &str) -> Result<&str, Error> {
    if label.len() > LONGEST {
        return Err(Error::misuse("label", format!("is longer than {LONGEST} bytes")));
    }
    if label.chars().any(char::is_control) {
        return Err(Error::misuse("label", "holds a control character"));
    }
    Ok(label)
}

pub fn get(kv: &impl KVStoreSync, kind: Kind, reference: &str) -> Option<String> {
    let bytes = kv.read(NAMESPACE, kind.name(), reference).ok()?;
    String::from_utf8(bytes).ok()
}

/// An empty label removes.
pub fn set(kv: &impl KVStoreSync, kind: Kind, reference: &str, label: &str) -> Result<(), Error> {
    let done = match label {
        "" => kv.remove(NAMESPACE, kind.name(), reference, false),
        label => kv.write(NAMESPACE, kind.name(), reference, label.as_bytes().to_vec()),
    };
    done.map_err(|error| Error::Internal(error.to_string()))
}

pub fn all(kv: &impl KVStoreSync) -> Vec<(Kind, String, String)> {
    let of_kind = |kind: Kind| {
        let keys = kv.list(NAMESPACE, kind.name()).unwrap_or_default();
        keys.into_iter().filter_map(move |key| get(kv, kind, &key).map(|label| (kind, key, label)))
    };
    Kind::ALL.into_iter().flat_map(of_kind).collect()
}

/// Pushes deposits onto the commit buffer, with the labels of their addresses.
pub fn teller(queue: &Arc<CommitQueue>, kv: &Arc<BufferedKv>) -> Box<TellDeposit> {
    let (queue, kv) = (queue.clone(), kv.clone());
    Box::new(move |deposit| {
        let label = get(&*kv, Kind::Address, &deposit.address);
        queue.effect(Effect::Deposit(Deposit { label, ..deposit }));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_by_kind_replaced_and_removed() {
        let kv = BufferedKv::new(Arc::default(), []);
        set(&kv, Kind::Address, "x", "rent").unwrap();
        set(&kv, Kind::Transaction, "x", "paid").unwrap();
        set(&kv, Kind::Address, "x", "the rent").unwrap();
        assert_eq!(get(&kv, Kind::Address, "x").as_deref(), Some("the rent"));
        assert_eq!(get(&kv, Kind::Output, "x"), None);
        assert_eq!(all(&kv).len(), 2);
        set(&kv, Kind::Address, "x", "").unwrap();
        assert_eq!(all(&kv), [(Kind::Transaction, "x".to_owned(), "paid".to_owned())]);
    }

    #[test]
    fn a_label_is_short_and_one_line() {
        assert!(check(&"x".repeat(255)).is_ok() && check("").is_ok());
        assert!(check(&"x".repeat(256)).is_err() && check("a\nb").is_err());
    }
}
