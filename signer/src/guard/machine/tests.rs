//! The machine against a model that remembers every answer that ever left it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::hashes::{Hash, sha256};
use lightning::ln::chan_utils::build_commitment_secret;
use proptest::{collection::vec, prelude::*, strategy::ValueTree};

use super::*;
use crate::guard::bytes::Bytes;

/// The counterparty's chain of secrets.
fn secret(number: u64) -> [u8; 32] {
    build_commitment_secret(&[3; 32], ((1 << 48) - 1) - number)
}

/// Stands for the point of a secret: the machine only compares points.
fn point_of(secret: [u8; 32]) -> Point {
    let mut point = [2; 33];
    point[1..].copy_from_slice(&sha256::Hash::hash(&secret).to_byte_array());
    Bytes(point)
}

fn outpoint(index: u8) -> FundingOutpoint {
    FundingOutpoint { txid: Bytes([index; 32]), vout: 0 }
}

/// Funding output 0 is the first; 1 and 2 splice it, 3 splices 1.
fn parameters(index: u8, variant: u8) -> Parameters {
    let parent = [None, Some(0), Some(0), Some(1)][usize::from(index)];
    Parameters {
        encoded: vec![index, variant],
        lasting: Bytes([variant; 32]),
        parent: parent.map(|parent| Bytes([parent; 32])),
    }
}

fn commitment(side: u8, funding: u8, number: u64, content: u8) -> Commitment {
    let all = [side, funding, content].into_iter().chain(number.to_be_bytes()).collect::<Vec<u8>>();
    let hash = sha256::Hash::hash(&all).to_byte_array();
    Commitment { content: Bytes(hash), txid: Bytes(hash) }
}

fn countersigned(funding: u8, number: u64, content: u8, valid: bool) -> Countersigned {
    let valid = if valid { Ok(()) } else { Err("no".into()) };
    Countersigned { number, commitment: commitment(1, funding, number, content), htlcs: 0, valid }
}

/// What the adversary does next; numbers are relative to what comes next by the rules, so that runs get somewhere.
#[derive(Clone, Debug)]
enum Op {
    Register { funding: u8, variant: u8, early: Option<(i8, bool)> },
    SignCounterparty { funding: u8, offset: i8, content: u8, right_point: bool },
    Revoke { offset: i8, right: bool },
    Validate { funding: u8, offset: i8, content: u8, valid: bool },
    ValidateEarly { funding: u8, offset: i8, content: u8 },
    Release { offset: i8 },
    SignHolder { funding: u8, offset: i8, content: u8 },
    SignHolderHtlc { funding: u8, offset: i8, content: u8 },
    Close { funding: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let offset = || prop_oneof![10 => Just(0i8), 1 => -3..=3i8];
    let funding = || prop_oneof![6 => Just(0u8), 1 => 0..4u8];
    let content = || prop_oneof![6 => Just(0u8), 1 => 0..3u8];
    let mostly = || prop_oneof![9 => Just(true), 1 => Just(false)];
    prop_oneof![
        3 => (funding(), content(), proptest::option::weighted(0.2, (offset(), mostly())))
            .prop_map(|(funding, variant, early)| Op::Register { funding, variant, early }),
        20 => (funding(), offset(), content(), mostly())
            .prop_map(|(funding, offset, content, right_point)| Op::SignCounterparty { funding, offset, content, right_point }),
        20 => (offset(), mostly()).prop_map(|(offset, right)| Op::Revoke { offset, right }),
        20 => (funding(), offset(), content(), mostly())
            .prop_map(|(funding, offset, content, valid)| Op::Validate { funding, offset, content, valid }),
        1 => (funding(), offset(), content())
            .prop_map(|(funding, offset, content)| Op::ValidateEarly { funding, offset, content }),
        20 => offset().prop_map(|offset| Op::Release { offset }),
        1 => (funding(), offset(), content())
            .prop_map(|(funding, offset, content)| Op::SignHolder { funding, offset, content }),
        1 => (funding(), offset(), content())
            .prop_map(|(funding, offset, content)| Op::SignHolderHtlc { funding, offset, content }),
        1 => funding().prop_map(|funding| Op::Close { funding }),
    ]
}

fn shifted(base: u64, offset: i8) -> u64 {
    base.saturating_add_signed(offset.into())
}

impl Op {
    fn request(&self, state: &ChannelState) -> Request {
        match *self {
            Op::Register { funding, variant, early } => Request::Register {
                funding: outpoint(funding),
                parameters: parameters(funding, variant),
                early: early.map(|(offset, valid)| {
                    countersigned(funding, shifted(after(state.holder.newest), offset), 0, valid)
                }),
            },
            Op::SignCounterparty { funding, offset, content, right_point } => {
                let number = shifted(after(state.counterparty.newest), offset);
                let of = if right_point { number } else { number + 7 };
                Request::SignCounterparty {
                    funding: outpoint(funding),
                    number,
                    point: point_of(secret(of)),
                    commitment: commitment(0, funding, number, content),
                    htlcs: usize::from(content == 2),
                }
            }
            Op::Revoke { offset, right } => {
                let number = shifted(after(state.counterparty.revoked), offset);
                let secret = if right { secret(number) } else { [9; 32] };
                Request::CounterpartyRevokes { number, secret, point: point_of(secret) }
            }
            Op::Validate { funding, offset, content, valid } => {
                let number = shifted(after(state.holder.newest), offset);
                Request::Validate {
                    funding: outpoint(funding),
                    commitment: countersigned(funding, number, content, valid),
                }
            }
            Op::ValidateEarly { funding, offset, content } => Request::ValidateEarly {
                funding: outpoint(funding),
                number: shifted(after(state.holder.newest), offset),
                encoded: vec![funding, content],
            },
            Op::Release { offset } => Request::ReleaseSecret { number: shifted(after(state.holder.revoked), offset) },
            Op::SignHolder { funding, offset, content } => {
                let number = shifted(after(state.holder.revoked), offset);
                Request::SignHolder {
                    funding: outpoint(funding),
                    number,
                    content: commitment(1, funding, number, content).content,
                }
            }
            Op::SignHolderHtlc { funding, offset, content } => {
                let number = shifted(after(state.holder.revoked), offset);
                Request::SignHolderHtlc {
                    funding: outpoint(funding),
                    number,
                    txid: commitment(1, funding, number, content).txid,
                }
            }
            Op::Close { funding } => Request::SignClose { funding: outpoint(funding) },
        }
    }
}

/// Every answer that left, kept for ever, and what must be true of them together.
#[derive(Default)]
struct Model {
    registered: HashMap<FundingOutpoint, Parameters>,
    counterparty_signed: HashMap<(FundingOutpoint, u64), Digest>,
    counterparty_points: BTreeMap<u64, Point>,
    counterparty_revoked: BTreeSet<u64>,
    validated: HashMap<(FundingOutpoint, u64), Digest>,
    released: BTreeSet<u64>,
    signed: BTreeSet<u64>,
    closed: bool,
}

impl Model {
    fn answered(&mut self, request: &Request) {
        match request {
            Request::Register { funding, parameters, early } => {
                let first = self.registered.entry(*funding).or_insert_with(|| {
                    if let Some(early) = early {
                        assert_eq!(early.valid, Ok(()), "an invalid early commitment counted");
                        self.validated.insert((*funding, early.number), early.commitment.content);
                    }
                    parameters.clone()
                });
                assert_eq!(first, parameters, "channel-id-reuse");
            }
            Request::SignCounterparty { funding, number, point, commitment, .. } => {
                let first = *self.counterparty_signed.entry((*funding, *number)).or_insert(commitment.content);
                assert_eq!(first, commitment.content, "P5: two contents signed for commitment {number}");
                assert_eq!(self.counterparty_points.entry(*number).or_insert(*point), point, "two points");
                assert!(!self.counterparty_revoked.contains(number), "signed a revoked commitment {number}");
                let in_order = *number == 0 || self.counterparty_points.contains_key(&(number - 1));
                assert!(in_order, "signed commitment {number} before the one it follows");
                let numbers = self.counterparty_signed.keys().map(|(_, number)| *number).collect::<BTreeSet<_>>();
                let unrevoked = numbers.difference(&self.counterparty_revoked).count();
                assert!(unrevoked <= 2, "{unrevoked} unrevoked counterparty commitments");
            }
            Request::CounterpartyRevokes { number, secret: revealed, .. } => {
                assert_eq!(*revealed, secret(*number), "a wrong secret counted");
                self.counterparty_revoked.insert(*number);
            }
            Request::Validate { funding, commitment } => {
                assert_eq!(commitment.valid, Ok(()), "an unsigned commitment counted");
                assert!(!self.released.contains(&commitment.number));
                let content = commitment.commitment.content;
                let in_order = |number: u64| self.validated.keys().any(|(_, validated)| *validated == number - 1);
                assert!(commitment.number == 0 || in_order(commitment.number), "validated a number out of order");
                let before = self.validated.insert((*funding, commitment.number), content);
                if before.is_some_and(|before| before != content) {
                    assert!(!self.signed.contains(&commitment.number), "replaced after it was signed");
                    assert!(
                        commitment.number > 0 && !self.released.contains(&(commitment.number - 1)),
                        "replaced the only commitment left"
                    );
                }
            }
            Request::ReleaseSecret { number } => {
                if self.released.insert(*number) {
                    assert!(!self.closed, "P6: revoked after a close was signed");
                    assert!(self.signed.iter().all(|signed| signed > number), "P6: both signed and revoked");
                    let newer = self.validated.keys().any(|(_, validated)| *validated == number + 1);
                    assert!(newer, "revoked commitment {number} without a newer one");
                }
            }
            Request::SignHolder { funding, number, content }
            | Request::SignHolderHtlc { funding, number, txid: content } => {
                assert!(!self.released.contains(number), "P6: both revoked and signed");
                assert_eq!(self.validated.get(&(*funding, *number)), Some(content), "signed what was not validated");
                self.signed.insert(*number);
            }
            Request::SignClose { .. } => self.closed = true,
            Request::ValidateEarly { .. } => {}
            other => panic!("{other:?} is not driven"),
        }
    }
}

fn drive(ops: &[(Op, bool)]) -> (ChannelState, Model, usize) {
    let (mut state, mut model, mut answered) = (ChannelState::default(), Model::default(), 0);
    for (op, written) in ops {
        let request = op.request(&state);
        let Ok(verdict) = decide(&state, &request) else { continue };
        if let Verdict::Next(next) = verdict {
            if !written {
                // The record could not be made durable: nothing changed and nobody got an answer.
                continue;
            }
            assert_eq!(decide(&next, &request), Ok(Verdict::Same), "{request:?} asked again");
            state = *next;
        }
        model.answered(&request);
        answered += 1;
    }
    (state, model, answered)
}

proptest! {
    // 256 runs; more with PROPTEST_CASES.
    #[test]
    fn p5_p6_no_order_of_requests_breaks_a_promise(
        ops in vec((op(), prop_oneof![12 => Just(true), 1 => Just(false)]), 0..800),
    ) {
        let first = (Op::Register { funding: 0, variant: 0, early: None }, true);
        let ops = [vec![first], ops].concat();
        let (state, model, _) = drive(&ops);
        // What is remembered is small, and survives the store.
        prop_assert!(state.fundings.iter().all(|funding| funding.counterparty.len() <= 3 && funding.holder.len() <= 2));
        let encoded = postcard::to_allocvec(&state).unwrap();
        prop_assert_eq!(postcard::from_bytes::<ChannelState>(&encoded).unwrap(), state);
        let _ = model;
    }
}

/// Runs must get somewhere, or they prove nothing.
#[test]
fn random_runs_reach_deep_states() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut most_revoked, mut closes, mut signed, mut spliced) = (0, 0, 0, 0);
    for _ in 0..150 {
        let strategy = vec(op(), 250);
        let ops = strategy.new_tree(&mut runner).unwrap().current();
        let first = (Op::Register { funding: 0, variant: 0, early: None }, true);
        let ops = [vec![first], ops.into_iter().map(|op| (op, true)).collect()].concat();
        let (state, model, _) = drive(&ops);
        most_revoked = most_revoked.max(model.released.len()).max(model.counterparty_revoked.len());
        closes += usize::from(model.closed);
        signed += usize::from(!model.signed.is_empty());
        spliced += usize::from(state.fundings.len() > 1);
    }
    assert!(most_revoked > 15, "at most {most_revoked} revocations");
    assert!(closes > 10 && signed > 10 && spliced > 10, "{closes} closes, {signed} signed, {spliced} spliced");
}

/// One side after another, as two honest nodes do it.
struct Dance {
    state: ChannelState,
}

impl Dance {
    fn new() -> Self {
        let mut dance = Self { state: ChannelState::default() };
        dance.must(Op::Register { funding: 0, variant: 0, early: None });
        dance.must(Op::SignCounterparty { funding: 0, offset: 0, content: 0, right_point: true });
        dance.must(Op::Validate { funding: 0, offset: 0, content: 0, valid: true });
        dance
    }

    fn ask(&mut self, request: &Request) -> Result<(), Rule> {
        match decide(&self.state, request) {
            Ok(Verdict::Same) => Ok(()),
            Ok(Verdict::Next(next)) => {
                self.state = *next;
                Ok(())
            }
            Err(refusal) => Err(refusal.rule),
        }
    }

    fn op(&mut self, op: Op) -> Result<(), Rule> {
        let request = op.request(&self.state);
        self.ask(&request)
    }

    fn must(&mut self, op: Op) {
        let shown = format!("{op:?}");
        assert_eq!(self.op(op), Ok(()), "{shown}");
    }

    /// Both sides move on by one commitment.
    fn round(&mut self, funding: u8) {
        self.must(Op::SignCounterparty { funding, offset: 0, content: 0, right_point: true });
        self.must(Op::Revoke { offset: 0, right: true });
        self.must(Op::Validate { funding, offset: 0, content: 0, valid: true });
        self.must(Op::Release { offset: 0 });
    }
}

#[test]
fn an_honest_channel_is_never_refused() {
    let mut dance = Dance::new();
    for _ in 0..2000 {
        dance.round(0);
    }
    // LDK may ask for the newest or, from a monitor that is behind, for the one before while it is not revoked.
    dance.must(Op::Validate { funding: 0, offset: 0, content: 0, valid: true });
    dance.must(Op::SignHolder { funding: 0, offset: 1, content: 0 });
    dance.must(Op::SignHolder { funding: 0, offset: 0, content: 0 });
    assert_eq!(dance.op(Op::Release { offset: 0 }), Err(Rule::RevokeSigned));
}

#[test]
fn an_honest_splice_is_never_refused() {
    let mut dance = Dance::new();
    dance.round(0);
    // The splice and a replacement of it: the same numbers again, for the new outputs.
    for splice in [1, 2] {
        dance.must(Op::Register { funding: splice, variant: 0, early: None });
        dance.must(Op::SignCounterparty { funding: splice, offset: -1, content: 0, right_point: true });
        dance.must(Op::Validate { funding: splice, offset: -1, content: 0, valid: true });
    }
    // While it is pending every output gets every commitment.
    for funding in [0, 1, 2] {
        let offset = if funding == 0 { 0 } else { -1 };
        dance.must(Op::SignCounterparty { funding, offset, content: 0, right_point: true });
        dance.must(Op::Validate { funding, offset, content: 0, valid: true });
    }
    dance.must(Op::Revoke { offset: 0, right: true });
    dance.must(Op::Release { offset: 0 });
    // Once it is locked, only the new output does.
    dance.round(1);
    dance.round(1);
}

#[test]
fn each_broken_rule_is_named() {
    use Op::*;
    let refused = |ops: Vec<Op>, op: Op, rule: Rule| {
        let mut dance = Dance::new();
        dance.round(0);
        for op in ops {
            dance.must(op);
        }
        let shown = format!("{op:?}");
        assert_eq!(dance.op(op), Err(rule), "{shown}");
    };
    let sign = |offset, content| SignCounterparty { funding: 0, offset, content, right_point: true };
    let validate = |offset, content| Validate { funding: 0, offset, content, valid: true };

    refused(vec![], Register { funding: 0, variant: 1, early: None }, Rule::ChannelIdReuse);
    refused(vec![], Register { funding: 1, variant: 1, early: None }, Rule::ChannelIdReuse);
    refused(vec![], Register { funding: 3, variant: 0, early: None }, Rule::ChannelIdReuse);
    refused(vec![], sign(-1, 1), Rule::CommitmentRepeat);
    refused(vec![], sign(-2, 0), Rule::CommitmentNumber);
    refused(vec![], sign(1, 0), Rule::CommitmentNumber);
    refused(vec![sign(0, 0)], sign(0, 0), Rule::CommitmentNumber);
    refused(vec![], Revoke { offset: 0, right: true }, Rule::CommitmentNumber);
    refused(vec![sign(0, 0)], Revoke { offset: 0, right: false }, Rule::CommitmentNumber);
    refused(vec![sign(0, 0)], Revoke { offset: -1, right: false }, Rule::CommitmentNumber);
    refused(vec![], Validate { funding: 0, offset: 0, content: 0, valid: false }, Rule::HolderCountersigned);
    refused(vec![], validate(-2, 0), Rule::HolderRevoked);
    refused(vec![], validate(-1, 1), Rule::CommitmentRepeat);
    refused(vec![], validate(1, 0), Rule::CommitmentNumber);
    refused(vec![validate(0, 0)], validate(0, 0), Rule::CommitmentNumber);
    refused(vec![], Release { offset: 0 }, Rule::RevokeOrder);
    refused(vec![validate(0, 0)], Release { offset: 1 }, Rule::RevokeOrder);
    refused(vec![], SignHolder { funding: 0, offset: -1, content: 0 }, Rule::HolderRevoked);
    refused(vec![], SignHolder { funding: 0, offset: 1, content: 0 }, Rule::HolderCountersigned);
    refused(vec![], SignHolder { funding: 0, offset: 0, content: 1 }, Rule::HolderCountersigned);
    let signed = vec![validate(0, 0), SignHolder { funding: 0, offset: 0, content: 0 }];
    refused(signed, Release { offset: 0 }, Rule::RevokeSigned);
    let signed = vec![validate(0, 0), SignHolderHtlc { funding: 0, offset: 0, content: 0 }];
    refused(signed, Release { offset: 0 }, Rule::RevokeSigned);
    refused(vec![validate(0, 0), Close { funding: 0 }], Release { offset: 0 }, Rule::RevokeSigned);
    refused(vec![Close { funding: 0 }], sign(0, 0), Rule::CloseHtlcs);

    // A holder commitment may be replaced while the secret before it is here, and not after.
    let mut dance = Dance::new();
    dance.must(validate(0, 0));
    dance.must(validate(-1, 1));
    dance.must(Release { offset: 0 });
    assert_eq!(dance.op(validate(-1, 0)), Err(Rule::CommitmentRepeat));
}

#[test]
fn numbers_begin_at_zero() {
    let mut dance = Dance { state: ChannelState::default() };
    dance.must(Op::Register { funding: 0, variant: 0, early: None });
    let sign = |offset| Op::SignCounterparty { funding: 0, offset, content: 0, right_point: true };
    let validate = |offset| Op::Validate { funding: 0, offset, content: 0, valid: true };
    assert_eq!(dance.op(sign(1)), Err(Rule::CommitmentNumber));
    assert_eq!(dance.op(validate(1)), Err(Rule::CommitmentNumber));
    dance.must(sign(0));
    dance.must(validate(0));
}

#[test]
fn the_first_commitment_has_no_htlcs() {
    let mut dance = Dance { state: ChannelState::default() };
    dance.must(Op::Register { funding: 0, variant: 0, early: None });
    let with_htlcs = Op::SignCounterparty { funding: 0, offset: 0, content: 2, right_point: true };
    assert_eq!(dance.op(with_htlcs), Err(Rule::FirstCommitment));
    let commitment = Countersigned { htlcs: 1, ..countersigned(0, 0, 0, true) };
    assert_eq!(dance.ask(&Request::Validate { funding: outpoint(0), commitment }), Err(Rule::FirstCommitment));
}

#[test]
fn a_commitment_shown_early_counts_from_registration_and_not_before() {
    let early = Op::ValidateEarly { funding: 0, offset: 0, content: 0 };
    let mut dance = Dance { state: ChannelState::default() };
    dance.must(early.clone());
    dance.must(early.clone());
    assert_eq!(dance.state.holder.newest, None);
    assert!(dance.op(Op::Release { offset: 0 }).is_err());
    let wrong = Op::Register { funding: 0, variant: 0, early: Some((0, false)) };
    assert_eq!(dance.op(wrong), Err(Rule::HolderCountersigned));
    dance.must(Op::Register { funding: 0, variant: 0, early: Some((0, true)) });
    assert_eq!((dance.state.holder.newest, &dance.state.holder.early), (Some(0), &None));
    dance.must(Op::SignHolder { funding: 0, offset: 0, content: 0 });
}

#[test]
fn claims_spend_only_commitments_that_are_known_and_unrevoked() {
    let mut dance = Dance::new();
    dance.round(0);
    dance.round(0);
    let htlc = |number| Request::SignCounterpartyHtlc {
        funding: outpoint(0),
        txid: commitment(0, 0, number, 0).txid,
        point: point_of(secret(number)),
    };
    assert_eq!(dance.ask(&htlc(2)), Ok(()));
    // A peer that revokes what it has broadcast already does not stop us from claiming on it...
    assert_eq!(dance.ask(&htlc(1)), Ok(()));
    // ... and gets no signature on it.
    let revoked = Op::SignCounterparty { funding: 0, offset: -2, content: 0, right_point: true };
    assert_eq!(dance.op(revoked), Err(Rule::CommitmentNumber));
    assert_eq!(dance.ask(&htlc(0)), Err(Rule::CommitmentNumber));
    assert_eq!(dance.ask(&htlc(3)), Err(Rule::CommitmentNumber));
    let anchor = |number| Request::SignAnchor { funding: outpoint(0), txid: commitment(1, 0, number, 0).txid };
    assert_eq!(dance.ask(&anchor(2)), Ok(()));
    assert_eq!(dance.ask(&anchor(1)), Err(Rule::HolderCountersigned));
    let splice = Request::SignSplice { funding: outpoint(0), txid: outpoint(1).txid };
    assert_eq!(dance.ask(&splice), Err(Rule::FundingScript));
    dance.must(Op::Register { funding: 1, variant: 0, early: None });
    assert_eq!(dance.ask(&splice), Ok(()));
    let elsewhere = Request::SignSplice { funding: outpoint(0), txid: outpoint(2).txid };
    assert_eq!(dance.ask(&elsewhere), Err(Rule::FundingScript));
}
