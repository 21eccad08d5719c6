//! What callers want from the token, in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::worker::Worker;

pub struct Job {
    pub deadline: Instant,
    /// Does the work and answers; or answers nothing, and says that another worker should do it.
    pub run: Box<dyn FnMut(&mut Worker) -> Outcome + Send>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    ForAnother,
}

#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Jobs>,
    ready: Condvar,
    /// A worker has ended, or all should.
    ending: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
    workers: usize,
}

/// A worker's place at the queue, given up however its thread ends.
pub struct Place(pub Arc<Queue>);

impl Place {
    pub fn take(queue: &Arc<Queue>) -> Self {
        queue.lock().workers += 1;
        Self(queue.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().workers -= 1;
        self.0.ending.notify_all();
    }
}

impl Queue {
    pub fn push(&self, job: Job) {
        self.lock().waiting.push_back(job);
        self.ready.notify_one();
    }

    /// Gives a job back for another worker, and keeps this one away from the queue for a while.
    pub fn stand_aside(&self, job: Job, pause: Duration) {
        let mut jobs = self.lock();
        jobs.waiting.push_front(job);
        self.ready.notify_one();
        drop(self.ending.wait_timeout_while(jobs, pause, |jobs| !jobs.closed));
    }

    /// Takes no more jobs, and waits a while for the workers to end. Whether all have.
    pub fn close(&self, patience: Duration) -> bool {
        let mut jobs = self.lock();
        jobs.closed = true;
        self.ready.notify_all();
        self.ending.notify_all();
        let waited = self.ending.wait_timeout_while(jobs, patience, |jobs| jobs.workers > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.workers == 0
    }

    /// The next job whose caller still waits; none when the queue is closed.
    pub fn pop(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if jobs.closed {
                return None;
            }
            match jobs.waiting.pop_front() {
                Some(job) if job.deadline > Instant::now() => return Some(job),
                Some(_) => continue,
                None => jobs = self.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A holder that panicked left nothing half done: no step above does.
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
