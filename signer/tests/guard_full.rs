//! A full disk refuses writes and loses none that was acknowledged; when there is room again, work goes on without a restart.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use holdfast_signer::guard::{EmbeddedStore, GuardStore, Name, StoreError, Write};

/// Set for the process that has a small disk to itself.
const DISK: &str = "HOLDFAST_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_a_pause() {
    let disk = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=4m tmpfs \"$0\" || exit 99; exec \"$@\"";
    let this = env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--user", "--map-root-user", "sh", "-c", script]).arg(disk.path()).arg(this);
    command.args(["--exact", "on_a_small_disk", "--ignored", "--nocapture"]).env(DISK, disk.path());
    let ended = command.stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    if ended.status.code() == Some(99) || said.contains("unshare failed") {
        eprintln!("skipped: this machine lets nobody mount a small disk: {said}");
        return;
    }
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "a part of a_full_disk_is_a_pause"]
fn on_a_small_disk() {
    let disk = env::var_os(DISK).expect("set by the other test");
    let disk = Path::new(&disk);
    let filler = disk.join("filler");
    let store = EmbeddedStore::create(&disk.join("guard.redb")).unwrap();
    // So that little is left whatever the store takes for itself.
    let mut size = 4 << 20;
    while fs::write(&filler, vec![0u8; size]).is_err() {
        size -= 64 << 10;
    }
    let write = |id: u16, previous| {
        let mut name = [0; 32];
        name[..2].copy_from_slice(&id.to_be_bytes());
        Write { name: Name::Channel(name), previous, version: previous + 1, record: vec![id as u8; 4000] }
    };
    let mut acknowledged = Vec::new();
    let failed = (0..2000).find_map(|id| match store.put(write(id, 0)) {
        Ok(()) => {
            acknowledged.push(id);
            None
        }
        Err(error) => Some((id, error)),
    });
    let (last, error) = failed.expect("the disk is never full");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(store.put(write(last, 0)).is_err(), "it is still full");

    fs::remove_file(filler).unwrap();
    // The guard reads what it is not sure of before it writes again.
    let found = store.get(&write(last, 0).name).expect("there is room again");
    let previous = u64::from(found.is_some());
    store.put(write(last, previous)).expect("there is room again");
    acknowledged.push(last);
    for id in acknowledged {
        let Write { name, record, .. } = write(id, 0);
        assert_eq!(store.get(&name).unwrap(), Some(record), "record {id} was acknowledged");
    }
}
