//! The program itself, confined as it runs, with AWS behind it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use holdfast_proto::{identity::Role, pki};

use crate::{
    moto::REGION,
    proxy::Fault,
    world::{World, isolate},
};

struct Site {
    directory: tempfile::TempDir,
    world: World,
    health: u16,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Site {
    /// `custody` is the table of the backend, less the endpoint.
    fn new(custody: impl FnOnce(&World) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let world = World::new(path, free_port());
        let ca = path.join("ca");
        pki::init(&ca, "holdfast.test").unwrap();
        pki::issue(&ca, Role::Signer, "s", path, Duration::from_secs(3600)).unwrap();
        let (listen, health) = (free_port(), free_port());
        let text = format!(
            "network = \"regtest\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:{listen}\"\n\
             health_listen = \"127.0.0.1:{health}\"\n\
             [tls]\ncertificate = \"signer-s.pem\"\nkey = \"signer-s.key\"\nca = \"ca.pem\"\n{}endpoint = \"{}\"\n",
            custody(&world),
            world.proxy.url()
        );
        fs::write(path.join("signer.toml"), text).unwrap();
        fs::write(path.join("token"), "eyJhbGciOiJub25lIn0.eyJzdWIiOiJob2xkZmFzdCJ9.").unwrap();
        Self { directory, world, health }
    }

    /// With the web identity of a pod.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-signer"));
        isolate(&mut command, self.directory.path());
        command.args(args).current_dir(self.path());
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", self.path().join("token"));
        command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/holdfast-signer").env("AWS_REGION", REGION);
        command.env("AWS_ENDPOINT_URL_STS", self.world.proxy.url());
        command
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.health)) else { return false };
        let mut answer = String::new();
        let asked = write!(stream, "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Runs the signer until it is ready, and gives the calls of that start.
    fn start(&self) -> (Running, Vec<String>) {
        self.world.proxy.calls();
        let child = self.command(&["run", "--config", "signer.toml"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.ready() {
            if running.0.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let _ = running.0.kill();
                let mut log = String::new();
                running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("the signer is not ready: {log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        (running, self.world.proxy.names())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_signer_with_kms_starts_with_one_decrypt() {
    let site = Site::new(|world| {
        format!("[custody]\nbackend = \"aws-kms\"\n[custody.aws-kms]\nkey = \"{}\"\n", world.moto.key())
    });
    let init = site.output(&["init", "--config", "signer.toml"]);
    assert!(init.status.success(), "{}", stderr(&init));
    let (running, calls) = site.start();
    assert_eq!(calls, ["AssumeRoleWithWebIdentity", "Decrypt"]);
    drop(running);

    let again = site.output(&["init", "--config", "signer.toml"]);
    assert!(!again.status.success());
    // What may pass ends with EX_UNAVAILABLE, for a service manager to try again; what does not, with EX_NOPERM.
    for (code, message, exit) in
        [("DisabledException", "", 69), ("AccessDeniedException", "no", 69), ("InvalidCiphertextException", "", 77)]
    {
        site.world.proxy.fail_call("Decrypt", Fault::Answer { status: 400, code, message });
        let run = site.output(&["run", "--config", "signer.toml"]);
        assert_eq!(run.status.code(), Some(exit), "{}", stderr(&run));
        site.world.proxy.heal();
    }
    site.start();
}

#[test]
fn a_signer_with_a_secret_starts_with_one_read() {
    let site = Site::new(|_| {
        "[custody]\nbackend = \"aws-secretsmanager\"\n[custody.aws-secretsmanager]\nsecret = \"holdfast/seed\"\naccount = \"123456789012\"\n".into()
    });
    // Even at the most talkative the seed is not in the log: the secret is given it.
    let init = site.command(&["init", "--config", "signer.toml"]).env("RUST_LOG", "trace").output().unwrap();
    assert!(init.status.success(), "{}", stderr(&init));
    let secret = site.world.proxy.calls().into_iter().find(|call| call.name == "PutSecretValue").unwrap();
    let document: serde_json::Value = serde_json::from_str(secret.body["SecretString"].as_str().unwrap()).unwrap();
    let seed = document["seed"].as_str().unwrap().to_owned();
    assert_eq!(seed.len(), 64);
    let (mut running, calls) = site.start();
    assert_eq!(calls, ["AssumeRoleWithWebIdentity", "GetSecretValue"]);
    running.0.kill().unwrap();
    let mut log = stderr(&init);
    running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(!log.contains(&seed));
    for file in fs::read_dir(site.path().join("data")).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        let found = |part: &[u8]| content.windows(part.len()).any(|window| window == part);
        assert!(!found(seed.as_bytes()) && !found(&hex::decode(&seed).unwrap()), "the seed is on the disk");
    }
}
