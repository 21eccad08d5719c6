//! A thread of its own for what has to go on while the others wait inside LDK.

use std::io;

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// Tokio leaves sockets and timers to whichever thread of a runtime was idle last. Where that one then waits for a lock that
/// LDK holds across a call to the signer, nothing else of that runtime is woken, however many threads it has. What tells
/// how things are must be told just then.
#[derive(Debug)]
pub struct Aside {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Aside {
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(task)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
