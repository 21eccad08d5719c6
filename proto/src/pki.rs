//! A small certificate authority, enough to run Holdfast with: one self-signed root, and leaves that carry a SPIFFE
//! identity. An organisation with an authority of its own issues the same certificates with it instead.
//!
//! Keys are ECDSA P-256, written with mode 0600. Nothing is ever overwritten.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{
    identity::{Identity, IdentityError, Role},
    tls::{Credentials, IdentityProblem, TlsError, identity_of, parse, read_private, uri_of},
};

/// What a leaf lives for unless told otherwise: one year.
pub const LEAF_LIFETIME: Duration = days(365);

/// The files of an authority, or of one identity issued by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// `None` for the authority itself.
    pub identity: Option<Identity>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority's certificate, beside the others.
    pub ca: PathBuf,
}

/// Makes a new authority for a trust domain: `<dir>/ca.pem` and `<dir>/ca.key`. The directory is made if needed.
pub fn init(dir: &Path, domain: &str) -> Result<Issued, PkiError> {
    // A domain is right exactly when identities can be made in it.
    Identity::new(domain, Role::Operator, "any")?;
    let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
    absent(&[&certificate, &key])?;
    make_dir(dir)?;

    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(&format!("Holdfast authority of {domain}"), &ca_uri(domain))?;
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + (now()? + CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&pair)?.pem();

    write_pair(&certificate, &pem, &key, &pair)?;
    Ok(Issued { identity: None, ca: certificate.clone(), certificate, key })
}

/// Issues `<out>/<role>-<name>.pem` and `.key` from the authority in `dir`, and puts a copy of `ca.pem` beside them.
/// The lifetime ends with the authority's own at the latest.
pub fn issue(dir: &Path, role: Role, name: &str, out: &Path, lifetime: Duration) -> Result<Issued, PkiError> {
    let ca = Authority::load(dir)?;
    let identity = Identity::new(&ca.domain, role, name)?;
    let (certificate, key) = (out.join(format!("{role}-{name}.pem")), out.join(format!("{role}-{name}.key")));
    absent(&[&certificate, &key])?;
    make_dir(out)?;

    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(&format!("{role} {name}"), &identity.to_string())?;
    let now = now()?;
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_add(lifetime).min(ca.not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if role != Role::Operator {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let pem = params.signed_by(&pair, &ca.issuer)?.pem();

    // Exactly what the holder will do first. It fails here if ca.key is not the key of ca.pem.
    let key_pem = Zeroizing::new(pair.serialize_pem());
    Credentials::from_pem(pem.as_bytes(), key_pem.as_bytes(), ca.pem.as_bytes()).map_err(PkiError::Unusable)?;

    let beside = copy_ca(&ca.pem, out)?;
    write_pair(&certificate, &pem, &key, &pair)?;
    Ok(Issued { identity: Some(identity), certificate, key, ca: beside })
}

/// What a certificate says, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `spiffe://<domain>` for an authority.
    pub uri: String,
    /// `None` for an authority.
    pub identity: Option<Identity>,
    pub subject: String,
    pub issuer: String,
    /// Lower-case hex.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Reads the first certificate of a PEM file. Says what it holds even when it has expired.
pub fn show(certificate: &Path) -> Result<Shown, PkiError> {
    let pem = read(certificate)?;
    let der = first_certificate(pem.as_bytes(), certificate)?;
    let identity_error = |problem| TlsError::Identity { file: certificate.to_owned(), problem };
    let parsed = parse(&der).map_err(identity_error)?;
    let uri = uri_of(&der).map_err(identity_error)?;
    let identity = if parsed.is_ca() { None } else { Some(identity_of(&der).map_err(identity_error)?) };
    let validity = parsed.validity();
    let time =
        |t: &x509_parser::time::ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or(0));
    Ok(Shown {
        uri,
        identity,
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: hex::encode(parsed.raw_serial()),
        not_before: time(&validity.not_before),
        not_after: time(&validity.not_after),
    })
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{} exists already, and is never overwritten", .0.display())]
    Exists(PathBuf),
    #[error("{} is another authority's than the one that issues", .0.display())]
    OtherAuthority(PathBuf),
    #[error("cannot write {}: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("{} is no Holdfast authority: {why}", file.display())]
    NotAnAuthority { file: PathBuf, why: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    File(#[from] TlsError),
    #[error("the authority's files do not fit together: {0}")]
    Unusable(TlsError),
    #[error("cannot make a key or certificate: {0}")]
    Crypto(#[from] rcgen::Error),
    #[error("this machine's clock is before 1970")]
    Clock,
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CA_LIFETIME: Duration = days(3650);
/// A new certificate must work at once on a machine whose clock is a little behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 60 * 60)
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    domain: String,
    /// Since the Unix epoch.
    not_after: Duration,
}

impl Authority {
    fn load(dir: &Path) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
        let other = |why: String| PkiError::NotAnAuthority { file: certificate.clone(), why };
        let pem = read(&certificate)?;
        let der = first_certificate(pem.as_bytes(), &certificate)?;
        let parsed = parse(&der).map_err(|e| other(e.to_string()))?;
        let uri = uri_of(&der).map_err(|e| other(e.to_string()))?;
        let domain = uri.strip_prefix("spiffe://").filter(|d| !d.contains('/'));
        let domain =
            domain.ok_or_else(|| other(IdentityProblem::Malformed(IdentityError::Form(uri.clone())).to_string()))?;
        let key_pem = read_private(&key)?;
        let key_pem =
            std::str::from_utf8(&key_pem).map_err(|_| TlsError::Pem { file: key.clone(), wants: "private key" })?;
        let pair = KeyPair::from_pem(key_pem).map_err(|_| TlsError::Pem { file: key.clone(), wants: "private key" })?;
        let not_after = Duration::from_secs(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0));
        Ok(Self { domain: domain.to_owned(), issuer: Issuer::from_ca_cert_der(&der, pair)?, not_after, pem })
    }
}

/// What the authority and its leaves have in common.
fn params(common_name: &str, uri: &str) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    serial[0] &= 0x7f; // a serial number is positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now()?.saturating_sub(CLOCK_SKEW);
    Ok(params)
}

fn ca_uri(domain: &str) -> String {
    format!("spiffe://{domain}")
}

fn now() -> Result<Duration, PkiError> {
    SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| PkiError::Clock)
}

fn read(file: &Path) -> Result<String, PkiError> {
    let read = |source| PkiError::File(TlsError::Read { file: file.to_owned(), source });
    fs::read_to_string(file).map_err(read)
}

fn first_certificate(pem: &[u8], file: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem)
        .map_err(|_| TlsError::Pem { file: file.to_owned(), wants: "certificate" }.into())
}

fn absent(files: &[&PathBuf]) -> Result<(), PkiError> {
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(PkiError::Exists(file.to_path_buf())),
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|source| PkiError::Write { file: dir.to_owned(), source })
}

/// Key first: a certificate without its key is of no use, and a key without a certificate harms nobody.
fn write_pair(certificate: &Path, pem: &str, key: &Path, pair: &KeyPair) -> Result<(), PkiError> {
    write_new(key, Zeroizing::new(pair.serialize_pem()).as_bytes(), 0o600)?;
    write_new(certificate, pem.as_bytes(), 0o644)
}

fn copy_ca(pem: &str, out: &Path) -> Result<PathBuf, PkiError> {
    let file = out.join(CA_CERTIFICATE);
    if file.symlink_metadata().is_err() {
        write_new(&file, pem.as_bytes(), 0o644)?;
    } else if read(&file)? != pem {
        return Err(PkiError::OtherAuthority(file));
    }
    Ok(file)
}

/// Durable when it returns, the directory's entry included.
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut handle = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        handle.write_all(bytes)?;
        handle.sync_all()?;
        fs::File::open(file.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists(file.to_owned()),
        _ => PkiError::Write { file: file.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_issued_can_be_used_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let ca = init(&dir.path().join("ca"), "holdfast.example").unwrap();
        let out = dir.path().join("out");
        for role in Role::ALL {
            let issued = issue(ca.ca.parent().unwrap(), role, "a", &out, LEAF_LIFETIME).unwrap();
            assert_eq!(issued.certificate, out.join(format!("{role}-a.pem")));
            assert_eq!(issued.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            let credentials = Credentials::load(&issued.certificate, &issued.key, &issued.ca).unwrap();
            assert_eq!(Some(credentials.identity().clone()), issued.identity);

            let shown = show(&issued.certificate).unwrap();
            assert_eq!(shown.identity, issued.identity);
            assert_eq!(shown.uri, format!("spiffe://holdfast.example/{role}/a"));
            let lives = shown.not_after.duration_since(SystemTime::now()).unwrap();
            assert!(lives > LEAF_LIFETIME - days(1) && lives <= LEAF_LIFETIME, "{lives:?}");
        }
        let shown = show(&ca.certificate).unwrap();
        assert_eq!((shown.uri.as_str(), shown.identity), ("spiffe://holdfast.example", None));
        assert_eq!(ca.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let dir = tempfile::tempdir().unwrap();
        let ca = init(dir.path(), "d").unwrap();
        let issued = issue(dir.path(), Role::Replica, "a", dir.path(), days(100_000)).unwrap();
        assert_eq!(show(&issued.certificate).unwrap().not_after, show(&ca.certificate).unwrap().not_after);
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let ca = init(dir.path(), "d").unwrap();
        let before = fs::read(&ca.key).unwrap();
        assert!(matches!(init(dir.path(), "d"), Err(PkiError::Exists(_))));
        assert_eq!(fs::read(&ca.key).unwrap(), before);

        let issued = issue(dir.path(), Role::Signer, "s", dir.path(), LEAF_LIFETIME).unwrap();
        let before = fs::read(&issued.key).unwrap();
        assert!(matches!(issue(dir.path(), Role::Signer, "s", dir.path(), LEAF_LIFETIME), Err(PkiError::Exists(_))));
        fs::remove_file(&issued.certificate).unwrap();
        assert!(matches!(issue(dir.path(), Role::Signer, "s", dir.path(), LEAF_LIFETIME), Err(PkiError::Exists(_))));
        assert_eq!(fs::read(&issued.key).unwrap(), before);

        let other = tempfile::tempdir().unwrap();
        init(other.path(), "d").unwrap();
        let mixed = issue(other.path(), Role::Signer, "t", dir.path(), LEAF_LIFETIME);
        assert!(matches!(mixed, Err(PkiError::OtherAuthority(_))));
        assert!(!dir.path().join("signer-t.key").exists());
    }

    #[test]
    fn bad_names_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        assert!(matches!(init(&ca, "No Domain"), Err(PkiError::Identity(_))));
        assert!(!ca.exists());
        init(&ca, "d").unwrap();
        let out = dir.path().join("out");
        assert!(matches!(issue(&ca, Role::Replica, "../a", &out, LEAF_LIFETIME), Err(PkiError::Identity(_))));
        assert!(!out.exists());
    }

    #[test]
    fn an_authority_with_anothers_key_or_an_exposed_one_issues_nothing() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ca, stranger) = (init(dir.path(), "d").unwrap(), init(other.path(), "d").unwrap());
        fs::copy(&stranger.key, &ca.key).unwrap();
        let mixed = issue(dir.path(), Role::Replica, "a", dir.path(), LEAF_LIFETIME);
        assert!(matches!(mixed, Err(PkiError::Unusable(_))), "{mixed:?}");

        fs::set_permissions(&stranger.key, fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = issue(other.path(), Role::Replica, "a", other.path(), LEAF_LIFETIME).unwrap_err().to_string();
        assert!(exposed.contains("chmod 600"), "{exposed}");
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "d").unwrap();
        let issued = issue(dir.path(), Role::Operator, "o", dir.path(), LEAF_LIFETIME).unwrap();
        let fake = tempfile::tempdir().unwrap();
        fs::copy(&issued.certificate, fake.path().join(CA_CERTIFICATE)).unwrap();
        fs::copy(&issued.key, fake.path().join(CA_KEY)).unwrap();
        let issued = issue(fake.path(), Role::Operator, "p", fake.path(), LEAF_LIFETIME);
        assert!(matches!(issued, Err(PkiError::NotAnAuthority { .. })), "{issued:?}");
    }
}
