//! A Postgres of the deployment's own, on the loopback interface, with a password.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use tokio_postgres::NoTls;

use crate::{
    files,
    ports::Port,
    process::{Launch, Process},
    wait::{Probe, wait_for},
};

/// Debian's packages make this user; Postgres refuses to run as root.
const UNPRIVILEGED: &str = "postgres";
const ADMINISTRATOR: &str = "postgres";
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: Port,
    cluster: PathBuf,
    administrator_password: String,
    password_file: PathBuf,
}

/// A copy of all of Postgres' files, taken while it was stopped.
#[derive(Debug)]
pub struct Backup {
    copy: PathBuf,
}

impl Postgres {
    pub const DATABASE: &str = "holdfast";
    pub const USER: &str = "holdfast";

    /// Makes a cluster in `<folder>/postgres`, starts it, and makes the database and its user. `durable` is fsync.
    pub(crate) async fn create(folder: &Path, logs: &Path, durable: bool) -> Result<Self> {
        let programs = programs()?;
        let data = folder.join("postgres");
        fs::create_dir(&data)?;
        hand_over(&data)?;

        let administrator_password = files::random_hex();
        let password_file = folder.join("postgres-password");
        files::write_secret(&password_file, &files::random_hex())?;
        let initial = data.join("password");
        files::write_secret(&initial, &administrator_password)?;
        hand_over(&initial)?;
        let cluster = data.join("cluster");
        Launch::new(
            programs.join("initdb"),
            [
                format!("--pgdata={}", cluster.display()),
                format!("--username={ADMINISTRATOR}"),
                format!("--pwfile={}", initial.display()),
                "--auth=scram-sha-256".into(),
                "--encoding=UTF8".into(),
                "--locale=C".into(),
                "--no-sync".into(),
                "--no-instructions".into(),
            ],
        )
        .unprivileged(UNPRIVILEGED)
        .run()
        .context("making a Postgres cluster (the user postgres must be able to reach the folder)")?;
        fs::remove_file(initial)?;

        let port = Port::lease()?;
        let on_off = if durable { "on" } else { "off" };
        let settings = [
            format!("port={}", port.number()),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            format!("fsync={on_off}"),
            format!("full_page_writes={on_off}"),
            "shared_buffers=64MB".into(),
            "max_connections=60".into(),
            "log_line_prefix=%m [%p] %a ".into(),
        ];
        let mut arguments = vec!["-D".to_owned(), cluster.display().to_string()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let launch = Launch::new(programs.join("postgres"), arguments).unprivileged(UNPRIVILEGED);
        let process = Process::new("postgres", launch, logs);

        let postgres = Self { process, port, cluster, administrator_password, password_file };
        postgres.start().await?;
        postgres.create_database().await?;
        Ok(postgres)
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Holds the password of `USER`.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it and waits until it answers. After a kill the orphans of the old one may hold its memory for a
    /// moment, and the new one then ends at once: it is started again.
    pub async fn start(&self) -> Result<()> {
        wait_for("postgres to answer", START, async || {
            if !self.process.is_running() {
                self.process.start()?;
            }
            match self.connect(ADMINISTRATOR, &self.administrator_password, "postgres").await {
                Ok(_) => Ok(Probe::Ready(())),
                Err(error) => Ok(Probe::Waiting(format!("{error:#}\n{}", self.process.log_tail(5)))),
            }
        })
        .await
    }

    /// `SIGKILL` to the postmaster; its children notice and end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Stops it, copies its files, and starts it again.
    pub async fn back_up(&self) -> Result<Backup> {
        self.stop()?;
        let copy = self.cluster.with_file_name(format!("backup-{}", files::random_hex()));
        copy_folder(&self.cluster, &copy)?;
        self.start().await?;
        Ok(Backup { copy })
    }

    /// Stops it, puts the files of the backup in place of its own, and starts it again.
    pub async fn restore(&self, backup: &Backup) -> Result<()> {
        self.stop()?;
        fs::remove_dir_all(&self.cluster)?;
        copy_folder(&backup.copy, &self.cluster)?;
        self.start().await
    }

    /// The node's database and all that is in it is gone; an empty one stands in its place.
    pub async fn lose(&self) -> Result<()> {
        let administrator = self.connect(ADMINISTRATOR, &self.administrator_password, "postgres").await?;
        let (user, database) = (Self::USER, Self::DATABASE);
        administrator.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
        administrator.batch_execute(&format!("CREATE DATABASE {database} OWNER {user}")).await?;
        Ok(())
    }

    pub(crate) fn stop(&self) -> Result<()> {
        self.process.stop(Signal::INT, Duration::from_secs(10))
    }

    /// A connection to the node's database as the node's user.
    pub async fn client(&self) -> Result<tokio_postgres::Client> {
        let password = fs::read_to_string(&self.password_file)?;
        self.connect(Self::USER, &password, Self::DATABASE).await
    }

    async fn create_database(&self) -> Result<()> {
        let administrator = self.connect(ADMINISTRATOR, &self.administrator_password, "postgres").await?;
        let password = fs::read_to_string(&self.password_file)?;
        // The password is hex digits of our own making.
        let (user, database) = (Self::USER, Self::DATABASE);
        administrator.batch_execute(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'")).await?;
        administrator.batch_execute(&format!("CREATE DATABASE {database} OWNER {user}")).await?;
        Ok(())
    }

    async fn connect(&self, user: &str, password: &str, database: &str) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port())
            .user(user)
            .password(password)
            .dbname(database)
            .connect_timeout(Duration::from_secs(5))
            .connect(NoTls)
            .await?;
        // Ends with the client; its error shows in the client's next call.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// The folder of `initdb` and `postgres`: Debian keeps them off PATH, one folder a version.
fn programs() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort();
    if let Some((_, newest)) = versions.pop() {
        return Ok(newest);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .ok_or_else(|| anyhow!("no Postgres server programs found: run 'make system'"))
}

/// With owners and rights.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    Launch::new("cp", ["--archive".to_owned(), from.display().to_string(), to.display().to_string()]).run().map(drop)
}

/// Gives a file to the user whom Postgres will run as.
fn hand_over(path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == UNPRIVILEGED).then_some((user, group))
    });
    let Some((user, group)) = ids else { bail!("there is no user {UNPRIVILEGED}: run 'make system'") };
    chown(path, Some(user), Some(group))?;
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
