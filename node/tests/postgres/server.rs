//! A Postgres server of one test's own: in a folder that goes with it, on a free port.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_node::leader::{Leadership, ReplicaInfo, stand};
use holdfast_node::store::postgres::{NodeIdentity, PgConfig, PgStore, PgTls};
use tokio_postgres::{Client, NoTls};

pub struct Server {
    folder: tempfile::TempDir,
    bin: PathBuf,
    pub port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl Server {
    pub async fn start(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("holdfast-postgres-").tempdir().unwrap();
        if is_root() {
            let (uid, gid) = postgres_user();
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| option.to_string()).collect();
        let mut server = Self { folder, bin: binaries(), port, options, process: None };
        let data = server.data();
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=holdfast", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.launch().await;
        server
    }

    /// A server that keeps nothing for a power cut, which no test makes: faster.
    pub async fn quick() -> Self {
        Self::start(&["fsync=off", "autovacuum=off"]).await
    }

    pub async fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]);
            command.arg(self.folder.path());
            for option in &self.options {
                command.args(["-c", option]);
            }
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
            let mut process = command.spawn().unwrap();
            while process.try_wait().unwrap().is_none() {
                if self.try_admin("postgres").await.is_some() {
                    self.process = Some(process);
                    return;
                }
                assert!(Instant::now() < deadline, "postgres does not start: {}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The shared memory of a server that was just cut down may still be there.
            assert!(Instant::now() < deadline, "postgres does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Cuts the server down as it stands; the next start recovers from its log.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal("QUIT", process.id());
            process.wait().unwrap();
        }
    }

    pub fn config(&self) -> PgConfig {
        self.config_of("postgres")
    }

    pub fn config_of(&self, database: &str) -> PgConfig {
        PgConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            database: database.into(),
            user: "holdfast".into(),
            password_file: None,
            tls: PgTls::Disable,
        }
    }

    /// A plain connection, for what an operator or an adversary does.
    pub async fn admin(&self) -> Client {
        self.try_admin("postgres").await.unwrap()
    }

    pub async fn admin_of(&self, database: &str) -> Client {
        self.try_admin(database).await.unwrap()
    }

    async fn try_admin(&self, database: &str) -> Option<Client> {
        let url = format!("host=127.0.0.1 port={} user=holdfast dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// A client program of its own, which can be frozen.
    pub fn psql(&self) -> Psql {
        let mut process = self
            .command("psql")
            .args(["-qAtX", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "holdfast", "postgres"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        Psql { process, input }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file that the server takes for its own: a key must be its user's and nobody else's.
    pub fn write_for_postgres(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            let (uid, gid) = postgres_user();
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Postgres refuses to run as root; and whatever becomes of the test, its server ends with it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        command.args(["--pdeathsig", "QUIT"]).arg(self.bin.join(program)).current_dir(self.folder.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

pub struct Psql {
    process: Child,
    input: ChildStdin,
}

impl Psql {
    pub fn say(&mut self, sql: &str) {
        use std::io::Write;
        writeln!(self.input, "{sql}").unwrap();
        self.input.flush().unwrap();
    }

    pub fn freeze(&self) {
        signal("STOP", self.process.id());
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        signal("KILL", self.process.id());
        let _ = self.process.wait();
    }
}

pub const NODE: NodeIdentity = NodeIdentity { node_id: [2; 33], network: bitcoin::Network::Regtest };

pub fn replica(name: &str) -> ReplicaInfo {
    ReplicaInfo { name: name.into(), api_address: format!("{name}:9736"), peer_address: format!("{name}:9735") }
}

/// Leads with a signer that knows no term.
pub async fn lead(config: &PgConfig, name: &str) -> Leadership {
    stand(config, &replica(name), async || Ok::<_, String>(0)).await.unwrap()
}

/// Leads and opens the store.
pub async fn open(config: &PgConfig) -> (Leadership, PgStore) {
    let leadership = lead(config, "first").await;
    let store = PgStore::open(config, leadership.term, NODE).await.unwrap();
    (leadership, store)
}

/// Waits until a query that gives one boolean gives true.
pub async fn until(client: &Client, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "never became true: {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn postgres_user() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("no user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

/// Debian keeps them out of PATH, by version.
fn binaries() -> PathBuf {
    let by_version = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = by_version.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest
        .or_else(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|bin| bin.join("initdb").exists())
        })
        .expect("initdb: install PostgreSQL")
}
