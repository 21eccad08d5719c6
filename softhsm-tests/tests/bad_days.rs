//! What is wrong is said in one clear line, with an exit code as in sysexits; nothing is made and nothing is lost.
//!
//! `docs/errors.md` is the table of them, and names the test of each.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use holdfast_local::{Deployment, Probe, web};
use holdfast_proto::{
    identity::Role,
    pki::{self, Issued},
};
use holdfast_softhsm_tests::{PROMPT, Scene};

const USAGE: i32 = 64;
const NO_INPUT: i32 = 66;
const UNAVAILABLE: i32 = 69;
const NO_PERMISSION: i32 = 77;
const CONFIG: i32 = 78;

/// A replica that cannot be one of this node ends at its start, not in the middle of a takeover.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_fit_ends_with_one_clear_line() {
    let scene = Scene::of(Deployment::builder().replicas(2).durable(false)).await.unwrap();
    let standby = &scene.replicas()[1];
    standby.stop().unwrap();
    let bad =
        BadNode { program: scene.programs().node.clone(), good: fs::read_to_string(standby.configuration()).unwrap() };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();

    // The configuration.
    let missing = dir.join("missing.toml");
    ends(&run(&bad.program, &missing), NO_INPUT, &["missing.toml", "No such file"]);
    ends(&run_with(&bad.program, &["run"]), USAGE, &["--config"]);
    bad.ends("network = ", "netwrok = ", CONFIG, &["netwrok", "unknown field"]);
    bad.ends("network = \"regtest\"\n", "", CONFIG, &["missing field `network`"]);
    bad.ends("network = \"regtest\"", "network = \"testnet\"", CONFIG, &["testnet"]);

    bad.ends(
        "password_file = ",
        "password_file = \"gone\" # ",
        NO_INPUT,
        &["postgres.password_file", "gone", "No such file"],
    );

    // Who it is.
    let authority = &scene.folder().join("pki-authority");
    let issue = |role, name, lifetime| pki::issue(authority, role, name, dir, lifetime).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    bad.ends_as(&issue(Role::Operator, "imposter", day), CONFIG, &["operator/imposter", "role replica"]);
    let short = issue(Role::Replica, "late", Duration::from_secs(1));
    until(SystemTime::now() + Duration::from_secs(2)).await;
    bad.ends_as(&short, CONFIG, &["replica-late.pem", "expired", "issue a new one"]);
    let elsewhere = dir.join("elsewhere");
    pki::init(&elsewhere, "elsewhere.example").unwrap();
    let mut stranger = pki::issue(&elsewhere, Role::Replica, "stranger", &dir.join("out"), day).unwrap();
    stranger.ca = issue(Role::Replica, "known", day).ca;
    bad.ends_as(&stranger, CONFIG, &["replica-stranger.pem", "not issued by the authority"]);
    let exposed = issue(Role::Replica, "exposed", day);
    Command::new("chmod").args(["644", &exposed.key.display().to_string()]).status().unwrap();
    bad.ends_as(&exposed, CONFIG, &["may be read by others", "chmod 600"]);

    // What it talks to.
    bad.ends("network = \"regtest\"", "network = \"signet\"", CONFIG, &["bitcoind is on another network than signet"]);
    let client = scene.postgres().client().await.unwrap();
    let query = async |sql: &str| client.batch_execute(sql).await.unwrap();
    query("UPDATE holdfast.node SET node_id = set_byte(node_id, 5, get_byte(node_id, 5) # 1)").await;
    bad.ends("", "", CONFIG, &["this database belongs to node", "not to"]);
    query("UPDATE holdfast.node SET node_id = set_byte(node_id, 5, get_byte(node_id, 5) # 1)").await;
    query("INSERT INTO holdfast.schema_version (version, name) VALUES (9999, 'of the future')").await;
    bad.ends("", "", CONFIG, &["schema is version 9999, newer than this program's", "run a newer program"]);
    query("DELETE FROM holdfast.schema_version WHERE version = 9999").await;
    let taken = scene.replicas()[0].health();
    bad.ends(&standby.health(), &taken, UNAVAILABLE, &["listening on", &taken]);

    // Nothing was lost: the leader leads, and the standby stands by as it was.
    standby.start().await.unwrap();
    assert!(scene.info().await.unwrap().is_leader);
}

/// A part that is away is waited for, and named.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_waited_for_and_named() {
    let scene = Scene::of(Deployment::builder().replicas(2).durable(false)).await.unwrap();
    let standby = &scene.replicas()[1];
    let names = async |what: &str, name: &str| {
        let asked = async || {
            let answer = web::get(&standby.health(), "/readyz").await?;
            let named = answer.status == 503 && answer.body.contains(name);
            Ok(Probe::when(named, (), || format!("{} {}", answer.status, answer.body)))
        };
        scene.wait_for(&format!("/readyz to name {what}"), PROMPT, asked).await.unwrap();
        assert!(standby.process().is_running(), "a part that is away ends nothing");
    };
    scene.signer().kill().unwrap();
    names("the signer", "signer: ").await;
    scene.signer().start().await.unwrap();
    standby.ready().await.unwrap();
    scene.bitcoind().stop().unwrap();
    names("bitcoind", "bitcoind: ").await;
    scene.bitcoind().start().await.unwrap();
    standby.ready().await.unwrap();
    let password = fs::read(scene.postgres().password_file()).unwrap();
    fs::write(scene.postgres().password_file(), "wrong").unwrap();
    standby.kill().unwrap();
    standby.process().start().unwrap();
    names("Postgres and the password", "postgres: ").await;
    let answer = web::get(&standby.health(), "/readyz").await.unwrap();
    assert!(answer.body.contains("password authentication failed"), "{}", answer.body);
    fs::write(scene.postgres().password_file(), password).unwrap();
    standby.ready().await.unwrap();
}

/// The signer makes nothing in place of what is missing, and tries a wrong PIN once.
#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_lacks_something_ends_with_one_clear_line() {
    let scene = Scene::of(Deployment::builder().replicas(1).durable(false)).await.unwrap();
    scene.signer().process().kill().unwrap();
    let signer = BadSigner::of(&scene);
    let data = scene.signer().data().to_owned();

    signer.ends("network = ", "netwrok = ", CONFIG, &["netwrok"]);
    signer.ends("token=holdfast", "token=elsewhere", UNAVAILABLE, &["elsewhere"]);
    signer.ends("label = \"holdfast\"", "label = \"other\"", UNAVAILABLE, &["other"]);
    signer.ends("pin_file = \"", "pin_file = \"/nowhere", UNAVAILABLE, &["/nowhere"]);
    let pin = fs::read(scene.token().pin_file()).unwrap();
    fs::write(scene.token().pin_file(), "0000").unwrap();
    signer.ends("", "", NO_PERMISSION, &["PIN"]);
    fs::write(scene.token().pin_file(), pin).unwrap();

    for (file, exit) in [("node_id", NO_INPUT), ("guard.redb", UNAVAILABLE), ("seed.sealed", UNAVAILABLE)] {
        let (here, away) = (data.join(file), data.join("away"));
        fs::rename(&here, &away).unwrap();
        signer.ends("", "", exit, &[file]);
        assert!(!here.exists(), "{file} is not made anew");
        fs::rename(&away, &here).unwrap();
    }
    // Another node's id on record.
    let recorded = fs::read_to_string(data.join("node_id")).unwrap();
    fs::write(data.join("node_id"), "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\n").unwrap();
    signer.ends("", "", NO_PERMISSION, &["0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"]);
    fs::write(data.join("node_id"), recorded).unwrap();

    scene.signer().start().await.unwrap();
}

struct BadNode {
    program: PathBuf,
    good: String,
}

impl BadNode {
    /// With one thing changed it ends so.
    fn ends(&self, what: &str, by: &str, exit: i32, said: &[&str]) {
        assert!(self.good.contains(what), "{what} is not in the configuration");
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        fs::write(file.path(), self.good.replacen(what, by, 1)).unwrap();
        ends(&run(&self.program, file.path()), exit, said);
    }

    /// As somebody else.
    fn ends_as(&self, identity: &Issued, exit: i32, said: &[&str]) {
        let (start, rest) = self.good.split_once("[tls]\n").unwrap();
        let (_, rest) = rest.split_once('[').unwrap();
        let [certificate, key, ca] = [&identity.certificate, &identity.key, &identity.ca].map(|file| file.display());
        let tls = format!("certificate = \"{certificate}\"\nkey = \"{key}\"\nca = \"{ca}\"\n");
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        fs::write(file.path(), format!("{start}[tls]\n{tls}[{rest}")).unwrap();
        ends(&run(&self.program, file.path()), exit, said);
    }
}

struct BadSigner {
    program: PathBuf,
    good: String,
    softhsm: PathBuf,
}

impl BadSigner {
    fn of(scene: &Scene) -> Self {
        let good = fs::read_to_string(scene.signer().configuration()).unwrap();
        Self { program: scene.programs().signer.clone(), good, softhsm: scene.token().configuration().to_owned() }
    }

    fn ends(&self, what: &str, by: &str, exit: i32, said: &[&str]) {
        assert!(self.good.contains(what), "{what} is not in the configuration");
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        fs::write(file.path(), self.good.replacen(what, by, 1)).unwrap();
        let mut command = Command::new(&self.program);
        command.env("SOFTHSM2_CONF", &self.softhsm).args(["run", "--config"]).arg(file.path());
        ends(&finish(command), exit, said);
    }
}

/// It ended with this code, and its last word is one line that says all of this.
fn ends(output: &Output, exit: i32, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    for text in said {
        assert!(stderr.contains(text), "not a word of `{text}` in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn run(program: &Path, config: &Path) -> Output {
    run_with(program, &["run", "--config", &config.display().to_string()])
}

fn run_with(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command)
}

/// Runs it to its end, which has to come soon.
fn finish(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PROMPT;
    loop {
        let ended: Option<ExitStatus> = child.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            // Of one that goes on by itself, so that the failure shows what it said.
            let _ = child.kill();
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn until(moment: SystemTime) {
    while SystemTime::now() < moment {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
