//! A signer that is killed in the middle of its writes remembers everything that it acknowledged.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use holdfast_signer::guard::{EmbeddedStore, GuardStore, Name, Write};

/// Set for the process that is going to be killed.
const STORE: &str = "HOLDFAST_TEST_CRASH_STORE";
const WRITERS: u8 = 4;
const RECORDS_EACH: u8 = 3;

#[test]
fn every_acknowledged_record_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard.redb");
    drop(EmbeddedStore::create(&path).unwrap());
    let mut versions = HashMap::new();
    for round in 0..25 {
        let acknowledged = write_until_killed(&path, 20 + round * 37 % 400);
        let after = stored(&path);
        for (name, version) in acknowledged {
            assert!(after[&name] >= version, "round {round}: {name} is {}, acknowledged was {version}", after[&name]);
        }
        for (name, version) in &versions {
            assert!(after[name] >= *version, "round {round}: {name} went back");
        }
        versions = after;
    }
    assert!(versions.values().sum::<u64>() > 1000, "the rounds wrote something: {versions:?}");
}

/// Runs the writers in a process of their own, kills it after so many acknowledgements, and returns these.
fn write_until_killed(path: &Path, acknowledgements: usize) -> HashMap<Name, u64> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "writers", "--ignored", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = HashMap::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = 0;
    for line in lines {
        // The last line may be cut off, and the test harness prints lines of its own.
        let Ok(line) = line else { break };
        let Some((name, version)) = line.strip_prefix("acknowledged ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let (Ok(id), Ok(version)) = (name.parse::<u8>(), version.parse::<u64>()) else { continue };
        acknowledged.insert(Name::Channel([id; 32]), version);
        read += 1;
        if read == acknowledgements {
            // SIGKILL; what it still wrote into the pipe before it died counts as acknowledged too.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(read >= acknowledgements, "the writers ended by themselves after {read}");
    acknowledged
}

fn stored(path: &Path) -> HashMap<Name, u64> {
    let store = EmbeddedStore::open(path).unwrap();
    let records = store.load().unwrap();
    records.into_iter().map(|(name, record)| (name, whole(&record))).collect()
}

/// A record is its version over and over: half of one would show.
fn record(version: u64) -> Vec<u8> {
    version.to_be_bytes().repeat(60 + version as usize % 90)
}

fn whole(bytes: &[u8]) -> u64 {
    let version = u64::from_be_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, record(version), "a record in pieces");
    version
}

/// Not a test: the process that `write_until_killed` starts.
#[test]
#[ignore = "run by every_acknowledged_record_survives_a_kill"]
fn writers() {
    let path = env::var_os(STORE).expect("only as a child of the test");
    let store = Arc::new(EmbeddedStore::open(Path::new(&path)).unwrap());
    let threads: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                for step in 0u64.. {
                    let id = writer * RECORDS_EACH + (step % u64::from(RECORDS_EACH)) as u8;
                    let name = Name::Channel([id; 32]);
                    let previous = store.get(&name).unwrap().map_or(0, |record| whole(&record));
                    let version = previous + 1;
                    store.put(Write { name, previous, version, record: record(version) }).unwrap();
                    // One write call a line, so that what the parent reads is what was acknowledged.
                    std::io::stdout().lock().write_all(format!("acknowledged {id} {version}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
