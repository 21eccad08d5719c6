//! What a peer's certificate must be: issued by our authority, valid now, and carrying an identity of our trust domain.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::TlsError;
use crate::identity::{Identity, IdentityError, Role};

/// Why a certificate does not say who its holder is, or says that it is someone else than it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityProblem {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate has no URI subject alternative name, so nobody can tell whose it is")]
    None,
    #[error("the certificate has {0} URI subject alternative names where one says whose it is")]
    Several(usize),
    #[error("the certificate's identity {0}")]
    Malformed(IdentityError),
    #[error("the certificate is of {is}, outside our trust domain {ours}")]
    Domain { is: String, ours: String },
    #[error("the certificate is of {is}, not of a {expected}")]
    Role { is: String, expected: Role },
}

/// The one URI subject alternative name of a certificate, parsed.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityProblem> {
    uri_of(certificate)?.parse().map_err(IdentityProblem::Malformed)
}

pub(crate) fn uri_of(certificate: &CertificateDer<'_>) -> Result<String, IdentityProblem> {
    let parsed = parse(certificate)?;
    let names =
        parsed.subject_alternative_name().map_err(|e| IdentityProblem::Unreadable(format!("its names: {e}")))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [] => Err(IdentityProblem::None),
        [uri] => Ok(uri.to_owned()),
        _ => Err(IdentityProblem::Several(uris.len())),
    }
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityProblem> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(IdentityProblem::Unreadable("bytes follow it".into())),
        Err(e) => Err(IdentityProblem::Unreadable(e.to_string())),
    }
}

/// rustls does not look at the dates of the authority's own certificate; and of ours it would not say since when.
pub(super) fn valid_now(certificate: &CertificateDer<'_>, file: &Path) -> Result<(), TlsError> {
    let parsed = parse(certificate).map_err(|problem| TlsError::Identity { file: file.to_owned(), problem })?;
    let (validity, now) = (parsed.validity(), x509_parser::time::ASN1Time::now());
    if now > validity.not_after {
        return Err(TlsError::Expired { file: file.to_owned(), since: validity.not_after.to_string() });
    }
    if now < validity.not_before {
        return Err(TlsError::NotYetValid { file: file.to_owned(), from: validity.not_before.to_string() });
    }
    Ok(())
}

/// When it is no longer valid.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let seconds = parse(certificate).ok()?.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

pub(super) fn verify_server(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

/// For a client: the server's chain, then that it is what we meant to call.
#[derive(Debug)]
pub(super) struct ServerOfRole {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    domain: String,
    expect: Role,
}

impl ServerOfRole {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>, domain: String, expect: Role) -> Self {
        Self { roots, provider, domain, expect }
    }
}

impl ServerCertVerifier for ServerOfRole {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server(leaf, intermediates, &self.roots, &self.provider, now)?;
        let identity = in_domain(leaf, &self.domain)?;
        if identity.role != self.expect {
            return Err(refuse(IdentityProblem::Role { is: identity.to_string(), expected: self.expect }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For a server: the client's chain, then that it is of our trust domain. What its role may call is the service's part.
#[derive(Debug)]
pub(super) struct ClientsOfDomain {
    chain: Arc<dyn ClientCertVerifier>,
    domain: String,
}

impl ClientsOfDomain {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, domain: String) -> Self {
        Self { chain, domain }
    }
}

impl ClientCertVerifier for ClientsOfDomain {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        in_domain(leaf, &self.domain)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn in_domain(leaf: &CertificateDer<'_>, domain: &str) -> Result<Identity, Error> {
    let identity = identity_of(leaf).map_err(refuse)?;
    if identity.domain != domain {
        return Err(refuse(IdentityProblem::Domain { is: identity.to_string(), ours: domain.to_owned() }));
    }
    Ok(identity)
}

fn refuse(problem: IdentityProblem) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}
