//! Whether custody works: asked now and then, and at once when a call could not be answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task, time};

use super::SignerCore;
use crate::{custody::CustodyError, harden::memory::on_clean_stack};

/// How often custody is tested.
pub(super) struct Pace {
    /// While all is well and no call fails.
    pub(super) well: Duration,
    /// While it fails; and the least time between two tests.
    pub(super) away: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { well: Duration::from_secs(30), away: Duration::from_secs(1) }
    }
}

/// What the last self-test said, and whether another is due.
#[derive(Default)]
pub(super) struct Readiness {
    /// Why the last one failed, if it did.
    not_ready: Mutex<Option<String>>,
    doubted: Notify,
}

impl SignerCore {
    /// Proves that custody works now, and remembers the result as the signer's readiness.
    pub fn self_test(&self) {
        let result = on_clean_stack(|| self.custody.self_test()).map_err(reason).err();
        let mut not_ready = self.readiness.not_ready.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*not_ready, &result) {
            (None, Some(why)) => tracing::error!(why, "custody failed its self-test: not ready"),
            (Some(_), None) => tracing::info!("custody works again: ready"),
            _ => {}
        }
        *not_ready = result;
    }

    /// Why the signer is not ready, if it is not.
    pub fn not_ready(&self) -> Option<String> {
        self.readiness.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call could not be answered, perhaps for want of custody.
    pub(super) fn doubt_custody(&self) {
        self.readiness.doubted.notify_one();
    }
}

/// Never ends.
pub(super) async fn keep_testing(core: Arc<SignerCore>, pace: Pace) {
    loop {
        time::sleep(pace.away).await;
        if core.not_ready().is_none() {
            // The first call that fails ends the wait.
            let _ = time::timeout(pace.well, core.readiness.doubted.notified()).await;
        }
        let core = Arc::clone(&core);
        // A test that panics is a bug in a backend; the next one says whether it lasts.
        if let Err(error) = task::spawn_blocking(move || core.self_test()).await {
            tracing::error!(%error, "the self-test of custody ended badly");
        }
    }
}

fn reason(error: CustodyError) -> String {
    match error {
        CustodyError::Unavailable(what) => format!("custody unavailable: {what}"),
        CustodyError::Wrong(why) => format!("custody refused: {why}"),
    }
}
