//! A signer to talk to.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bitcoin::Network;
use holdfast_proto::{
    identity::{Identity, Role},
    pki,
    tls::Credentials,
};
use holdfast_signer::{
    custody::{Custody, CustodyError, NodeIdentity, Seed},
    guard::EmbeddedStore,
    keys::SeedIdentity,
    rules::RulesConfig,
    service::{SignerCore, serve},
};
use holdfast_signer_client::{
    ClientConfig, Destinations, Error, Fatal, Options, RemoteKeys, Transport, for_each_call, v1,
};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

pub const SEED: [u8; 32] = [42; 32];
pub const TERM: u64 = 3;

/// Custody of a seed that the test knows.
struct Known(Arc<SeedIdentity>);

impl Custody for Known {
    fn backend(&self) -> &'static str {
        "file"
    }
    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.0.clone()
    }
    fn identity_in_token(&self) -> bool {
        false
    }
    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new(SEED))
    }
    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

pub fn core(guard: EmbeddedStore) -> Arc<SignerCore> {
    let identity = Arc::new(SeedIdentity::new(&Zeroizing::new(SEED)).unwrap());
    let core = SignerCore::new(Arc::new(Known(identity)), Network::Regtest, Arc::new(guard), RulesConfig::default());
    Arc::new(core.unwrap())
}

/// A signer without a network between, and with faults to order: each call first uses up one of `faults`.
pub struct InProcess {
    core: Arc<SignerCore>,
    caller: Identity,
    pub faults: Mutex<VecDeque<Error>>,
    calls: Mutex<Vec<&'static str>>,
}

impl InProcess {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            core: core(EmbeddedStore::in_memory().unwrap()),
            caller: Identity::new("test", Role::Replica, "a").unwrap(),
            faults: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    /// The calls since this was last asked.
    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    pub fn order(&self, faults: impl IntoIterator<Item = Error>) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn before(&self, call: &'static str) -> Result<(), Error> {
        self.calls.lock().unwrap().push(call);
        self.faults.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

macro_rules! in_process {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        impl Transport for InProcess {
            $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error> {
                self.before(stringify!($call))?;
                self.core.$call(&self.caller, request)
            })*
        }
    };
}

for_each_call!(in_process);

/// Panics instead of ending the process, with what ended it.
pub fn panic_on_fatal() -> Arc<dyn Fn(Fatal) + Send + Sync> {
    Arc::new(|fatal| panic!("fatal: {fatal}"))
}

pub fn options(deadline: Duration) -> Options {
    Options { deadline, on_fatal: panic_on_fatal() }
}

/// Keys over an in-process signer, in term 3.
pub fn keys(signer: &Arc<InProcess>) -> RemoteKeys {
    signer.announce_term(v1::AnnounceTermRequest { term: TERM }).unwrap();
    let keys = RemoteKeys::over(signer.clone(), options(Duration::from_secs(5)), TERM, Destinations::Signer).unwrap();
    signer.calls();
    keys
}

/// A signer behind gRPC and mutual TLS, with its guard in a file, that can be killed and started again.
pub struct Server {
    dir: tempfile::TempDir,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    runtime: tokio::runtime::Runtime,
    core: std::sync::Weak<SignerCore>,
    // Dropped with the rest; the server is only ever killed.
    _shutdown: oneshot::Sender<()>,
}

impl Server {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        pki::init(&pki, "test").unwrap();
        for role in [Role::Signer, Role::Replica] {
            pki::issue(&pki, role, "a", &pki, Duration::from_secs(3600)).unwrap();
        }
        drop(EmbeddedStore::create(&guard(dir.path())).unwrap());
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Self { dir, address, running: None };
        server.restart();
        server
    }

    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "runs already");
        let core = core(open_guard(&guard(self.dir.path())));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address)).unwrap();
        let (shutdown, wait) = oneshot::channel::<()>();
        let weak = Arc::downgrade(&core);
        let credentials = self.credentials(Role::Signer);
        runtime.spawn(async move {
            let _ = serve(core, listener, credentials, async move { drop(wait.await) }).await;
        });
        self.running = Some(Running { runtime, core: weak, _shutdown: shutdown });
    }

    /// Cuts every connection; nothing is finished.
    pub fn kill(&mut self) {
        let running = self.running.take().expect("runs");
        running.runtime.shutdown_timeout(Duration::from_secs(10));
        assert!(running.core.upgrade().is_none(), "a part of the signer lives on");
    }

    pub fn config(&self, deadline: Duration) -> ClientConfig {
        // The first endpoint is nobody's: what works, works over the second.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        ClientConfig {
            endpoints: vec![nobody.to_string(), self.address.to_string()],
            deadline,
            on_fatal: panic_on_fatal(),
        }
    }

    pub fn credentials(&self, role: Role) -> Credentials {
        let file = |kind: &str| self.dir.path().join(format!("pki/{role}-a.{kind}"));
        Credentials::load(&file("pem"), &file("key"), &self.dir.path().join("pki/ca.pem")).unwrap()
    }
}

/// The store's own thread lets go of the file a moment after the store is dropped.
fn open_guard(path: &Path) -> EmbeddedStore {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match EmbeddedStore::open(path) {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::yield_now();
    }
}

fn guard(dir: &Path) -> PathBuf {
    dir.join("guard")
}
