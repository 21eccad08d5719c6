//! Several processes on one token, as when an operator's tool, a second signer's start or a crash get in between.

use std::{
    env, fs,
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};

use cryptoki::types::AuthPin;

use crate::{
    pkcs11::sealed_node_id,
    softhsm::{PIN, SoftHsm, in_its_own_process, write_private},
    suite::{assert_wrong, wait_for},
};

const ROLE: &str = "HOLDFAST_TEST_ROLE";

#[test]
fn two_processes_share_a_token() {
    in_its_own_process("pkcs11_processes::two_processes_share_a_token", |hsm| {
        let token = hsm.token("one");
        let custody = token.subject().init().unwrap();
        let mut other = Other::start(hsm, "use");
        for _ in 0..100 {
            custody.self_test().unwrap();
        }
        assert!(other.end(hsm).success());

        // One that is killed in the middle of its work takes nothing along.
        let mut other = Other::start(hsm, "use");
        other.0.kill().unwrap();
        other.0.wait().unwrap();
        custody.self_test().unwrap();
        custody.unseal().unwrap();
    });
}

/// Login is a process's own affair: another that logs in and out is not noticed.
#[test]
fn a_logout_by_another_process_is_not_noticed() {
    in_its_own_process("pkcs11_processes::a_logout_by_another_process_is_not_noticed", |hsm| {
        let token = hsm.wrapped_token("one");
        let custody = token.subject().init().unwrap();
        let logins = hsm.told("logins");
        let mut other = Other::start(hsm, "log-in-and-out");
        for _ in 0..100 {
            custody.self_test().unwrap();
        }
        assert!(other.end(hsm).success());
        assert_eq!(hsm.told("logins"), logins, "it had to log in again");
    });
}

/// The next start finds the old PIN in the file, tries it once, and goes on with the new one.
#[test]
fn a_pin_changed_by_another_process_shows_at_the_next_start() {
    in_its_own_process("pkcs11_processes::a_pin_changed_by_another_process_shows_at_the_next_start", |hsm| {
        let token = hsm.token("one");
        let subject = token.subject();
        let custody = subject.init().unwrap();
        let node_id = custody.identity().public_key();
        assert!(Other::start(hsm, "change-pin").0.wait().unwrap().success());
        custody.self_test().unwrap();
        drop(custody);

        // SoftHSM reads the PIN when it is initialised.
        assert!(Other::start(hsm, "refused").0.wait().unwrap().success());
        write_private(&token.config.pin_file, "new-pin-7");
        assert!(Other::start(hsm, "open").0.wait().unwrap().success());
        assert_eq!(sealed_node_id(&subject), node_id);
    });
}

struct Other(Child);

impl Other {
    /// Returns when it is at work.
    fn start(hsm: &SoftHsm, role: &str) -> Self {
        let _ = fs::remove_file(hsm.signal("at-work"));
        let _ = fs::remove_file(hsm.signal("stop"));
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "pkcs11_processes::another_process", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .spawn()
            .unwrap();
        let mut other = Self(child);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !hsm.signal("at-work").exists() {
            assert!(std::time::Instant::now() < deadline, "{role} is not at work");
            assert!(other.0.try_wait().unwrap().is_none_or(|status| status.success()), "{role} failed");
            thread::sleep(Duration::from_millis(5));
        }
        other
    }

    fn end(&mut self, hsm: &SoftHsm) -> ExitStatus {
        hsm.tell("stop", "");
        self.0.wait().unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "plays a part in the tests above"]
fn another_process() {
    let (Some(hsm), Ok(role)) = (SoftHsm::of_this_process(), env::var(ROLE)) else { return };
    let token = hsm.existing("one", "one");
    let subject = token.subject();
    let at_work = || hsm.tell("at-work", "");
    let until_stopped = |work: &dyn Fn()| {
        wait_for("stop", || {
            work();
            at_work();
            hsm.signal("stop").exists()
        })
    };
    match role.as_str() {
        "use" => {
            let custody = subject.open(&sealed_node_id(&subject)).unwrap();
            until_stopped(&|| custody.self_test().unwrap());
        }
        "log-in-and-out" => until_stopped(&|| token.session().logout().unwrap()),
        "change-pin" => {
            token.session().set_pin(&AuthPin::from(PIN), &AuthPin::from("new-pin-7")).unwrap();
            at_work();
        }
        "refused" => {
            assert!(assert_wrong(subject.open(&sealed_node_id(&subject)), "the old PIN").contains("wrong PIN"));
            at_work();
        }
        "open" => {
            subject.open(&sealed_node_id(&subject)).unwrap().self_test().unwrap();
            at_work();
        }
        other => panic!("no such role: {other}"),
    }
}
