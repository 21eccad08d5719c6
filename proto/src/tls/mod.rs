//! Mutual TLS between Holdfast's parts: TLS 1.3 only, both sides with a certificate of the same authority, and each side
//! known by the SPIFFE identity in its certificate instead of by a host name.
//!
//! A host name proves where a process runs, which changes; the role proves what it is, which does not. A client
//! therefore says which role it expects, and a server learns who calls from [`peer_identity`].

mod connect;
mod files;
mod serve;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, InconsistentKeys, RootCertStore, ServerConfig, WantsVerifier,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use zeroize::Zeroizing;

use self::files::Files;
use crate::identity::{Identity, Role};

pub use connect::{ConnectError, ConnectFailure, connect, connect_lazy, reach};
pub use serve::{PeerIdentity, TlsIncoming, incoming, peer_identity, server};
pub use verify::IdentityProblem;
pub(crate) use verify::{identity_of, parse, uri_of};

/// A process's own certificate chain and key, and the authority it trusts: loaded, checked against each other and ready
/// to use. Cheap to clone.
///
/// Files that are replaced are read again for the next connection. A new certificate of somebody else, or one that would not
/// have been accepted at the start, is not taken: the old one stays.
#[derive(Clone)]
pub struct Credentials(Arc<Held>);

struct Held {
    identity: Identity,
    current: RwLock<Arc<Inner>>,
    files: Option<Mutex<Files>>,
}

struct Inner {
    expires: SystemTime,
    own: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    client: ConfigBuilder<ClientConfig, WantsVerifier>,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Reads three PEM files: our chain (leaf first), its key, and the authority's certificates.
    ///
    /// Whatever would make the other side refuse us later is an error here: expiry, another authority, a key that does
    /// not fit, no identity. So is a key file that others may read.
    pub fn load(certificate: &Path, key: &Path, ca: &Path) -> Result<Self, TlsError> {
        // Before reading: what changes in between is read again.
        let files = Files::new([certificate, key, ca]);
        let (identity, inner) = files.load()?;
        Ok(Self::holding(identity, inner, Some(files)))
    }

    fn holding(identity: Identity, inner: Inner, files: Option<Files>) -> Self {
        Self(Arc::new(Held { identity, current: RwLock::new(Arc::new(inner)), files: files.map(Mutex::new) }))
    }

    /// As [`Self::load`], from PEM in memory.
    pub fn from_pem(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, TlsError> {
        let pem = Pem {
            certificate: Zeroizing::new(certificate.to_vec()),
            key: Zeroizing::new(key.to_vec()),
            ca: Zeroizing::new(ca.to_vec()),
        };
        let (identity, inner) = Inner::build(&pem, Path::new("<certificate>"), Path::new("<key>"), Path::new("<ca>"))?;
        Ok(Self::holding(identity, inner, None))
    }

    /// Who the own certificate says that we are.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// When the first of our chain's and the authority's certificates expires, and with it these credentials.
    pub fn expires(&self) -> SystemTime {
        self.current().expires
    }

    /// What the files say now, if that is of use.
    fn current(&self) -> Arc<Inner> {
        if let Some(files) = &self.0.files {
            let renewed = files.lock().unwrap_or_else(PoisonError::into_inner).renewed(&self.0.identity);
            if let Some(renewed) = renewed {
                *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
            }
        }
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn client_config(&self, expect: Role) -> Arc<ClientConfig> {
        let inner = self.current();
        let verifier = verify::ServerOfRole::new(
            inner.roots.clone(),
            inner.provider.clone(),
            self.0.identity.domain.clone(),
            expect,
        );
        let mut config = inner
            .client
            .clone()
            .dangerous() // rustls's word for a verifier of one's own; ours verifies the chain and then the identity
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(inner.own.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        self.current().server.clone()
    }
}

impl Inner {
    fn build(pem: &Pem, certificate: &Path, key: &Path, ca: &Path) -> Result<(Identity, Self), TlsError> {
        let chain = certificates(&pem.certificate, certificate)?;
        let leaf = &chain[0];
        let identity = verify::identity_of(leaf)
            .map_err(|problem| TlsError::Identity { file: certificate.to_owned(), problem })?;
        verify::valid_now(leaf, certificate)?;

        let mut expires = chain.iter().filter_map(verify::expires).min();
        let mut roots = RootCertStore::empty();
        for root in certificates(&pem.ca, ca)? {
            verify::valid_now(&root, ca)?;
            expires = expires.into_iter().chain(verify::expires(&root)).min();
            roots.add(root).map_err(|e| TlsError::Unusable { file: ca.to_owned(), why: e.to_string() })?;
        }
        let roots = Arc::new(roots);

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let unusable = |e: rustls::Error| TlsError::Unusable { file: certificate.to_owned(), why: e.to_string() };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| TlsError::Unusable { file: ca.to_owned(), why: e.to_string() })?;
        clients.verify_client_cert(leaf, &chain[1..], UnixTime::now()).map_err(|e| match e {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                TlsError::OtherAuthority { file: certificate.to_owned(), ca: ca.to_owned() }
            }
            e => unusable(e),
        })?;
        if identity.role != Role::Operator {
            verify::verify_server(leaf, &chain[1..], &roots, &provider, UnixTime::now()).map_err(unusable)?;
        }

        let private = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|_| TlsError::Pem { file: key.to_owned(), wants: "private key" })?;
        let own = CertifiedKey::from_der(chain, private, &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { key: key.to_owned(), certificate: certificate.to_owned() }
            }
            e => TlsError::Unusable { file: key.to_owned(), why: e.to_string() },
        })?;
        let own = Arc::new(SingleCertAndKey::from(own));

        const TLS_1_3: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let client =
            ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(TLS_1_3).map_err(unusable)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(TLS_1_3)
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(verify::ClientsOfDomain::new(clients, identity.domain.clone())))
            .with_cert_resolver(own.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would not show its certificate again, and so outlive it.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let expires = expires.unwrap_or(SystemTime::UNIX_EPOCH);
        Ok((identity, Self { expires, own, roots, provider, client, server: Arc::new(server) }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.identity.to_string()).finish()
    }
}

/// What is wrong with our own TLS files. Each names the file to look at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} may be read by others (mode {mode:03o}): chmod 600 {}", file.display(), file.display())]
    Exposed { file: PathBuf, mode: u32 },
    #[error("{} holds no {wants} in PEM", file.display())]
    Pem { file: PathBuf, wants: &'static str },
    #[error("{}: {problem}", file.display())]
    Identity { file: PathBuf, problem: IdentityProblem },
    #[error("{} expired on {since}: issue a new one", file.display())]
    Expired { file: PathBuf, since: String },
    #[error("{} is not valid before {from}: is this machine's clock right?", file.display())]
    NotYetValid { file: PathBuf, from: String },
    #[error("{} was not issued by the authority in {}", file.display(), ca.display())]
    OtherAuthority { file: PathBuf, ca: PathBuf },
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("{} cannot be used: {why}", file.display())]
    Unusable { file: PathBuf, why: String },
}

/// Reads a file that holds a secret, and refuses one that its group or others may touch.
pub fn read_private(file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = |source| TlsError::Read { file: file.to_owned(), source };
    let mut handle = fs::File::open(file).map_err(read)?;
    let metadata = handle.metadata().map_err(read)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { file: file.to_owned(), mode });
    }
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    handle.read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

struct Pem {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    ca: Zeroizing<Vec<u8>>,
}

const ALPN: &[u8] = b"h2";

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

/// At least one certificate.
fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing = || TlsError::Pem { file: file.to_owned(), wants: "certificate" };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| missing())?;
    if all.is_empty() { Err(missing()) } else { Ok(all) }
}
