//! The token's own rate of derivations, without the signer: what its ECDH is measured against.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    mechanism::{
        Mechanism,
        elliptic_curve::{EcKdf, Ecdh1DeriveParams},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};

use crate::{CALLERS, MODULE, Subject, point, table};

const TURNS: u32 = 20;
const TURN: Duration = Duration::from_millis(150);

/// As many sessions derive as there are callers, each for itself (derive, read the value, destroy). They and the signer's
/// ECDH take turns, so that what else the machine does weighs on both.
pub fn against_derivations(subject: &Subject) {
    let custody = subject.open();
    let (identity, point) = (custody.identity(), point());
    let library = Pkcs11::new(MODULE).unwrap();
    let slot = library.get_slots_with_initialized_token().unwrap()[0];
    let encoded = point.serialize_uncompressed();
    for callers in CALLERS {
        let open = |_| Mutex::new(library.open_ro_session(slot).unwrap());
        let sessions: Vec<_> = (0..callers).map(open).collect();
        // The backend has logged the process in.
        let private = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let key = sessions[0].lock().unwrap().find_objects(&private).unwrap()[0];
        let [mut raw, mut ecdh] = [(vec![], Duration::ZERO), (vec![], Duration::ZERO)];
        let add = |sum: &mut (Vec<Duration>, Duration), (times, took): (table::Times, Duration)| {
            sum.0.extend(times.0);
            sum.1 += took;
        };
        for _ in 0..TURNS {
            let derive = |caller: usize| derive(&sessions[caller].lock().unwrap(), key, &encoded);
            add(&mut raw, table::run(callers, TURN, derive));
            add(&mut ecdh, table::run(callers, TURN, |_| identity.ecdh(&point).unwrap()));
        }
        let rate = |(times, took): &(Vec<Duration>, Duration)| times.len() as f64 / took.as_secs_f64();
        let rates = rate(&ecdh) / rate(&raw);
        let (mut raw_times, mut ecdh_times) = (table::Times(raw.0), table::Times(ecdh.0));
        // Of one caller the medians say it, whatever else the machine did; of many that wait for each other the rates do.
        let share = if callers == 1 { raw_times.at(0.5) / ecdh_times.at(0.5) } else { rates };
        raw_times.row(subject.name, "raw derive", callers, Some(raw.1));
        println!(
            "{:<13}{:<12}{callers:>8}{share:>12.2}  of the raw rate (an ECDH by itself takes two derivations)",
            "", "ecdh"
        );
    }
    if std::env::var_os("HOLDFAST_BENCH_PARTS").is_some() {
        parts(&library.open_ro_session(slot).unwrap(), &encoded);
    }
}

fn derive(session: &Session, key: ObjectHandle, encoded: &[u8]) {
    let derived = derived(session, key, encoded);
    session.get_attributes(derived, &[AttributeType::Value]).unwrap();
    session.destroy_object(derived).unwrap();
}

fn derived(session: &Session, key: ObjectHandle, encoded: &[u8]) -> ObjectHandle {
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), encoded));
    let template = [
        Attribute::Token(false),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(32.into()),
    ];
    session.derive_key(&mechanism, key, &template).unwrap()
}

/// What the three calls of a derivation take, in all of them.
fn parts(session: &Session, encoded: &[u8]) {
    let key = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
    let mut sums = [Duration::ZERO; 3];
    const ROUNDS: u32 = 500;
    for _ in 0..ROUNDS {
        let before = Instant::now();
        let made = derived(session, key, encoded);
        let derived = Instant::now();
        session.get_attributes(made, &[AttributeType::Value]).unwrap();
        let read = Instant::now();
        session.destroy_object(made).unwrap();
        let parts = [derived - before, read - derived, read.elapsed()];
        sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
    }
    let [derive, read, destroy] = sums.map(|sum| sum.as_secs_f64() * 1e6 / f64::from(ROUNDS));
    println!(
        "a derivation: C_DeriveKey {derive:.0} us, C_GetAttributeValue {read:.0} us, C_DestroyObject {destroy:.0} us"
    );
}
