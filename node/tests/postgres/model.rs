//! Random batches against a model that is as simple as it can be.

use std::collections::{BTreeMap, HashMap};

use holdfast_node::store::batch::{Direction, PaymentChange, PaymentStatus};
use holdfast_node::store::postgres::{PaymentRow, PgReader};
use holdfast_node::store::{Batch, Effect, KvKey, KvWrite, Loaded, MonitorKey, MonitorWrite, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::server::{Server, open};
use crate::store::{kv_key, payment, put};

/// What a store must hold, written in the simplest way that can be right: one write after another.
#[derive(Debug, Default)]
struct Model {
    manager: Option<Vec<u8>>,
    monitors: BTreeMap<MonitorKey, Monitor>,
    kv: HashMap<KvKey, Vec<u8>>,
    payments: BTreeMap<([u8; 32], bool), Payment>,
}

#[derive(Debug, Default)]
struct Monitor {
    update_id: u64,
    full: Vec<u8>,
    updates: BTreeMap<u64, Vec<u8>>,
    archived: bool,
}

#[derive(Debug, PartialEq)]
struct Payment {
    status: PaymentStatus,
    amount_msat: Option<u64>,
    failure: Option<String>,
}

impl Model {
    fn apply(&mut self, batch: &Batch) {
        if let Some(manager) = &batch.manager {
            self.manager = Some(manager.clone());
        }
        for write in &batch.monitors {
            match write.clone() {
                MonitorWrite::Full { key, update_id, bytes } => {
                    let monitor = self.monitors.entry(key).or_default();
                    monitor.updates.retain(|id, _| *id > update_id);
                    (monitor.update_id, monitor.full, monitor.archived) = (update_id, bytes, false);
                }
                MonitorWrite::Update { key, update_id, bytes } => {
                    self.monitors.get_mut(&key).unwrap().updates.insert(update_id, bytes);
                }
                MonitorWrite::Archive { key } => self.monitors.get_mut(&key).unwrap().archived = true,
            }
        }
        for write in &batch.kv {
            match write.clone() {
                KvWrite::Put { key, value } => self.kv.insert(key, value),
                KvWrite::Remove { key } => self.kv.remove(&key),
            };
        }
        for effect in &batch.effects {
            let Effect::Payment(change) = effect else { continue };
            let key = (change.payment_id, change.direction == Direction::Outbound);
            // Whatever it is at first, the change itself says what it becomes.
            let new = Payment { status: PaymentStatus::Pending, amount_msat: None, failure: None };
            let row = self.payments.entry(key).or_insert(new);
            if row.status != PaymentStatus::Succeeded {
                row.status = change.status;
                row.failure = match change.status {
                    PaymentStatus::Failed => change.failure.clone().or(row.failure.take()),
                    _ => None,
                };
                row.amount_msat = change.amount_msat.or(row.amount_msat);
            }
        }
    }

    fn assert_is(&self, loaded: Loaded) {
        assert_eq!(loaded.manager, self.manager);
        let monitors: BTreeMap<_, _> =
            loaded.monitors.into_iter().map(|monitor| (monitor.key, (monitor.full, monitor.updates))).collect();
        let expected = self.monitors.iter().filter(|(_, monitor)| !monitor.archived).map(|(key, monitor)| {
            let updates = monitor.updates.iter().filter(|(update, _)| **update > monitor.update_id);
            (*key, (monitor.full.clone(), updates.map(|(id, bytes)| (*id, bytes.clone())).collect()))
        });
        assert_eq!(monitors, expected.collect());
        assert_eq!(loaded.kv, self.kv);
    }
}

fn monitor_writes() -> impl Strategy<Value = Vec<MonitorWrite>> {
    let write = (0u8..4, 0u8..10, 0u64..12, prop::collection::vec(any::<u8>(), 0..3000));
    prop::collection::vec(write, 0..12).prop_map(|writes| {
        writes
            .into_iter()
            .map(|(monitor, kind, update_id, bytes)| {
                let key = MonitorKey([monitor; 32]);
                match kind {
                    0..3 => MonitorWrite::Full { key, update_id, bytes },
                    3 => MonitorWrite::Archive { key },
                    _ => MonitorWrite::Update { key, update_id, bytes },
                }
            })
            .collect()
    })
}

fn payment_changes() -> impl Strategy<Value = Vec<Effect>> {
    let status = prop::sample::select(&[PaymentStatus::Pending, PaymentStatus::Succeeded, PaymentStatus::Failed][..]);
    let change = (0u8..4, any::<bool>(), status, prop::option::of(0u64..1000), prop::option::of("[a-z\u{e9}]{0,5}"));
    prop::collection::vec(change, 0..8).prop_map(|changes| {
        changes
            .into_iter()
            .map(|(hash, outbound, status, amount_msat, failure)| {
                let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
                Effect::Payment(PaymentChange { amount_msat, failure, ..payment(hash, direction, status) })
            })
            .collect()
    })
}

fn batches() -> impl Strategy<Value = Vec<(Batch, bool)>> {
    let manager = prop::option::of((any::<u8>(), 0usize..40_000).prop_map(|(seed, length)| {
        // Much of it stays the same from one to the next, as with a real one.
        (0..length).map(|at| ((at * at) >> 7) as u8 ^ if at / 3000 == seed as usize % 13 { seed } else { 0 }).collect()
    }));
    let kv = prop::collection::vec(("[a-c]{1,2}", prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..6)
        .prop_map(|writes| {
            let write = |(name, value): (String, Option<Vec<u8>>)| match value {
                Some(value) => put(&name, &value),
                None => KvWrite::Remove { key: kv_key(&name) },
            };
            writes.into_iter().map(write).collect()
        });
    let batch = (manager, monitor_writes(), kv, payment_changes()).prop_map(|(manager, monitors, kv, effects)| Batch {
        manager,
        monitors,
        kv,
        effects,
    });
    prop::collection::vec((batch, prop::bool::weighted(0.2)), 1..8)
}

/// Only what LDK does: a monitor's first write is a full one, full ones never go back, and an archived one is left alone.
/// Nor is a payment begun that has succeeded.
fn lawful(batches: Vec<(Batch, bool)>) -> Vec<(Batch, bool)> {
    let mut newest: BTreeMap<MonitorKey, u64> = BTreeMap::new();
    let mut archived = std::collections::BTreeSet::new();
    let mut paid = std::collections::BTreeSet::new();
    let mut lawful = batches;
    for (batch, _) in &mut lawful {
        batch.effects.retain(|effect| {
            let Effect::Payment(change) = effect else { return true };
            match (change.direction, change.status) {
                (Direction::Outbound, PaymentStatus::Pending) => !paid.contains(&change.payment_id),
                (Direction::Outbound, PaymentStatus::Succeeded) => {
                    paid.insert(change.payment_id);
                    true
                }
                _ => true,
            }
        });
        batch.monitors.retain(|write| match write {
            MonitorWrite::Full { key, update_id, .. } => {
                let forward = !archived.contains(key) && newest.get(key).is_none_or(|newest| update_id >= newest);
                if forward {
                    newest.insert(*key, *update_id);
                }
                forward
            }
            MonitorWrite::Update { key, .. } => newest.contains_key(key) && !archived.contains(key),
            MonitorWrite::Archive { key } => newest.contains_key(key) && archived.insert(*key),
        });
    }
    // A node has a manager from its first commit that has anything else.
    if let Some((batch, _)) = lawful.first_mut() {
        batch.manager.get_or_insert_default();
    }
    lawful
}

#[test]
fn what_is_committed_is_loaded() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::quick());
    let mut runner = TestRunner::new(Config { cases: 20, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let outcome = runner.run(&batches().prop_map(lawful), |batches| {
        case.set(case.get() + 1);
        runtime.block_on(async {
            let database = format!("case_{}", case.get());
            server.admin().await.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
            let config = server.config_of(&database);
            let mut model = Model::default();
            let (mut leadership, mut store) = open(&config).await;
            for (batch, reopen) in batches {
                if reopen {
                    drop((leadership, store));
                    (leadership, store) = open(&config).await;
                }
                store.commit(&batch).await.unwrap();
                model.apply(&batch);
                model.assert_is(store.load().await.unwrap());
            }
            let reader = PgReader::new(config.clone());
            let payments = reader.payments(1000, None).await.unwrap().into_iter().map(|row| {
                let PaymentRow { payment_id, direction, status, amount_msat, failure, .. } = row;
                ((payment_id, direction == Direction::Outbound), Payment { status, amount_msat, failure })
            });
            assert_eq!(payments.collect::<BTreeMap<_, _>>(), model.payments);
        });
        Ok(())
    });
    outcome.unwrap();
}
