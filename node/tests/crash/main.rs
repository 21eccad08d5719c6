//! The crash harness: three real LDK nodes in one process, ours in the middle on the real commit loop, over a store that
//! can be cut off between any two of its steps, and its keys in the real signer's core, rules and guard included. Everything that
//! happens is drawn from a seed, which a failure prints.
//!
//! `HOLDFAST_CRASH_SEEDS=n` runs n seeds, `HOLDFAST_CRASH_SEED=s` runs one, `HOLDFAST_CRASH_LOG=n` prints the last n lines
//! that the nodes logged when a run fails.

mod chain;
mod check;
mod figures;
mod net;
mod node;
mod ours;
mod rng;
mod signer;
mod store;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use lightning::sign::KeysManager;

use crate::{
    figures::{Figures, Plan},
    node::Keys,
    ours::Order,
    signer::{Heard, Signer},
    world::World,
};

fn plan(seed: u64, order: Order) -> Plan {
    let plan = Plan {
        seed,
        order,
        steps: 1500,
        crash_every: 90,
        // A loop in the wrong order is seen without the signer's help, which would refuse much of what comes of it.
        signer: order == Order::Right,
        force_closes: seed.is_multiple_of(3),
        opens_and_closes: 3,
    };
    match order {
        // Every fourth run is about opening and closing.
        Order::Right if seed % 4 == 1 => Plan { crash_every: 40, opens_and_closes: 25, ..plan },
        // The moment between a broadcast and its commit is short.
        Order::BroadcastFirst => Plan { crash_every: 30, force_closes: true, opens_and_closes: 40, ..plan },
        Order::ClosingsForgotten => Plan { crash_every: 40, force_closes: false, opens_and_closes: 25, ..plan },
        _ => plan,
    }
}

/// Runs one seed to its end, in a thread of its own, so that it runs the same again. The error says what went wrong.
fn run(plan: Plan) -> Result<Figures, String> {
    let seeded = || {
        holdfast_seeded::seed_thread(plan.seed);
        run_here(plan)
    };
    std::thread::scope(|scope| scope.spawn(seeded).join().unwrap())
}

fn run_here(plan: Plan) -> Result<Figures, String> {
    let mut seed = [0x55; 32];
    seed[..8].copy_from_slice(&plan.seed.to_le_bytes());
    if plan.signer {
        let signer = Signer::new(seed);
        let heard = signer.heard();
        return run_with(plan, &heard, move |life| signer.keys(life));
    }
    // The start time keeps what one life draws from its entropy apart from what the next one does.
    run_with(plan, &Heard::default(), move |life| Arc::new(KeysManager::new(&seed, life, 0, true)))
}

fn run_with<K: Keys>(
    plan: Plan,
    heard: &Heard,
    make_keys: impl Fn(u64) -> Arc<K> + 'static,
) -> Result<Figures, String> {
    let log = Arc::new(Mutex::new(None));
    let keep = log.clone();
    let result = catch_unwind(AssertUnwindSafe(move || {
        let mut world = World::new(plan, make_keys);
        *keep.lock().unwrap() = Some(world.log.clone());
        for _ in 0..plan.steps {
            world.step();
            world.violations.append(&mut heard.refusals.lock().unwrap());
            if !world.violations.is_empty() {
                break;
            }
        }
        if world.violations.is_empty() {
            world.finish();
            world.violations.append(&mut heard.refusals.lock().unwrap());
            world.figures.signer_calls = heard.calls.load(Ordering::Relaxed);
        }
        (world.figures, world.violations)
    }));
    let tail = || {
        let log = log.lock().unwrap().take();
        log.map(|lines| lines.lock().unwrap().iter().fold(String::new(), |all, line| all + "\n" + line))
            .unwrap_or_default()
    };
    match result {
        Ok((figures, violations)) if violations.is_empty() => Ok(figures),
        Ok((_, violations)) => Err(format!("{plan:?}: {violations:#?}{}", tail())),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
            let (why, refusals) = (why.unwrap_or_default(), heard.refusals.lock().unwrap());
            Err(format!("{plan:?}: panicked: {why}; refused: {refusals:?}{}", tail()))
        }
    }
}

fn seeds(default: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("HOLDFAST_CRASH_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("HOLDFAST_CRASH_SEEDS").unwrap_or(default)).collect(),
    }
}

/// Runs every seed, on all processors. Returns the sum of the figures and what failed.
fn run_all(seeds: Vec<u64>, order: Order) -> (Figures, Vec<String>) {
    let results = Mutex::new((Figures::default(), Vec::new()));
    let queue = Mutex::new(seeds.into_iter());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().unwrap().next() else { break };
                    let result = run(plan(seed, order));
                    let mut results = results.lock().unwrap();
                    match result {
                        Ok(figures) => results.0.add(&figures),
                        Err(why) => results.1.push(why),
                    }
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// How many runs of a wrong order are looked at, at most. Most fail in the first.
const WRONG_RUNS: u64 = 40;

/// The harness sees what it is there to see: with the order of the loop broken, some run fails.
fn must_fail(order: Order) {
    for seed in 1..=WRONG_RUNS {
        if let Err(why) = run(plan(seed, order)) {
            println!("{}", why.lines().take(3).collect::<Vec<_>>().join("\n"));
            return;
        }
    }
    panic!("{order:?} passed {WRONG_RUNS} runs");
}

#[test]
fn p2_no_crash_closes_a_channel_or_loses_a_payment() {
    let start = Instant::now();
    let (figures, failures) = run_all(seeds(200), Order::Right);
    println!("{figures:#?} in {:?}", start.elapsed());
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
    assert!(figures.reorganisations > 0 && figures.signer_calls > 0, "there is less in it than there should be");
}

#[test]
fn a_seed_replays() {
    for signer in [true, false] {
        let plan = Plan { signer, ..plan(9, Order::Right) };
        assert_eq!(run(plan), run(plan));
    }
}

#[test]
fn the_harness_sees_monitors_stored_before_the_manager() {
    must_fail(Order::MonitorsFirst);
}

#[test]
fn the_harness_sees_a_manager_encoded_before_the_take() {
    must_fail(Order::EncodeFirst);
}

#[test]
fn the_harness_sees_a_broadcast_before_the_commit() {
    must_fail(Order::BroadcastFirst);
}

#[test]
fn the_harness_sees_messages_that_do_not_wait() {
    must_fail(Order::GateOff);
}

#[test]
fn the_harness_sees_forgotten_cooperative_closes() {
    must_fail(Order::ClosingsForgotten);
}
