//! The command as an operator meets it: against replicas that pretend, over real mutual TLS.

use std::{fs, path::Path, sync::Arc};

use clap::Parser;
use holdfast_proto::{identity::Role, node::v1::PaymentStatus, tls::Credentials};
use tokio::net::TcpListener;

use super::*;
use crate::api::{
    Metrics,
    testing::{Fake, Fixture, Trust},
};

const NODE: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

async fn holdfast(line: &[&str]) -> Result<Output, Failure> {
    run(Args::try_parse_from(std::iter::once("holdfast").chain(line.iter().copied())).unwrap()).await
}

/// As [`holdfast`], with the operator's files of `trust`, against `endpoints`.
async fn operate(trust: &Trust, endpoints: &[&str], line: &[&str]) -> Result<Output, Failure> {
    trust.credentials(Role::Operator, "alice");
    let config = trust.0.path().join("cli.toml");
    let files = "certificate = \"operator-alice.pem\"\nkey = \"operator-alice.key\"\nca = \"ca.pem\"";
    fs::write(&config, format!("endpoints = {endpoints:?}\n{files}")).unwrap();
    let config = config.to_str().unwrap().to_owned();
    let mut all = vec!["--config", &config, "--timeout", "1s"];
    all.extend(line);
    holdfast(&all).await
}

#[tokio::test]
async fn every_command_reaches_the_node_as_it_was_meant() {
    let fixture = Fixture::leading().await;
    let (trust, endpoint) = (&fixture.trust, fixture.endpoint.as_str());
    let (peer, hash) = (format!("{NODE}@127.0.0.1:9735"), "ab".repeat(32));
    for (line, asked) in [
        (vec!["wallet", "send", "bcrt1qx", "5000sat"], "send bcrt1qx Some(5000) None []  ".into()),
        (
            vec!["wallet", "send-all", "bcrt1qx", "--fee-rate", "1.5", "--utxo", "00ff:1", "--label", "rent"],
            "send bcrt1qx None Some(1500) [\"00ff:1\"] rent ".into(),
        ),
        (
            vec!["wallet", "send", "bcrt1qx", "5000sat", "--idempotency-key", "rent-april"],
            "send bcrt1qx Some(5000) None []  rent-april".into(),
        ),
        (vec!["wallet", "bump", &hash, "--fee-rate", "20"], format!("bump {hash} 20000")),
        (vec!["wallet", "label", "bcrt1qx", "rent"], "label bcrt1qx rent".into()),
        (vec!["wallet", "rescan", "10"], "rescan 298".into()),
        (vec!["connect", &peer], format!("connect {NODE} 127.0.0.1:9735")),
        (vec!["disconnect", NODE], format!("disconnect {NODE}")),
        (vec!["open", NODE, "100000sat"], format!("open {NODE}  100000 0 false None None None None")),
        (
            vec!["open", &peer, "100000sat", "--push", "1500msat", "--public"],
            format!("open {NODE} 127.0.0.1:9735 100000 1500 true None None None None"),
        ),
        (
            vec![
                "open",
                NODE,
                "5sat",
                "--fee-rate",
                "1.5",
                "--min-htlc",
                "7msat",
                "--max-htlcs",
                "9",
                "--max-in-flight",
                "50",
            ],
            format!("open {NODE}  5 0 false Some(1500) Some(7) Some(9) Some(50)"),
        ),
        (vec!["close", "abcd"], "close abcd false  None".into()),
        (vec!["close", "abcd", "--to", "bcrt1qx", "--fee-rate", "2"], "close abcd false bcrt1qx Some(2000)".into()),
        (vec!["close", "abcd", "--force", "--yes"], "close abcd true  None".into()),
        (vec!["policy", "abcd", "--base-fee", "1sat", "--fee-ppm", "9"], "policy abcd Some(1000) Some(9) None".into()),
        (vec!["invoice", "any"], "invoice None  3600".into()),
        (vec!["invoice", "2500sat", "order 17", "--expiry", "10m"], "invoice Some(2500000) order 17 600".into()),
        (vec!["pay", "lnbcrt1x"], "pay lnbcrt1x None None 60000".into()),
        (
            vec!["pay", "lnbcrt1x", "--amount", "7msat", "--max-fee", "1sat", "--wait", "0s"],
            "pay lnbcrt1x Some(7) Some(1000) 1".into(),
        ),
        (vec!["keysend", NODE, "10sat", "--wait", "2s"], format!("keysend {NODE} 10000 None 2000")),
        (vec!["settle", &hash], format!("settle {hash} ")),
        (vec!["settle", "--preimage", &hash], format!("settle  {hash}")),
        (vec!["cancel", &hash], format!("cancel {hash}")),
        (
            vec!["offer", "create", "5sat", "tea", "--expiry", "1h", "--label", "shop"],
            "offer Some(5000) tea 3600 shop".into(),
        ),
        (vec!["offer", "disable", &hash], format!("disable {hash}")),
        (vec!["refund", "create", "5sat", "sorry", "--idempotency-key", "r-1"], "refund 5000 sorry 86400 r-1".into()),
        (vec!["refund", "claim", "lnr1x", "--wait", "2s"], "claim lnr1x 2000".into()),
        (vec!["describe-graph", "--node", NODE, "--after", "2"], format!("graph {NODE} 100 2")),
        (
            vec!["find-route", NODE, "5sat", "--max-fee", "1sat", "--max-hops", "3", "--max-parts", "2"],
            format!("route {NODE} 5000 Some(1000) 3 1008 2"),
        ),
        (vec!["probe", NODE, "5sat"], format!("probe {NODE}  5000 30")),
        (vec!["probe", "lnbcrt1x", "--retry-for", "2s"], "probe  lnbcrt1x 0 2".into()),
    ] {
        let output = operate(trust, &[endpoint], &line).await.unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert_eq!(output.exit, Exit::Ok);
        assert_eq!(fixture.asked.lock().unwrap().pop().as_deref(), Some(asked.as_str()), "{line:?}");
    }
    for (line, key, text) in [
        (vec!["info"], "is_leader", "leads, term 7"),
        (vec!["address"], "address", "bcrt1qfake"),
        (vec!["balance"], "onchain_confirmed_sat", "1 000 000 sat"),
        (vec!["wallet", "utxos"], "utxos", "70 000"),
        (vec!["wallet", "addresses", "--change"], "addresses", "change"),
        (vec!["wallet", "labels"], "labels", "rent"),
        (vec!["wallet", "descriptors"], "receive", "wpkh(x/0/*)#abc"),
        (vec!["wallet", "rescan", "10"], "found", "scanned 291 blocks"),
        (vec!["channels"], "channels", "60 000"),
        (vec!["peers"], "peers", "no peers"),
        (vec!["payments"], "payments", "2023-11-14 22:13:20Z"),
        (vec!["forwards"], "totals", "in all 2 forwards of 2 000 sat, which earned 2.002 sat"),
        (vec!["leader", "status"], "history", "lock 1.2 ms"),
        (vec!["handover"], "term", "8"),
        (vec!["offer", "list"], "offers", "coffee"),
        (vec!["describe-graph"], "next", "go on with --after 1"),
        (vec!["describe-graph", "--all"], "channels", "2x1x0"),
        (vec!["find-route", NODE, "5sat"], "parts", "1x2x3"),
        (vec!["channel-backup", "export"], "channels", "peer.example:9735"),
        (vec!["channel-backup", "status"], "channels", "60 000 sat are ours in it"),
    ] {
        let output = operate(trust, &[endpoint], &line).await.unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert!(output.json.get(key).is_some_and(|value| !value.is_null()), "{line:?}: {}", output.json);
        assert!(output.text.contains(text), "{line:?}: {}", output.text);
    }
    let one = operate(trust, &[endpoint], &["payments", &"02".repeat(32)]).await.unwrap();
    assert_eq!((&one.json["status"], &one.json["preimage"]), (&"succeeded".into(), &Value::Null));
}

/// Whatever stands at the other end of stdin, `--json` never asks.
#[tokio::test]
async fn a_forced_close_is_not_done_unconfirmed() {
    let fixture = Fixture::leading().await;
    let line = ["--json", "close", "abcd", "--force"];
    let failure = operate(&fixture.trust, &[&fixture.endpoint], &line).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("cannot be taken back"), "{failure}");
    assert!(failure.hint.unwrap().contains("--yes"));
    assert!(fixture.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_splice_is_refused_with_its_reason() {
    let fixture = Fixture::leading().await;
    for line in [vec!["splice-in", "abcd", "1000sat"], vec!["splice-out", "abcd", "1000sat", "bcrt1qx"]] {
        let failure = operate(&fixture.trust, &[&fixture.endpoint], &line).await.unwrap_err();
        assert_eq!(failure.exit, Exit::NoPermission);
        assert!(failure.message.starts_with("refused by rule splicing: this release does not splice"), "{failure}");
    }
}

#[tokio::test]
async fn the_exit_code_tells_what_became_of_a_payment() {
    for (outcome, exit, says) in [
        (PaymentStatus::Succeeded, Exit::Ok, "succeeded"),
        (PaymentStatus::Failed, Exit::PaymentFailed, "RouteNotFound"),
        (PaymentStatus::Pending, Exit::TryAgain, "still under way"),
    ] {
        let fixture = Fixture::of(Fake { outcome, ..Fake::leading() }).await;
        let output = operate(&fixture.trust, &[&fixture.endpoint], &["pay", "lnbcrt1x"]).await.unwrap();
        assert_eq!(output.exit, exit);
        assert!(output.text.contains(says), "{}", output.text);
    }
}

#[tokio::test]
async fn the_leader_is_found_among_dead_and_standing_by_even_when_only_a_standby_is_known() {
    let trust = Trust::new();
    let (leading, standing_by) = (listen().await, listen().await);
    let (leader, standby) = (address(&leading), address(&standing_by));
    let dead = address(&listen().await);
    let fake = Fake::leading();
    let asked = fake.asked.clone();
    let _leader = trust.serve("a", leading, fake, Arc::new(Metrics::new())).await;
    let fake = Fake::standing_by("a", &leader);
    let _standby = trust.serve("b", standing_by, fake, Arc::new(Metrics::new())).await;

    for endpoints in [vec![dead.as_str(), &standby, &leader], vec![standby.as_str()], vec![leader.as_str()]] {
        operate(&trust, &endpoints, &["close", "abcd"]).await.unwrap();
        assert_eq!(asked.lock().unwrap().pop().as_deref(), Some("close abcd false  None"), "{endpoints:?}");
    }

    let status = operate(&trust, &[&dead, &standby], &["leader", "status"]).await.unwrap();
    let states: Vec<_> = status.json["replicas"].as_array().unwrap().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["unreachable", "standby", "leader"]);
}

#[tokio::test]
async fn without_a_leader_everybody_is_named_with_what_he_said() {
    let trust = Trust::new();
    let standing_by = listen().await;
    let (standby, dead) = (address(&standing_by), address(&listen().await));
    let _standby = trust.serve("b", standing_by, Fake::standing_by("", ""), Arc::new(Metrics::new())).await;

    let failure = operate(&trust, &[&dead, &standby], &["balance"]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    for says in ["no replica leads", &format!("{dead}: "), &format!("{standby}: stands by")] {
        assert!(failure.message.contains(says), "{failure}");
    }
    let failure = operate(&trust, &[&dead], &["info"]).await.unwrap_err();
    assert!(failure.exit == Exit::Unavailable && failure.message.contains("no replica answers"), "{failure}");
    // What the database knows, and what a standby knows of itself, is there all the same.
    assert!(operate(&trust, &[&dead, &standby], &["payments"]).await.is_ok());
    assert!(operate(&trust, &[&dead, &standby], &["info"]).await.is_ok());
    assert_eq!(operate(&trust, &[&dead, &standby], &["leader", "status"]).await.unwrap().exit, Exit::Unavailable);
}

#[tokio::test]
async fn a_leader_that_comes_while_we_look_is_found() {
    let trust = Trust::new();
    let later = listen().await;
    let endpoint = address(&later);
    drop(later);
    let start = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let listener = TcpListener::bind(&endpoint).await.unwrap();
        trust.serve("a", listener, Fake::leading(), Arc::new(Metrics::new())).await
    };
    let endpoints = [endpoint.as_str()];
    let (answer, _server) = tokio::join!(operate(&trust, &endpoints, &["balance"]), start);
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn errors_say_whose_turn_it_is() {
    let fixture = Fixture::leading().await;
    let trust = &fixture.trust;
    let failure = operate(trust, &[&fixture.endpoint], &["close", ""]).await.unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Data, "channel_id: is empty"));
    let failure = operate(trust, &[&fixture.endpoint], &["open", NODE, "1500msat"]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);

    // A replica's certificate is not an operator's.
    let file = |name: &str| trust.0.path().join(name).to_str().unwrap().to_owned();
    let as_replica = ["--cert", &file("replica-a.pem"), "--key", &file("replica-a.key"), "info"];
    let failure = operate(trust, &[&fixture.endpoint], &as_replica).await.unwrap_err();
    assert!(failure.exit == Exit::NoPermission && failure.message.contains("replica/a"), "{failure}");
    let failure = operate(trust, &[&fixture.endpoint], &["--key", &file("replica-a.key"), "info"]).await.unwrap_err();
    assert!(failure.exit == Exit::Config && failure.message.contains("is not the key of"), "{failure}");

    // An operator of another authority, who trusts ours: refused by the replica, and told why.
    let stranger = Trust::new();
    stranger.issue(Role::Operator, "alice");
    let both = fs::read_to_string(file("ca.pem")).unwrap() + &read(stranger.0.path(), "ca.pem");
    let other = |name: &str| stranger.0.path().join(name).to_str().unwrap().to_owned();
    fs::write(stranger.0.path().join("both.pem"), both).unwrap();
    let files = [other("operator-alice.pem"), other("operator-alice.key"), other("both.pem")];
    let line = ["-e", &fixture.endpoint, "--cert", &files[0], "--key", &files[1], "--ca", &files[2], "info"];
    let failure = holdfast(&line).await.unwrap_err();
    assert!(failure.exit == Exit::Config && failure.message.contains("refused our certificate"), "{failure}");
    // And one who trusts his own alone.
    let own = other("ca.pem");
    for command in [vec!["info"], vec!["balance"], vec!["leader", "status"]] {
        let mut line = vec!["-e", &fixture.endpoint, "--cert", &files[0], "--key", &files[1], "--ca", &own];
        line.extend(command);
        let failure = holdfast(&line).await.unwrap_err();
        assert!(failure.exit == Exit::Config && !failure.message.contains("no replica answers"), "{failure}");
        assert!(failure.message.contains("authority") && !failure.message.contains('\n'), "{failure}");
    }
}

/// The database is down: who is there says so, and that is what is told.
#[tokio::test]
async fn an_answer_that_is_an_error_is_told_as_it_is() {
    let trust = Trust::new();
    let (listening, dead) = (listen().await, address(&listen().await));
    let endpoint = address(&listening);
    let fake = Fake { database_away: true, ..Fake::standing_by("", "") };
    let _standby = trust.serve("b", listening, fake, Arc::new(Metrics::new())).await;
    for command in [vec!["info"], vec!["balance"], vec!["leader", "status"]] {
        let failure = operate(&trust, &[&dead, &endpoint], &command).await.unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Unavailable, "postgres: connection refused"));
        assert_eq!(failure.hint, None, "{command:?}");
    }
}

/// The signer is away.
#[tokio::test]
async fn only_what_does_no_harm_is_given_up_on_and_that_is_said() {
    let fixture = Fixture::of(Fake { hangs: true, ..Fake::leading() }).await;
    let endpoints = [fixture.endpoint.as_str()];
    let failure = operate(&fixture.trust, &endpoints, &["invoice", "5sat"]).await.unwrap_err();
    assert!(failure.exit == Exit::TryAgain && failure.message.contains("has not answered within 1s"), "{failure}");
    assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("may have been made all the same")), "{failure}");
    assert_eq!(fixture.asked.lock().unwrap().len(), 1, "it is asked for once");
    let pays = operate(&fixture.trust, &endpoints, &["pay", "lnbcrt1x"]);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(3), pays).await;
    assert!(waited.is_err(), "a payment whose outcome nobody knows is not given up on: {waited:?}");
}

/// The replica dies between taking the request and answering it.
#[tokio::test]
async fn a_lost_answer_to_something_that_acts_is_not_repeated_but_told() {
    let trust = Trust::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let fake = Fake { hangs: true, ..Fake::leading() };
    let asked = fake.asked.clone();
    let credentials = trust.credentials(Role::Replica, "a");
    // On a runtime of its own, whose end closes every socket at once.
    let replica = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    replica.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let metrics = Arc::new(Metrics::new());
        crate::api::serve(Arc::new(fake), metrics, listener, credentials, std::future::pending()).await
    });
    let cut = async {
        while asked.lock().unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        replica.shutdown_background();
    };
    let endpoints = [endpoint.as_str()];
    let (answer, ()) = tokio::join!(operate(&trust, &endpoints, &["pay", "lnbcrt1x"]), cut);
    let failure = answer.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("may have been done")), "{failure}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn settings_that_are_missing_or_wrong_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("cli.toml");
    let path = config.to_str().unwrap();
    for (text, exit, says) in [
        (None, Exit::NoInput, "cli.toml"),
        (Some(""), Exit::Usage, "no replica to talk to"),
        (Some("endpoints = [\"a:1\"]"), Exit::Usage, "no certificate"),
        (Some("endpoint = [\"a:1\"]"), Exit::Config, "endpoint"),
        (Some("endpoints = [\"a\"]"), Exit::Config, "host:port"),
        (
            Some("endpoints = [\"a:1\"]\ncertificate = \"x.pem\"\nkey = \"x.key\"\nca = \"ca.pem\""),
            Exit::Config,
            "x.pem",
        ),
    ] {
        if let Some(text) = text {
            fs::write(&config, text).unwrap();
        }
        let failure = holdfast(&["--config", path, "info"]).await.unwrap_err();
        assert!(failure.exit == exit && failure.message.contains(says), "{text:?}: {failure}");
    }
}

#[tokio::test]
async fn an_authority_and_its_identities_take_four_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
    holdfast(&["pki", "init", "--dir", ca, "--domain", "example"]).await.unwrap();
    holdfast(&["pki", "issue", "--dir", ca, "--out", out, "signer", "s"]).await.unwrap();
    holdfast(&["pki", "issue", "--dir", ca, "--out", out, "replica", "a", "b"]).await.unwrap();
    holdfast(&["pki", "issue", "--dir", ca, "--out", out, "operator", "alice"]).await.unwrap();
    for leaf in ["signer-s", "replica-a", "replica-b", "operator-alice"] {
        let file = |end: &str| Path::new(out).join(format!("{leaf}.{end}"));
        Credentials::load(&file("pem"), &file("key"), &Path::new(out).join("ca.pem")).unwrap();
    }
    let shown = holdfast(&["pki", "show", &format!("{out}/replica-b.pem"), &format!("{out}/ca.pem")]).await.unwrap();
    assert_eq!(shown.json["certificates"][0]["uri"], "spiffe://example/replica/b");
    assert_eq!(shown.json["certificates"][1]["authority"], true);
    assert!(shown.text.contains("364 days left"), "{}", shown.text);

    let again = holdfast(&["pki", "init", "--dir", ca, "--domain", "example"]).await.unwrap_err();
    assert_eq!(again.exit, Exit::CannotCreate);
    let nowhere = holdfast(&["pki", "issue", "--dir", out, "replica", "c"]).await.unwrap_err();
    assert_eq!(nowhere.exit, Exit::Config);
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}
