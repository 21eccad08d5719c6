//! The loop over a store that takes batches, or says that another term leads.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::KvWrite;

/// What happened, in order.
type Story = Arc<Mutex<Vec<&'static str>>>;

struct Parts(Story);

impl Machine for Parts {
    fn take_needs_persistence(&self) -> bool {
        false
    }

    fn encode_manager(&self) -> Vec<u8> {
        self.0.lock().unwrap().push("encoded");
        vec![1]
    }

    fn monitor_updated(&self, _: ChannelId, _: u64) {
        self.0.lock().unwrap().push("told LDK");
    }

    fn send_package(&self, _: Vec<Transaction>) {
        self.0.lock().unwrap().push("sent a transaction");
    }

    fn process_messages(&self) {
        self.0.lock().unwrap().push("let messages out");
    }
}

struct Term {
    story: Story,
    over: AtomicBool,
}

const FENCED: CommitError = CommitError::Fenced { ours: 1, newest: 2 };

#[async_trait::async_trait]
impl Store for Term {
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        assert!(batch.manager.is_some() && batch.monitors.len() == 1, "{batch:?}");
        if self.over.load(Ordering::SeqCst) {
            return Err(FENCED);
        }
        self.story.lock().unwrap().push("stored");
        // The next one is refused, which ends the loop.
        self.over.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Something of everything that waits for a commit.
fn change(queue: &CommitQueue) {
    let nothing = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).txdata.remove(0);
    let mut pending = queue.pending();
    let key = crate::store::MonitorKey([7; 32]);
    pending.monitors.push(crate::store::MonitorWrite::Update { key, update_id: 3, bytes: vec![2] });
    pending.acks.push((ChannelId([7; 32]), 3));
    pending.packages.push(vec![nothing]);
    pending.kv.push(KvWrite::Remove {
        key: crate::store::KvKey { primary: "a".into(), secondary: String::new(), key: "b".into() },
    });
    pending.hold_message();
    drop(pending);
    queue.wake();
}

async fn run(over: bool, change_again: bool) -> (Vec<&'static str>, u64, CommitError) {
    let story = Story::default();
    let queue = Arc::new(CommitQueue::default());
    let committer = Committer::new(queue.clone(), Parts(story.clone()));
    let store = Term { story: story.clone(), over: AtomicBool::new(over) };
    change(&queue);
    let fatal = story.clone();
    let run = committer.run(&store, move |error| {
        assert_eq!(*error, FENCED);
        fatal.lock().unwrap().push("fatal");
    });
    let more = async {
        if change_again {
            assert!(queue.committed().await);
            change(&queue);
        }
    };
    let (error, ()) = tokio::join!(run, more);
    let story = story.lock().unwrap().clone();
    (story, queue.released_messages(), error)
}

#[tokio::test]
async fn p3_a_term_that_is_over_sends_nothing_and_tells_ldk_nothing() {
    let (story, released, error) = run(true, false).await;
    assert_eq!(story, ["encoded", "fatal"]);
    assert_eq!((released, error), (0, FENCED));
}

#[tokio::test]
async fn p2_nothing_goes_out_before_it_is_stored() {
    let (story, released, _) = run(false, true).await;
    let first = ["encoded", "stored", "sent a transaction", "told LDK", "let messages out"];
    assert_eq!(story, [&first[..], &["encoded", "fatal"]].concat());
    assert_eq!(released, 1);
}
