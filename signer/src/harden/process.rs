//! What the process gives up before it touches a secret.

use rustix::{
    io,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

/// No core dumps, no tracing or reading of memory by processes of the same user, no privileges gained by `exec`; and as
/// much memory may be locked as the service manager allows.
///
/// Call it before any thread starts: threads inherit what their parent gave up.
pub fn process() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_no_new_privs(true)?;
    let lockable = getrlimit(Resource::Memlock);
    setrlimit(Resource::Memlock, Rlimit { current: lockable.maximum, ..lockable })
}
