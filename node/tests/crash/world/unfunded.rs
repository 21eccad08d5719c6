//! A channel whose funding transaction its peer names and keeps to itself.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_node::lightning::claimable::left_in;
use lightning::{ln::types::ChannelId, sign::KeysManager};

use super::{OURS, World};
use crate::{figures::Plan, ours::Order};

#[test]
fn what_was_pushed_with_a_channel_that_was_never_funded_is_nothing() {
    let plan = Plan {
        seed: 1,
        order: Order::Right,
        steps: 0,
        crash_every: u64::MAX,
        signer: false,
        force_closes: true,
        opens_and_closes: 0,
    };
    let mut world = World::new(plan, |life| Arc::new(KeysManager::new(&[0x55; 32], life, 0, true)));
    let channels = |world: &World<_>| -> BTreeSet<ChannelId> {
        world.channels_of(OURS).iter().map(|channel| channel.channel_id).collect()
    };
    let before = channels(&world);
    world.open(0, false);
    world.quiesce();
    let withheld = world.chain.lock().unwrap().withhold();
    let id = *channels(&world).difference(&before).next().unwrap();
    let (queue, peer) = (world.ours.queue.clone(), world.peers[0].id);
    let close = || world.ours.node.manager.force_close_broadcasting_latest_txn(&id, &peer, "unfunded".into());
    queue.with_state(close).unwrap();
    world.quiesce();
    world.mine();
    world.quiesce();
    let monitors = world.ours.node.monitors.clone();
    {
        let monitor = monitors.get_monitor(id).unwrap();
        assert!(!monitor.get_claimable_balances().is_empty(), "LDK counts what was pushed");
        assert_eq!(left_in(&monitor), []);
    }
    for tx in &withheld {
        assert!(world.chain.lock().unwrap().submit(tx));
    }
    world.mine();
    world.quiesce();
    let monitor = monitors.get_monitor(id).unwrap();
    assert!(!left_in(&monitor).is_empty(), "now it is there");
}
