//! The two programs as a shell or a service manager meets them.

use std::process::{Command, Output};

use holdfast_node::config::COMMENTED_DEFAULT;

fn node(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-node")).args(args).output().unwrap()
}

fn holdfast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOME").env_remove("XDG_CONFIG_HOME").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_printed_configuration_is_the_documented_one() {
    let printed = node(&["config"]);
    assert!(printed.status.success());
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), COMMENTED_DEFAULT);
}

#[test]
fn a_bad_configuration_ends_the_node_with_78_and_says_where_it_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let path = file.to_str().unwrap();
    let missing = node(&["run", "--config", path]);
    assert_eq!(missing.status.code(), Some(66));
    assert!(stderr(&missing).contains(path));

    std::fs::write(&file, COMMENTED_DEFAULT.replace("network = ", "netwrok = ")).unwrap();
    let typo = node(&["run", "--config", path]);
    assert_eq!(typo.status.code(), Some(78));
    assert!(stderr(&typo).contains("netwrok"), "{}", stderr(&typo));

    // Parses, but the certificate it names is not there.
    let mut text = COMMENTED_DEFAULT.replace("/etc/holdfast/", "");
    for (from, to) in [
        ("\npassword_file = ", "\n#password_file = "),
        ("\nca_file = ", "\n#ca_file = "),
        ("\n#tls = \"require\"", "\ntls = \"disable\""),
        ("\nhost = \"db.example\"", "\nhost = \"127.0.0.1\""),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(&file, text).unwrap();
    let no_certificate = node(&["run", "--config", path]);
    assert_eq!(no_certificate.status.code(), Some(78));
    assert!(stderr(&no_certificate).contains("replica-a.pem"), "{}", stderr(&no_certificate));
}

#[test]
fn usage_errors_are_64_and_help_is_not_an_error() {
    assert_eq!(node(&["lead"]).status.code(), Some(64));
    assert_eq!(holdfast(&["frobnicate"]).status.code(), Some(64));
    assert_eq!(holdfast(&["--help"]).status.code(), Some(0));
    let lost = holdfast(&["info"]);
    assert_eq!(lost.status.code(), Some(64));
    assert!(stderr(&lost).contains("--endpoint"), "{}", stderr(&lost));
}

#[test]
fn json_goes_to_stdout_and_errors_in_json_to_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let made = holdfast(&["--json", "pki", "init", "--dir", dir, "--domain", "example"]);
    assert!(made.status.success());
    let json: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(json["certificate"].as_str().unwrap().ends_with("ca.pem"));

    let again = holdfast(&["pki", "init", "--dir", dir, "--domain", "example", "--json"]);
    assert_eq!((again.status.code(), again.stdout.len()), (Some(73), 0));
    let json: serde_json::Value = serde_json::from_slice(&again.stderr).unwrap();
    assert_eq!(json["error"]["exit_code"], 73);
}
