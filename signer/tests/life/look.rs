//! `check` and `list`, and what every command's help says.

use std::{fs, path::Path};

use serde_json::Value;

use crate::site::{Site, stdout};

fn list(site: &Site, name: &str) -> Value {
    serde_json::from_str(&site.ok(&["list", "--config", &format!("{name}.toml"), "--json"])).unwrap()
}

#[test]
fn check_proves_the_configured_custody() {
    let site = Site::new();
    site.fails(&["check", "--config", "file.toml"], 66, "run `holdfast-signer init` first");
    let id = site.init("file");
    site.is_node("file", &id);
    let text = site.ok(&["check", "--config", "file.toml"]);
    assert!(text.contains(&id.to_string()) && text.contains("every record is authentic"), "{text}");

    let check = ["check", "--config", "file.toml"];
    for lost in ["file/guard.redb", "file/file.sealed"] {
        fs::rename(site.path(lost), site.path("away")).unwrap();
        site.fails(&check, 69, lost);
        fs::rename(site.path("away"), site.path(lost)).unwrap();
    }
    site.secret("file.pass", b"another\n");
    site.fails(&check, 77, "the passphrase is wrong");
    site.secret("file.pass", b"the passphrase of file\n");
    site.file("other", "other", "seed");
    let other = site.init("other");
    fs::write(site.path("file/node_id"), other.to_string()).unwrap();
    site.fails(&check, 77, "belongs to node");
}

/// The signer keeps its guard; check says that it did not look into it.
#[test]
fn check_beside_a_running_signer_disturbs_nothing() {
    let site = Site::new();
    let id = site.init("file");
    let mut running = site.run("file");
    for _ in 0..3 {
        let report: Value = serde_json::from_str(&site.ok(&["check", "--config", "file.toml", "--json"])).unwrap();
        assert_eq!((&report["node_id"], &report["guard"]["state"]), (&id.to_string().into(), &"in use".into()));
    }
    assert!(site.ok(&["check", "--config", "file.toml"]).contains("a signer is running on it"));
    assert!(running.0.try_wait().unwrap().is_none());
    running.kill();
    let before = fs::read(site.path("file/guard.redb")).unwrap();
    let report: Value = serde_json::from_str(&site.ok(&["check", "--config", "file.toml", "--json"])).unwrap();
    assert_eq!(report["guard"]["state"], "not closed");
    assert!(before == fs::read(site.path("file/guard.redb")).unwrap(), "check wrote into the guard");
    drop(site.run("file"));
}

#[test]
fn list_shows_what_is_there_and_needs_no_secret() {
    let site = Site::with_tokens(&["one"]);
    let empty = list(&site, "file");
    assert_eq!((&empty["node_id"], &empty["guard"]["present"]), (&Value::Null, &false.into()));
    assert_eq!(empty["sealed_seed"]["present"], false);
    assert!(site.ok(&["list", "--config", "file.toml"]).contains("no keys were made here"));

    let id = site.init("file").to_string();
    fs::remove_file(site.path("file.pass")).unwrap();
    let view = list(&site, "file");
    assert_eq!((&view["node_id"], &view["backend"]), (&id.clone().into(), &"file".into()));
    assert_eq!((&view["sealed_seed"]["lock"], &view["sealed_seed"]["node_id"]), (&"passphrase".into(), &id.into()));
    assert_eq!((&view["guard"]["present"], &view["sealed_seed"]["identity_in_token"]), (&true.into(), &false.into()));
    assert!(view["configured"]["passphrase_file"].as_str().unwrap().ends_with("file.pass"));

    site.token("token", "one");
    let id = site.init("token").to_string();
    fs::remove_file(site.path("pin")).unwrap();
    let view = list(&site, "token");
    assert_eq!((&view["node_id"], &view["backend"]), (&id.into(), &"pkcs11".into()));
    assert_eq!(
        (&view["sealed_seed"]["lock"], &view["sealed_seed"]["identity_in_token"]),
        (&"token".into(), &true.into())
    );
    assert_eq!(view["configured"]["label"], "holdfast");
    assert_eq!(view["sealed_seed"]["facts"]["identity_key_id"].as_str().unwrap().len(), 32);

    // Absent, unreadable and hostile: named, never a failure of the whole view.
    site.secret("token/seed.sealed", b"version = 1");
    assert!(list(&site, "token")["sealed_seed"]["unreadable"].is_string());
    assert!(site.ok(&["list", "--config", "token.toml"]).contains("UNREADABLE"));
    fs::remove_file(site.path("file/guard.redb")).unwrap();
    assert!(site.ok(&["list", "--config", "file.toml"]).contains("ABSENT"));
    site.fails(&["list", "--config", "none.toml"], 66, "none.toml");
}

/// As docs/custody/keys.md says: a token's own means, here a copy of its directory, and the files beside it.
#[test]
fn a_cloned_token_is_the_same_node() {
    let site = Site::with_tokens(&["one"]);
    site.token("token", "one");
    let id = site.init("token");
    copy(&site.path("tokens"), &site.path("clone"));
    fs::remove_dir_all(site.path("tokens")).unwrap();
    site.fails(&["check", "--config", "token.toml"], 69, "");
    let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", site.path("clone").display());
    fs::write(site.path("softhsm2.conf"), conf).unwrap();
    site.is_node("token", &id);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).unwrap()),
        }
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let site = Site::new();
    for command in ["init", "import", "rewrap", "backup", "verify-share", "restore", "check", "list", "run"] {
        let help = site.output(&[command, "--help"]);
        assert!(help.status.success());
        let help = stdout(&help);
        assert!(help.contains("Example") && help.contains(&format!("holdfast-signer {command} ")), "{command}: {help}");
    }
}
