//! Two signers of two nodes, each with a token of its own in one SoftHSM: neither takes the other's keys for its own, and the
//! loss of one token is nothing to the other.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use holdfast_local::{
    Probe,
    ports::Port,
    process::{Launch, Process},
    programs::Programs,
    wait::wait_for,
    web,
};
use holdfast_proto::{identity::Role, pki};

const PROMPT: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_two_signers_have_a_token_each() -> Result<()> {
    let hsm = SoftHsm::create()?;
    // One node key in its token, one a child of the seed that its token seals.
    let alice = Signer::create(&hsm, "alice", &[])?;
    let bob = Signer::create(&hsm, "bob", &["--identity", "sealed"])?;
    ensure!(alice.node_id()? != bob.node_id()?);
    for signer in [&alice, &bob] {
        signer.process.start()?;
        signer.wait_until_ready(true).await?;
    }
    ensure!(alice.init().is_err(), "a second init");

    // Pulled out, alice's token is missed by alice alone. Bob's signer needs its own only to start.
    let (here, away) = (hsm.token_of("alice")?, hsm.folder.join("away"));
    fs::rename(&here, &away)?;
    alice.process.kill()?;
    ensure!(alice.fails_to_start().await?.contains("custody unavailable"), "{}", alice.process.log_tail(5));
    bob.wait_until_ready(true).await?;
    fs::rename(&away, &here)?;
    alice.process.start()?;
    alice.wait_until_ready(true).await?;

    // A sealed seed and a recorded node id in front of another token give no node.
    alice.process.kill()?;
    let node_id = alice.data.join("node_id");
    let (own, sealed) = (fs::read(&node_id)?, alice.data.join("seed.sealed"));
    let own_seed = fs::read(&sealed)?;
    for file in ["node_id", "seed.sealed"] {
        fs::copy(bob.data.join(file), alice.data.join(file))?;
    }
    ensure!(alice.fails_to_start().await?.contains("the token shows no"), "{}", alice.process.log_tail(5));
    fs::write(&node_id, own)?;
    ensure!(alice.fails_to_start().await?.contains("belongs to node"), "{}", alice.process.log_tail(5));
    fs::write(&sealed, own_seed)?;
    alice.process.start()?;
    alice.wait_until_ready(true).await
}

struct SoftHsm {
    folder: PathBuf,
    _temporary: tempfile::TempDir,
    programs: Programs,
    configuration: PathBuf,
}

impl SoftHsm {
    fn create() -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().to_owned();
        fs::create_dir(folder.join("tokens"))?;
        let configuration = folder.join("softhsm2.conf");
        fs::write(&configuration, format!("directories.tokendir = {}\n", folder.join("tokens").display()))?;
        pki::init(&folder.join("ca"), "two.tokens")?;
        Ok(Self { folder, _temporary: temporary, programs: Programs::find()?, configuration })
    }

    fn launch<'a>(&self, program: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Launch {
        Launch::new(program, arguments).env("SOFTHSM2_CONF", self.configuration.display().to_string())
    }

    /// The folder of the token with this label: SoftHSM names folders by numbers of its own, and writes the label into a
    /// file of it.
    fn token_of(&self, label: &str) -> Result<PathBuf> {
        let holds = |folder: &PathBuf| {
            fs::read(folder.join("token.object"))
                .is_ok_and(|bytes| bytes.windows(label.len()).any(|w| w == label.as_bytes()))
        };
        let folders = fs::read_dir(self.folder.join("tokens"))?.map(|entry| Ok(entry?.path()));
        folders.collect::<Result<Vec<_>>>()?.into_iter().find(holds).context("no such token")
    }
}

struct Signer {
    process: Process,
    init: Launch,
    data: PathBuf,
    _endpoint: Port,
    health: Port,
}

impl Signer {
    /// Makes a token and, in it, the keys.
    fn create(hsm: &SoftHsm, name: &str, init_with: &[&str]) -> Result<Self> {
        let folder = hsm.folder.join(name);
        let data = folder.join("data");
        fs::create_dir(&folder)?;
        let pin = folder.join("pin");
        fs::write(&pin, "648219")?;
        fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let token = ["--init-token", "--free", "--label", name, "--so-pin", "so-pin-1", "--pin", "648219"];
        hsm.launch(Path::new("softhsm2-util"), token).run()?;
        let issued = pki::issue(&hsm.folder.join("ca"), Role::Signer, name, &folder, YEAR)?;

        let (endpoint, health) = (Port::lease()?, Port::lease()?);
        let configuration = format!(
            "network = \"regtest\"\ndata_dir = \"data\"\nlisten = \"{}\"\nhealth_listen = \"{}\"\n\
             [tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n[custody]\nbackend = \"pkcs11\"\n\
             [custody.pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\ntoken = \"pkcs11:token={name}\"\n\
             pin_file = \"pin\"\n",
            endpoint.address(),
            health.address(),
            issued.certificate,
            issued.key,
            issued.ca,
        );
        let file = folder.join("signer.toml");
        fs::write(&file, configuration)?;
        let file = file.display().to_string();
        let command = |command| hsm.launch(&hsm.programs.signer, [command, "--config", &file]);
        let mut init = command("init");
        init.arguments.extend(init_with.iter().map(|&argument| argument.to_owned()));
        let process = Process::new(name, command("run"), &hsm.folder);
        let signer = Self { process, init, data, _endpoint: endpoint, health };
        signer.init()?;
        Ok(signer)
    }

    fn init(&self) -> Result<()> {
        self.init.run().map(drop)
    }

    fn node_id(&self) -> Result<String> {
        Ok(fs::read_to_string(self.data.join("node_id"))?)
    }

    async fn wait_until_ready(&self, ready: bool) -> Result<()> {
        wait_for("the signer's readiness", PROMPT, async || {
            if !self.process.is_running() {
                return Ok(Probe::Hopeless(format!("it ended:\n{}", self.process.log_tail(10))));
            }
            let status = web::get(&self.health.address().to_string(), "/readyz").await?.status;
            Ok(Probe::when((status == 200) == ready, (), || format!("/readyz says {status}")))
        })
        .await
    }

    /// Starts it, waits for its end, and gives the end of its log.
    async fn fails_to_start(&self) -> Result<String> {
        self.process.start()?;
        wait_for("the end of a start", PROMPT, async || {
            Ok(Probe::when(self.process.exited()?.is_some(), (), || "it runs".into()))
        })
        .await?;
        Ok(self.process.log_tail(1))
    }
}
