//! Hold invoices: paid, they wait until an operator takes the money or gives it back.
//!
//! What waits is LDK's: the HTLCs are in the committed manager, and a new leader can claim or fail them as the old one
//! could. What is kept here, in the key-value space and in the same commits, is which hashes are held, how far each is,
//! and the block height at which the node gives a payment back by itself. That height lies before LDK's own deadline,
//! which lies before the one at which a channel would have to be closed for it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lightning::{
    events::PaymentPurpose,
    types::payment::{PaymentPreimage, PaymentSecret},
    util::persist::KVStoreSync,
};
use serde::{Deserialize, Serialize};

use super::BufferedKv;
use crate::store::KvKey;

const NAMESPACE: &str = "holds";

/// Blocks before LDK's deadline at which a held payment is cancelled.
pub const MARGIN_BLOCKS: u32 = 6;

/// An ended hold is remembered until nobody can pay the invoice any more. LDK allows two hours past the expiry, and counts
/// from the newest block it ever saw, whose time may be two hours ahead of ours; one more for clocks that are wrong.
const REMEMBERED_S: u64 = 5 * 3600;

/// All hold invoices that somebody may still pay, or has paid.
pub struct Holds {
    kv: Arc<BufferedKv>,
    holds: Mutex<HashMap<[u8; 32], Hold>>,
    /// The highest time of a block that this term has seen; 0 before the first.
    chain_time_s: AtomicU64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hold {
    /// Seconds since the Unix epoch, by the chain's time.
    expires_at_s: u64,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Open,
    Accepted {
        cancel_height: u32,
        /// Given if LDK can make the preimage from it; the preimage itself is not written down before it is used.
        payment_secret: Option<[u8; 32]>,
    },
    Settling {
        preimage: [u8; 32],
    },
    Ended {
        settled: bool,
    },
}

/// What to do with a payment that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is for no hold invoice.
    NotHeld,
    /// It waits until this height at most.
    Hold { cancel_height: u32 },
    /// It is too late, was cancelled, or is no payment of the invoice at all.
    Refuse,
}

/// What an operator's word comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Claim it with this preimage, or with the one that LDK makes from the secret.
    Claim(Result<PaymentPreimage, PaymentSecret>),
    /// Fail its HTLCs back, if there are any.
    Fail,
    /// It was said before.
    Nothing,
}

#[derive(Debug, thiserror::Error)]
#[error("the record of a hold invoice `{0}` does not parse")]
pub struct HoldError(String);

impl Holds {
    pub fn load(loaded: &HashMap<KvKey, Vec<u8>>, kv: Arc<BufferedKv>) -> Result<Self, HoldError> {
        let parse = |(key, bytes): (&KvKey, &Vec<u8>)| {
            let mut hash = [0; 32];
            let hash = hex::decode_to_slice(&key.key, &mut hash).ok().map(|()| hash);
            let entry = hash.zip(serde_json::from_slice(bytes).ok());
            entry.ok_or_else(|| HoldError(key.key.clone()))
        };
        let holds = loaded.iter().filter(|(key, _)| key.primary == NAMESPACE).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { kv, holds: Mutex::new(holds), chain_time_s: AtomicU64::new(0) })
    }

    /// The manager knows a block of this time, in seconds since the Unix epoch. LDK judges by blocks alone whether an
    /// invoice has expired.
    pub fn saw_block(&self, time_s: u32) {
        self.chain_time_s.fetch_max(time_s.into(), Ordering::Relaxed);
    }

    /// A new hold invoice, made at `now_s` by the clock and payable for `expiry_s`. False if there is one for this hash
    /// already.
    pub fn add(&self, hash: [u8; 32], now_s: u64, expiry_s: u64) -> bool {
        let mut holds = self.lock();
        if holds.contains_key(&hash) {
            return false;
        }
        let expires_at_s = now_s.max(self.chain_time_s.load(Ordering::Relaxed)).saturating_add(expiry_s);
        self.put(&mut holds, hash, Hold { expires_at_s, state: State::Open });
        true
    }

    /// A payment can be claimed until just before `claim_deadline`. For a held hash only a payment of its invoice counts:
    /// LDK has checked that one's amount, while whoever knows the preimage can send any amount without an invoice.
    pub fn arrived(
        &self,
        hash: [u8; 32],
        purpose: &PaymentPurpose,
        claim_deadline: Option<u32>,
        height: u32,
    ) -> Arrival {
        let mut holds = self.lock();
        let Some(hold) = holds.get(&hash).cloned() else { return Arrival::NotHeld };
        let PaymentPurpose::Bolt11InvoicePayment { payment_preimage, payment_secret } = purpose else {
            return Arrival::Refuse;
        };
        if let State::Settling { .. } | State::Ended { .. } = hold.state {
            return Arrival::Refuse;
        }
        let cancel_height = claim_deadline.unwrap_or(0).saturating_sub(MARGIN_BLOCKS);
        if height >= cancel_height {
            return Arrival::Refuse;
        }
        let state = State::Accepted { cancel_height, payment_secret: payment_preimage.map(|_| payment_secret.0) };
        self.put(&mut holds, hash, Hold { state, ..hold });
        Arrival::Hold { cancel_height }
    }

    /// The operator takes the money. `preimage` must be the hash's, where it is given.
    pub fn settle(&self, hash: [u8; 32], preimage: Option<PaymentPreimage>, height: u32) -> Result<Word, &'static str> {
        let mut holds = self.lock();
        let hold = holds.get(&hash).cloned().ok_or(UNKNOWN)?;
        match (&hold.state, preimage) {
            (State::Open, _) => Err("it is not paid yet"),
            (State::Accepted { cancel_height, .. }, _) if height >= *cancel_height => {
                Err("it is too late: the payment is being cancelled")
            }
            (State::Accepted { .. }, Some(preimage)) => {
                self.put(&mut holds, hash, Hold { state: State::Settling { preimage: preimage.0 }, ..hold });
                Ok(Word::Claim(Ok(preimage)))
            }
            (State::Accepted { payment_secret: Some(secret), .. }, None) => {
                Ok(Word::Claim(Err(PaymentSecret(*secret))))
            }
            (State::Accepted { payment_secret: None, .. }, None) => {
                Err("the invoice was made for a hash of yours, so the preimage must come from you")
            }
            (State::Settling { .. } | State::Ended { settled: true }, _) => Ok(Word::Nothing),
            (State::Ended { settled: false }, _) => Err("it was cancelled"),
        }
    }

    /// The operator gives the money back, or wants none.
    pub fn cancel(&self, hash: [u8; 32]) -> Result<Word, &'static str> {
        let mut holds = self.lock();
        let hold = holds.get(&hash).cloned().ok_or(UNKNOWN)?;
        match hold.state {
            State::Open | State::Accepted { .. } => {
                self.put(&mut holds, hash, Hold { state: State::Ended { settled: false }, ..hold });
                Ok(Word::Fail)
            }
            State::Ended { settled: false } => Ok(Word::Nothing),
            State::Settling { .. } | State::Ended { settled: true } => Err("it is settled"),
        }
    }

    /// A payment was claimed. Gives the preimage if the hold knows it.
    pub fn claimed(&self, hash: [u8; 32]) -> Option<PaymentPreimage> {
        let mut holds = self.lock();
        let hold = holds.get(&hash).cloned()?;
        let State::Settling { preimage } = hold.state else { return None };
        self.put(&mut holds, hash, Hold { state: State::Ended { settled: true }, ..hold });
        Some(PaymentPreimage(preimage))
    }

    /// Those that must be given back at this height. They are ended when this returns.
    pub fn take_due(&self, height: u32) -> Vec<[u8; 32]> {
        let mut holds = self.lock();
        let is_due =
            |hold: &Hold| matches!(hold.state, State::Accepted { cancel_height, .. } if height >= cancel_height);
        let due: Vec<_> =
            holds.iter().filter(|(_, hold)| is_due(hold)).map(|(hash, hold)| (*hash, hold.clone())).collect();
        for (hash, hold) in &due {
            self.put(&mut holds, *hash, Hold { state: State::Ended { settled: false }, ..hold.clone() });
        }
        due.into_iter().map(|(hash, _)| hash).collect()
    }

    /// Forgets invoices that nobody can pay any more, by the chain's time.
    pub fn forget(&self) {
        let now_s = self.chain_time_s.load(Ordering::Relaxed);
        let mut holds = self.lock();
        let is_over = |hold: &Hold| {
            let at_rest = matches!(hold.state, State::Open | State::Ended { .. });
            at_rest && now_s > hold.expires_at_s.saturating_add(REMEMBERED_S)
        };
        let over: Vec<_> = holds.iter().filter(|(_, hold)| is_over(hold)).map(|(hash, _)| *hash).collect();
        for hash in over {
            holds.remove(&hash);
            if let Err(error) = self.kv.remove(NAMESPACE, "", &hex::encode(hash), false) {
                tracing::error!(%error, "the commit buffer refused to forget a hold invoice");
            }
        }
    }

    fn put(&self, holds: &mut HashMap<[u8; 32], Hold>, hash: [u8; 32], hold: Hold) {
        // Plain data always has a JSON form, and the buffer takes whatever it is given.
        let written = serde_json::to_vec(&hold)
            .map_err(|error| error.to_string())
            .and_then(|bytes| self.kv.write(NAMESPACE, "", &hex::encode(hash), bytes).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::error!(error, "the commit buffer refused a hold invoice");
        }
        holds.insert(hash, hold);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Hold>> {
        // Each change is a single insert or remove.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNKNOWN: &str = "there is no hold invoice of this hash";

#[cfg(test)]
mod tests {
    use lightning::util::persist::KVStoreSync;

    use super::{super::CommitQueue, *};

    const HASH: [u8; 32] = [1; 32];
    const PREIMAGE: PaymentPreimage = PaymentPreimage([2; 32]);

    fn holds() -> (Arc<BufferedKv>, Holds) {
        let kv = Arc::new(BufferedKv::new(Arc::new(CommitQueue::default()), []));
        let holds = Holds::load(&HashMap::new(), kv.clone()).unwrap();
        assert!(holds.add(HASH, 900, 100) && !holds.add(HASH, 900, 100));
        (kv, holds)
    }

    fn of_invoice(preimage: Option<PaymentPreimage>) -> PaymentPurpose {
        PaymentPurpose::Bolt11InvoicePayment { payment_preimage: preimage, payment_secret: PaymentSecret([3; 32]) }
    }

    /// What a new leader finds.
    fn reloaded(kv: &Arc<BufferedKv>) -> Holds {
        let keys = kv.list(NAMESPACE, "").unwrap();
        let records = keys.into_iter().map(|key| {
            let value = kv.read(NAMESPACE, "", &key).unwrap();
            (KvKey { primary: NAMESPACE.into(), secondary: String::new(), key }, value)
        });
        Holds::load(&records.collect(), kv.clone()).unwrap()
    }

    #[test]
    fn a_held_payment_waits_through_takeovers_and_is_settled_once() {
        let (kv, holds) = holds();
        assert!(holds.settle(HASH, Some(PREIMAGE), 100).is_err(), "nobody has paid it");
        assert_eq!(holds.arrived([9; 32], &of_invoice(None), Some(200), 100), Arrival::NotHeld);
        assert_eq!(
            holds.arrived(HASH, &of_invoice(None), Some(200), 100),
            Arrival::Hold { cancel_height: 200 - MARGIN_BLOCKS }
        );
        let holds = reloaded(&kv);
        assert!(holds.settle(HASH, None, 100).is_err(), "nobody knows the preimage");
        assert!(holds.settle(HASH, Some(PREIMAGE), 100) == Ok(Word::Claim(Ok(PREIMAGE))));
        let holds = reloaded(&kv);
        assert!(holds.settle(HASH, Some(PREIMAGE), 100) == Ok(Word::Nothing));
        assert!(holds.cancel(HASH).is_err());
        assert!(holds.take_due(1000).is_empty(), "what is being claimed is not cancelled");
        assert_eq!(holds.claimed(HASH), Some(PREIMAGE));
        assert_eq!(holds.arrived(HASH, &of_invoice(None), Some(200), 100), Arrival::Refuse, "paid a second time");
    }

    #[test]
    fn the_guard_cancels_in_time_and_for_good() {
        let (kv, holds) = holds();
        holds.arrived(HASH, &of_invoice(Some(PREIMAGE)), Some(200), 100);
        let cancel_height = 200 - MARGIN_BLOCKS;
        assert!(holds.take_due(cancel_height - 1).is_empty());
        assert!(holds.settle(HASH, None, cancel_height).is_err(), "too late, even before the guard has looked");
        assert!(holds.settle(HASH, None, cancel_height - 1) == Ok(Word::Claim(Err(PaymentSecret([3; 32])))));
        assert_eq!(reloaded(&kv).take_due(cancel_height), [HASH]);
        let holds = reloaded(&kv);
        assert!(holds.take_due(cancel_height).is_empty());
        assert!(holds.settle(HASH, Some(PREIMAGE), 100).is_err());
        assert_eq!(holds.arrived(HASH, &of_invoice(None), Some(300), 200), Arrival::Refuse);
    }

    #[test]
    fn what_arrives_too_late_or_after_a_cancel_is_refused() {
        let (_, holds) = holds();
        assert_eq!(holds.arrived(HASH, &of_invoice(None), Some(100 + MARGIN_BLOCKS), 100), Arrival::Refuse);
        assert!(holds.cancel(HASH) == Ok(Word::Fail) && holds.cancel(HASH) == Ok(Word::Nothing));
        assert_eq!(holds.arrived(HASH, &of_invoice(None), Some(200), 100), Arrival::Refuse);
    }

    #[test]
    fn only_a_payment_of_the_invoice_is_held_for_it() {
        let (_, holds) = holds();
        let keysend = PaymentPurpose::SpontaneousPayment(PREIMAGE);
        assert_eq!(holds.arrived(HASH, &keysend, Some(200), 100), Arrival::Refuse);
        assert!(holds.settle(HASH, Some(PREIMAGE), 100).is_err(), "the invoice is not paid by it");
        assert_eq!(holds.arrived([9; 32], &keysend, Some(200), 100), Arrival::NotHeld);
        let arrival = holds.arrived(HASH, &of_invoice(None), Some(200), 100);
        assert_eq!(arrival, Arrival::Hold { cancel_height: 200 - MARGIN_BLOCKS });
        assert_eq!(holds.arrived(HASH, &keysend, Some(300), 100), Arrival::Refuse, "nor does it take the place of one");
        assert!(holds.settle(HASH, Some(PREIMAGE), 100) == Ok(Word::Claim(Ok(PREIMAGE))));
    }

    #[test]
    fn an_invoice_is_forgotten_only_when_nobody_can_pay_it() {
        let remembered = u32::try_from(REMEMBERED_S).unwrap();
        let (kv, holds) = holds();
        holds.forget();
        holds.saw_block(1000 + remembered);
        holds.saw_block(5);
        holds.forget();
        assert_eq!(kv.list(NAMESPACE, "").unwrap().len(), 1);
        holds.arrived(HASH, &of_invoice(None), Some(200), 100);
        holds.saw_block(1001 + remembered);
        holds.forget();
        assert_eq!(kv.list(NAMESPACE, "").unwrap().len(), 1, "money waits");
        holds.take_due(200);
        let later = reloaded(&kv);
        later.forget();
        assert_eq!(kv.list(NAMESPACE, "").unwrap().len(), 1, "a new leader has seen no block yet");
        later.saw_block(1001 + remembered);
        later.forget();
        assert!(kv.list(NAMESPACE, "").unwrap().is_empty());
    }

    #[test]
    fn an_invoice_made_when_blocks_are_ahead_of_the_clock_is_remembered_from_the_blocks_on() {
        let (kv, holds) = holds();
        let remembered = u32::try_from(REMEMBERED_S).unwrap();
        holds.saw_block(50_000);
        assert!(holds.add([7; 32], 1000, 100));
        holds.saw_block(50_100 + remembered);
        holds.forget();
        assert_eq!(kv.list(NAMESPACE, "").unwrap(), [hex::encode([7; 32])]);
        holds.saw_block(50_101 + remembered);
        holds.forget();
        assert!(kv.list(NAMESPACE, "").unwrap().is_empty());
    }
}
