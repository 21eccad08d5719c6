//! Backups in shares, and what they restore.

use std::{fs, os::unix::fs::MetadataExt};

use bitcoin::secp256k1::PublicKey;

use crate::site::{Site, stdout};

/// Makes a backup in `out`; gives the names of its shares.
#[track_caller]
fn backup(site: &Site, name: &str, threshold: &str, shares: &str, out: &str) -> Vec<String> {
    let config = format!("{name}.toml");
    let args = ["backup", "--config", &config, "--threshold", threshold, "--shares", shares, "--out", out];
    site.ok(&args).lines().map(Into::into).collect()
}

fn restore<'a>(config: &'a str, expect: &'a str, shares: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["restore", "--config", config];
    if !expect.is_empty() {
        args.extend(["--expect-node-id", expect]);
    }
    args.extend(shares);
    args
}

fn site_with_backup() -> (Site, PublicKey, Vec<String>) {
    let site = Site::new();
    let id = site.init("file");
    let shares = backup(&site, "file", "3", "5", "shares");
    site.file("new", "new", "seed");
    (site, id, shares)
}

#[test]
fn any_three_of_five_shares_restore_the_node_behind_another_passphrase() {
    let (site, id, shares) = site_with_backup();
    assert_eq!(shares.len(), 5);
    for share in &shares {
        assert_eq!(fs::metadata(site.path(share)).unwrap().mode() & 0o777, 0o600);
        let report = site.ok(&["verify-share", "--expect-node-id", &id.to_string(), "--json", share]);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(
            (&report["threshold"], &report["shares"], &report["network"]),
            (&3.into(), &5.into(), &"regtest".into())
        );
    }
    let id = id.to_string();
    for (name, chosen) in [("x", [0, 1, 2]), ("y", [4, 2, 0])] {
        site.file(name, name, "seed");
        let config = format!("{name}.toml");
        let chosen = chosen.map(|i| shares[i].as_str());
        let asked = site.fails(&restore(&config, "", &chosen), 64, "nothing was made");
        assert_eq!(stdout(&asked), id);
        assert!(!site.path(name).exists());
        assert_eq!(site.ok(&restore(&config, &id, &chosen)), id);
        site.is_node(name, &id.parse().unwrap());
        site.fails(&restore(&config, &id, &chosen), 73, "never replaced");
    }
    // More than are needed are no harm.
    let all: Vec<_> = shares.iter().map(String::as_str).collect();
    assert_eq!(site.ok(&restore("new.toml", &id, &all)), id);
}

/// The seed is in none of the files, and a second backup is another one.
#[test]
fn shares_say_nothing_of_the_seed_and_replace_nothing() {
    let (site, id, _) = site_with_backup();
    let config = holdfast_signer::config::SignerConfig::load(&site.path("file.toml")).unwrap();
    let custody = holdfast_signer::custody::open(&config.custody, config.network, &config.data_dir, &id).unwrap();
    let seed = custody.unseal().unwrap();
    backup(&site, "file", "2", "2", "shares");
    assert_eq!(fs::read_dir(site.path("shares")).unwrap().count(), 7);
    assert_eq!(site.files_with(&[seed.as_slice()]), Vec::<String>::new());
}

#[test]
fn wrong_shares_are_refused_and_make_nothing() {
    let (site, id, shares) = site_with_backup();
    let id = id.to_string();
    let share = |i: usize| shares[i].as_str();
    let refused = |shares: &[&str], code, says: &str| {
        site.fails(&restore("new.toml", &id, shares), code, says);
        assert!(!site.path("new").exists());
    };
    refused(&[], 64, "SHARE");
    refused(&[share(0)], 65, "one share is given, and 3 are needed: look for 2 more");
    refused(&[share(0), share(1)], 65, "2 different shares are given, and 3 are needed");
    refused(&[share(0), share(1), share(0)], 65, "share 1 is given twice");
    refused(&[share(0), share(1), "none"], 66, "none");

    let second = backup(&site, "file", "3", "5", "second");
    refused(&[share(0), share(1), &second[2]], 65, "two backups are mixed");
    site.file("other", "other", "seed");
    let other = site.init("other").to_string();
    let foreign = backup(&site, "other", "3", "5", "foreign");
    refused(&[share(0), share(1), &foreign[2]], 65, "two backups are mixed");
    let foreign: Vec<_> = foreign.iter().map(String::as_str).collect();
    refused(&foreign, 65, &other);
    site.fails(&["verify-share", "--expect-node-id", &id, foreign[0]], 65, "not of the one that was expected");

    // A letter, a line, and a line of another share with its checksum right.
    let good = fs::read_to_string(site.path(share(0))).unwrap();
    let lines: Vec<&str> = good.lines().filter(|line| line.starts_with("hfshare1")).collect();
    let letter = if lines[3].ends_with('q') { 'p' } else { 'q' };
    let slip = good.replace(lines[3], &format!("{}{letter}", &lines[3][..lines[3].len() - 1]));
    let another = fs::read_to_string(site.path(share(1))).unwrap();
    let foreign_line = another.lines().rfind(|line| line.starts_with("hfshare1")).unwrap();
    for (content, says) in [
        (slip, "line 4 of the share"),
        (good.replace(lines[3], ""), "line 4 of the share is missing"),
        (good.replace(lines[5], foreign_line), "was changed, or was not made by node"),
        (String::new(), "holds no line of a share"),
        ("network = \"regtest\"".into(), "line 1 of the share"),
    ] {
        site.secret("bad", content.as_bytes());
        refused(&["bad", share(1), share(2)], 65, says);
        site.fails(&["verify-share", "bad"], 65, says);
    }
    site.secret("bad", &[0xff, 0xfe]);
    refused(&["bad", share(1), share(2)], 65, "UTF-8");
    site.mode(share(0), 0o644);
    refused(&[share(0), share(1), share(2)], 77, "chmod 600");
    site.mode(share(0), 0o600);

    site.configure(
        "elsewhere",
        "elsewhere",
        "signet",
        "backend = \"file\"\n[custody.file]\npath = \"elsewhere/seed\"\npassphrase_file = \"new.pass\"\n",
    );
    site.fails(&restore("elsewhere.toml", &id, &[share(0), share(1), share(2)]), 65, "signet");
    site.ok(&restore("new.toml", &id, &[share(0), share(1), share(2)]));
}

#[test]
fn plans_and_places_that_do_not_work_are_refused() {
    let site = Site::new();
    let backup = |threshold: &'static str, shares: &'static str| {
        ["backup", "--config", "file.toml", "--threshold", threshold, "--shares", shares, "--out", "shares"]
    };
    site.fails(&backup("2", "3"), 66, "run `holdfast-signer init` first");
    site.init("file");
    for (threshold, shares) in [("1", "3"), ("4", "3"), ("0", "0")] {
        site.fails(&backup(threshold, shares), 64, "at least 2");
    }
    site.fails(&backup("2", "256"), 64, "256");
    fs::write(site.path("shares"), "a file where the folder should be").unwrap();
    site.fails(&backup("2", "3"), 73, "shares");
}

/// The token's identity is not in the backup, and both commands say so.
#[test]
fn the_backup_of_a_token_s_node_names_what_it_lacks() {
    let site = Site::with_tokens(&["one"]);
    site.token("token", "one");
    let id = site.init("token").to_string();
    let args = ["backup", "--config", "token.toml", "--threshold", "2", "--shares", "2", "--out", "shares"];
    let output = site.output(&args);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not in this backup"));
    let shares: Vec<_> = stdout(&output).lines().map(String::from).collect();
    let shares: Vec<_> = shares.iter().map(String::as_str).collect();
    site.ok(&[&["verify-share", "--expect-node-id", &id][..], &shares].concat());
    site.fails(&restore("file.toml", &id, &shares), 65, "was made in a token");
    assert!(!site.path("file").exists());

    // With no token left, what the seed holds comes back as another node's.
    let other = [&restore("file.toml", "", &shares)[..], &["--as-another-node"]].concat();
    let another = stdout(&site.fails(&other, 64, "nothing was made"));
    assert_ne!(another, id);
    site.fails(&[&restore("file.toml", &id, &shares)[..], &["--as-another-node"]].concat(), 65, &another);
    site.ok(&[&restore("file.toml", &another, &shares)[..], &["--as-another-node"]].concat());
    site.is_node("file", &another.parse().unwrap());
}
