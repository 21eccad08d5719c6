//! The client's side: a tonic channel whose every connection shows our certificate and checks the other's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{CertificateError, OtherError, pki_types::ServerName};
use tokio::{net::TcpStream, time};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::{
    Credentials,
    serve::{PING_EVERY, PING_TIMEOUT},
};
use crate::{error::Error, identity::Role};

/// Connects to `endpoint` (host:port) and requires the server to be an `expect` of our trust domain. The channel
/// reconnects by itself later, under the same requirement.
///
/// A failure is always [`Error::Unavailable`], certificates included: an expired one is an outage that an operator ends,
/// and must never look like a rule's refusal to code that acts on refusals. [`reach`] tells them apart.
pub async fn connect(
    endpoint: &str,
    credentials: &Credentials,
    expect: Role,
    timeout: Duration,
) -> Result<Channel, Error> {
    reach(endpoint, credentials, expect, timeout).await.map_err(|e| Error::unavailable(e.to_string()))
}

/// As [`connect`], with a failure that says whose certificate was wrong, for programs that report to people.
///
/// TLS 1.3 lets a server refuse *our* certificate only after the client's part of the handshake is done, so that refusal
/// may also arrive as the error of the first call: see [`ConnectError::in_chain`].
pub async fn reach(
    endpoint: &str,
    credentials: &Credentials,
    expect: Role,
    timeout: Duration,
) -> Result<Channel, ConnectError> {
    let connector = Connector::new(endpoint, credentials, expect, timeout);
    let failed = |why| ConnectError { endpoint: endpoint.to_owned(), why };
    let http2 = http2();
    let connecting = http2.connect_with_connector(tower::service_fn(move |_| connector.clone().open()));
    match time::timeout(timeout, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(ConnectError::in_chain(&error)
            .unwrap_or_else(|| failed(ConnectFailure::Unreachable(root_cause(&error).to_string())))),
        Err(_) => Err(failed(ConnectFailure::Silent(timeout))),
    }
}

/// A channel that connects at its first call, and again whenever the connection is lost.
pub fn connect_lazy(endpoint: &str, credentials: &Credentials, expect: Role) -> Channel {
    let connector = Connector::new(endpoint, credentials, expect, CONNECT_DEADLINE);
    http2().connect_with_connector_lazy(tower::service_fn(move |_| connector.clone().open()))
}

/// Why a connection to `endpoint` did not come to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint}: {why}")]
pub struct ConnectError {
    pub endpoint: String,
    pub why: ConnectFailure,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The other side's certificate is not what it must be.
    #[error("{0}")]
    TheirCertificate(String),
    /// The other side did not accept our certificate.
    #[error("the other side refused our certificate: {0}")]
    OurCertificate(String),
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
}

impl ConnectError {
    /// Finds what went wrong with a connection among the sources of an error, such as that of a failed call.
    pub fn in_chain(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            // An alert on a connection that was already in use has been through h2, which keeps only its text.
            if let Some(alert) = error.downcast_ref::<io::Error>().and_then(alert_in) {
                return Some(Self { endpoint: "connection lost".to_owned(), why: explain_alert(&alert) });
            }
            next = error.source();
        }
        None
    }
}

/// In words for a person: rustls prints its own errors in Rust syntax.
pub(super) fn explain(error: &io::Error) -> ConnectFailure {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ConnectFailure::Unreachable(error.to_string());
    };
    match tls {
        rustls::Error::InvalidCertificate(problem) => ConnectFailure::TheirCertificate(match problem {
            CertificateError::Other(OtherError(inner)) => inner.to_string(),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate is of another authority".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet".into()
            }
            other => format!("the certificate is not usable: {other}"),
        }),
        rustls::Error::AlertReceived(alert) => explain_alert(&format!("{alert:?}")),
        rustls::Error::NoCertificatesPresented => ConnectFailure::TheirCertificate("no certificate was shown".into()),
        other => ConnectFailure::Handshake(other.to_string()),
    }
}

fn alert_in(error: &io::Error) -> Option<String> {
    error.to_string().strip_prefix("received fatal alert: ").map(str::to_owned)
}

/// By rustls's names of alerts. What a server finds wrong with a client's certificate is what these say.
fn explain_alert(alert: &str) -> ConnectFailure {
    match alert {
        // A bad signature: the issuer has our authority's name, but not its key.
        "UnknownCA" | "DecryptError" => ConnectFailure::OurCertificate("it is of another authority".into()),
        "CertificateExpired" => ConnectFailure::OurCertificate("it has expired, or is not valid yet".into()),
        "CertificateRequired" => ConnectFailure::OurCertificate("none was shown".into()),
        "CertificateUnknown" | "BadCertificate" | "UnsupportedCertificate" | "CertificateRevoked" | "AccessDenied" => {
            ConnectFailure::OurCertificate(format!("{alert}; its log says why"))
        }
        other => ConnectFailure::Handshake(format!("the other side sent {other}")),
    }
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Connector {
    endpoint: Arc<str>,
    credentials: Credentials,
    expect: Role,
    deadline: Duration,
}

impl Connector {
    fn new(endpoint: &str, credentials: &Credentials, expect: Role, deadline: Duration) -> Self {
        Self { endpoint: endpoint.into(), credentials: credentials.clone(), expect, deadline }
    }

    async fn open(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let opened = time::timeout(self.deadline, async {
            let tcp = TcpStream::connect(&*self.endpoint).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.credentials.client_config(self.expect)).connect(unused_name(), tcp).await
        });
        let why = match opened.await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
            Ok(Err(error)) => explain(&error),
            Err(_) => ConnectFailure::Silent(self.deadline),
        };
        Err(ConnectError { endpoint: self.endpoint.to_string(), why })
    }
}

/// rustls wants a name; with SNI off it is neither sent nor, by our verifier, looked at.
fn unused_name() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The connector decides where to connect, so the URI is only what stands in HTTP/2's `:authority`.
fn http2() -> Endpoint {
    Endpoint::from_static("http://holdfast")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
