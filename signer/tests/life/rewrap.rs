//! A sealed seed behind another key, or another backend.

use std::fs;

use crate::site::{Site, stderr, stdout};

fn rewrap<'a>(from: &'a str, to: &'a str) -> [&'a str; 5] {
    ["rewrap", "--from", from, "--to", to]
}

/// What `run` says while the guard is still with the source.
fn waits_for_its_guard(site: &Site, name: &str) {
    site.fails(&["run", "--config", &format!("{name}.toml")], 69, "guard.redb");
}

#[test]
fn a_seed_moves_to_another_passphrase_and_its_guard_moves_with_it() {
    let site = Site::new();
    let id = site.init("file");
    site.file("new", "new", "seed");
    let moved = site.output(&rewrap("file.toml", "new.toml"));
    assert!(moved.status.success(), "{}", stderr(&moved));
    assert_eq!(stdout(&moved), id.to_string());
    for says in ["stop the signer", "mv ", "guard.redb", "retire the source", "file.sealed", "file.pass"] {
        assert!(stderr(&moved).contains(says), "{says}: {}", stderr(&moved));
    }
    // The source is as it was; the target has all but the guard, of which there is one.
    site.is_node("file", &id);
    assert!(!site.path("new/guard.redb").exists());
    waits_for_its_guard(&site, "new");

    fs::rename(site.path("file/guard.redb"), site.path("new/guard.redb")).unwrap();
    site.is_node("new", &id);
    drop(site.run("new"));
    waits_for_its_guard(&site, "file");
}

/// With one data directory there is nothing to move but the configuration.
#[test]
fn a_seed_moves_within_its_data_directory() {
    let site = Site::new();
    let id = site.init("file");
    site.file("new", "file", "second");
    let moved = site.output(&["rewrap", "--config", "file.toml", "--to", "new.toml"]);
    assert!(moved.status.success() && !stderr(&moved).contains("mv "), "{}", stderr(&moved));
    site.is_node("file", &id);
    fs::remove_file(site.path("file/file.sealed")).unwrap();
    site.is_node("new", &id);
}

#[test]
fn a_seed_goes_into_a_token_and_comes_back() {
    let site = Site::with_tokens(&["one", "two"]);
    let id = site.init("file");
    let config = holdfast_signer::config::SignerConfig::load(&site.path("file.toml")).unwrap();
    let custody = holdfast_signer::custody::open(&config.custody, config.network, &config.data_dir, &id).unwrap();
    let seed = custody.unseal().unwrap();
    site.token("first", "one");
    site.token("second", "two");
    site.file("last", "last", "seed");
    for (from, to) in [("file", "first"), ("first", "second"), ("second", "last")] {
        let moved = site.output(&rewrap(&format!("{from}.toml"), &format!("{to}.toml")));
        assert!(moved.status.success(), "{from} to {to}: {}", stderr(&moved));
        fs::rename(site.path(&format!("{from}/guard.redb")), site.path(&format!("{to}/guard.redb"))).unwrap();
        site.is_node(to, &id);
    }
    assert_eq!(site.files_with(&[seed.as_slice()]), Vec::<String>::new(), "the seed in the clear");
}

#[test]
fn an_identity_that_was_made_in_a_token_stays_there() {
    let site = Site::with_tokens(&["one"]);
    site.token("token", "one");
    let id = site.init("token");
    site.fails(&rewrap("token.toml", "file.toml"), 77, "was made in a token and cannot leave it");
    assert!(!site.path("file").exists());
    site.is_node("token", &id);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let site = Site::new();
    site.file("new", "new", "seed");
    site.fails(&rewrap("file.toml", "new.toml"), 66, "run `holdfast-signer init` first");
    let id = site.init("file");
    site.fails(&["rewrap", "--from", "file.toml"], 64, "--to");
    site.fails(&rewrap("file.toml", "none.toml"), 66, "none.toml");
    site.fails(&rewrap("file.toml", "file.toml"), 77, "never replaced");

    site.configure(
        "elsewhere",
        "elsewhere",
        "signet",
        "backend = \"file\"\n[custody.file]\npath = \"elsewhere/seed\"\npassphrase_file = \"new.pass\"\n",
    );
    site.fails(&rewrap("file.toml", "elsewhere.toml"), 78, "signet");

    site.file("taken", "taken", "seed");
    site.init("taken");
    site.fails(&rewrap("file.toml", "taken.toml"), 73, "never replaced");

    let passphrase = fs::read(site.path("new.pass")).unwrap();
    site.mode("new.pass", 0o644);
    site.fails(&rewrap("file.toml", "new.toml"), 77, "stays in force");
    site.mode("new.pass", 0o600);
    site.secret("file.pass", b"another");
    site.fails(&rewrap("file.toml", "new.toml"), 77, "the passphrase is wrong");
    site.secret("file.pass", b"the passphrase of file\n");
    assert!(!site.path("new/seed.sealed").exists() && !site.path("new/node_id").exists());

    site.secret("new.pass", &passphrase);
    site.ok(&rewrap("file.toml", "new.toml"));
    site.is_node("file", &id);
}
