//! The store of the harness: what was committed, and nothing else.

use std::collections::{BTreeMap, HashMap};

use holdfast_node::store::{
    Batch, Effect, KvKey, KvWrite, Loaded, LoadedMonitor, MonitorKey, MonitorWrite,
    batch::{Direction, PaymentPart, PaymentStatus},
};

#[derive(Default)]
pub struct Memory {
    pub manager: Option<Vec<u8>>,
    monitors: BTreeMap<MonitorKey, Monitor>,
    kv: HashMap<KvKey, Vec<u8>>,
    pub payments: BTreeMap<([u8; 32], bool), PaymentStatus>,
    /// The fee of each.
    pub forwards: BTreeMap<[u8; 32], Option<u64>>,
    pub parts: BTreeMap<[u8; 32], PaymentPart>,
    /// What can never be right, whatever the order of commits.
    pub contradictions: Vec<String>,
    pub commits: u64,
}

#[derive(Default)]
struct Monitor {
    full: Vec<u8>,
    updates: Vec<(u64, Vec<u8>)>,
    archived: bool,
}

impl Memory {
    pub fn apply(&mut self, batch: &Batch) {
        self.commits += 1;
        if let Some(manager) = &batch.manager {
            self.manager = Some(manager.clone());
        }
        for write in &batch.monitors {
            match write {
                MonitorWrite::Full { key, update_id, bytes } => {
                    let monitor = self.monitors.entry(*key).or_default();
                    monitor.full = bytes.clone();
                    monitor.updates.retain(|(id, _)| id > update_id);
                }
                MonitorWrite::Update { key, update_id, bytes } => match self.monitors.get_mut(key) {
                    Some(monitor) => monitor.updates.push((*update_id, bytes.clone())),
                    None => self.contradictions.push("an update of an unknown monitor".into()),
                },
                MonitorWrite::Archive { key } => self.monitors.entry(*key).or_default().archived = true,
            }
        }
        for write in &batch.kv {
            match write {
                KvWrite::Put { key, value } => drop(self.kv.insert(key.clone(), value.clone())),
                KvWrite::Remove { key } => drop(self.kv.remove(key)),
            }
        }
        for effect in &batch.effects {
            match effect {
                Effect::Forward { event_id, fee_msat, .. } => drop(self.forwards.entry(*event_id).or_insert(*fee_msat)),
                Effect::PaymentPart(part) => drop(self.parts.entry(part.part_id).or_insert_with(|| part.clone())),
                _ => {}
            }
            if let Effect::Payment(change) = effect {
                let key = (change.payment_id, change.direction == Direction::Outbound);
                match self.payments.get(&key) {
                    Some(PaymentStatus::Pending) | None => drop(self.payments.insert(key, change.status)),
                    Some(before) if *before == change.status => {}
                    Some(before) => {
                        let hash = hex::encode(change.payment_id);
                        self.contradictions
                            .push(format!("payment {hash} was {before:?} and became {:?}", change.status));
                    }
                }
            }
        }
    }

    pub fn load(&self) -> Loaded {
        let live = self.monitors.iter().filter(|(_, monitor)| !monitor.archived);
        Loaded {
            manager: self.manager.clone(),
            monitors: live
                .map(|(key, monitor)| LoadedMonitor {
                    key: *key,
                    full: monitor.full.clone(),
                    updates: monitor.updates.clone(),
                })
                .collect(),
            kv: self.kv.clone(),
            ..Loaded::default()
        }
    }
}
