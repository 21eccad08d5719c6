//! What only the service manager can do.

use std::collections::HashMap;

const UNIT: &str = include_str!("../../../deploy/systemd/holdfast-signer.service");

/// A file that the signer wrote could be mapped as code, which its own filter does not see.
#[test]
fn the_unit_lets_nothing_that_is_writable_be_code_and_bounds_the_memory() {
    let set: HashMap<_, _> = UNIT.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!((set["ProtectSystem"], set["PrivateTmp"]), ("strict", "yes"), "else more can be written");
    let state = format!("/var/lib/{}", set["StateDirectory"]);
    let closed: Vec<_> = set["NoExecPaths"].split(' ').map(|path| path.trim_start_matches('-')).collect();
    for writable in [state.as_str(), "/tmp", "/var/tmp", "/dev/shm"] {
        assert!(closed.contains(&writable), "{writable} in NoExecPaths=");
    }
    assert!(set.contains_key("MemoryMax"));
}
