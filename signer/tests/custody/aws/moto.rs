//! moto: an AWS of this test's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aws_sdk_kms::{
    config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider},
    types::KeySpec,
};
use tokio::runtime::{self, Runtime};

use crate::http;

pub const REGION: &str = "eu-central-1";
/// The account of whoever comes with keys that moto did not give.
pub const ACCOUNT: &str = "123456789012";

/// The path of moto_server, beside which there is cfn-lint.
pub fn program() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/scripts/moto.sh");
    let found = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(found.status.success(), "moto is not installed: run 'make moto'");
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

pub struct Moto {
    server: Child,
    pub port: u16,
    runtime: Runtime,
}

impl Moto {
    pub fn start() -> Self {
        let program = program();
        // Somebody may take the port between its choice and its use.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // It ends with the thread that started it, however that ends.
            let server = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", &program, "-H", "127.0.0.1", "-p", &port.to_string()])
                .env("AWS_EC2_METADATA_DISABLED", "true")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut moto = Self { server, port, runtime };
            if moto.is_up() {
                return moto;
            }
        }
        panic!("moto does not start");
    }

    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
            if http::exchange(self.port, "GET", "/moto-api/", &[("host".into(), "moto".into())], b"").is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// An administrator's client, past the proxy.
    pub fn kms(&self) -> aws_sdk_kms::Client {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(administrator())
            .endpoint_url(self.url());
        aws_sdk_kms::Client::from_conf(config.build())
    }

    pub fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(administrator())
            .endpoint_url(self.url());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// A new key's ARN.
    pub fn key(&self) -> String {
        let made = self.block_on(self.kms().create_key().key_spec(KeySpec::SymmetricDefault).send()).unwrap();
        made.key_metadata.unwrap().arn.unwrap()
    }

    /// A call of the older query protocol, by an administrator; the answer's XML.
    pub fn query(&self, service: &str, parameters: &[(&str, &str)]) -> String {
        let encode = |text: &str| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
            text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
        };
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{}={}", name, encode(value))).collect();
        let scope = format!("test/20260101/{REGION}/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00");
        let headers = [
            ("host", format!("{service}.{REGION}.amazonaws.com")),
            ("content-type", "application/x-www-form-urlencoded".into()),
            ("authorization", authorization),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        let answer = http::exchange(self.port, "POST", "/", &headers, pairs.join("&").as_bytes()).unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.status < 300, "{}: {text}", answer.status);
        text
    }

    /// From now on every call is authenticated, and authorised by the policies of who makes it.
    pub fn enforce_policies(&self) {
        let headers = [("host".to_owned(), "moto".to_owned())];
        assert_eq!(http::exchange(self.port, "POST", "/moto-api/reset-auth", &headers, b"0").unwrap().status, 200);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn administrator() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("administrator", "secret", None, None, "test"))
}
