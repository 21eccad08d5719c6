//! Fetching a file over HTTPS: bounded in size and time, and through Tor if that is how connections are made.

use std::{error::Error, fmt, fs, io, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::{Body, Bytes},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::Outbound;

/// An address to fetch from: `https://host[:port]/path`, or `http://` on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FetchUrl {
    is_tls: bool,
    host: String,
    port: u16,
    /// Without a `/` at its end.
    path: String,
}

impl FetchUrl {
    /// The address of what lies below.
    pub fn below(&self, name: impl fmt::Display) -> Self {
        Self { path: format!("{}/{name}", self.path), ..self.clone() }
    }

    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for FetchUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` {why}");
        let uri: Uri = text.parse().map_err(|error| format!("`{text}` is no address: {error}"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("names no host"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                if bare != "localhost" && !bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
                    return Err(bad("would be fetched unprotected: use https, or http on this machine"));
                }
                false
            }
            _ => return Err(bad("must begin with https://")),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad("holds a user or a password"));
        }
        if uri.query().is_some() {
            return Err(bad("holds a query"));
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl TryFrom<String> for FetchUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A server to fetch from, and whose word is taken that it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub url: FetchUrl,
    /// Certificates in PEM: the authorities that are trusted with `https`. Without a file, the machine's.
    pub ca_file: Option<PathBuf>,
}

impl Source {
    /// TLS that trusts whom this source says. Reads files.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let roots = match &self.ca_file {
            _ if !self.url.is_tls => RootCertStore::empty(),
            Some(file) => {
                let bad = |why: String| format!("the authorities in {}: {why}", file.display());
                roots_in(&fs::read(file).map_err(|error| bad(error.to_string()))?).map_err(bad)?
            }
            None => machine_roots()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn roots_in(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in it".into()) } else { Ok(roots) }
}

fn machine_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    match (roots.add_parsable_certificates(found.certs), found.errors.first()) {
        ((1.., _), _) => Ok(roots),
        (_, Some(error)) => Err(format!("the machine's certificate authorities cannot be read: {error}")),
        (_, None) => Err("the machine has no certificate authorities: install ca-certificates".into()),
    }
}

/// What lies at `url`, if it is at most `limit` bytes and is here within `patience`. Follows no redirection.
pub async fn fetch(
    outbound: &Outbound,
    tls: &Arc<ClientConfig>,
    url: &FetchUrl,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, String> {
    let work = async {
        // Tor need not tell the server of gossip and our peers apart by circuit.
        let stream = outbound.connect(&url.authority(), "gossip").await?;
        if !url.is_tls {
            return get(stream, url, limit).await;
        }
        let bare = url.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(tls.clone());
        get(connector.connect(name, stream).await.map_err(explain)?, url, limit).await
    };
    let result = tokio::time::timeout(patience, work).await;
    result.unwrap_or_else(|_| Err(format!("not here within {patience:?}"))).map_err(|why| format!("{url}: {why}"))
}

/// What is wrong with TLS; the commonest in more words than the library's own.
fn explain(error: io::Error) -> String {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is of no authority that is trusted here (UnknownIssuer)".into()
        }
        _ => error.to_string(),
    }
}

/// What went wrong, and why; hyper tells the second only when asked.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn get<S>(stream: S, url: &FetchUrl, limit: usize) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let request = Request::get(path)
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!("the server answers {}", response.status()));
        }
        if response.body().size_hint().lower() > limit as u64 {
            return Err(format!("length limit exceeded: it is larger than {limit} bytes"));
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| with_causes(error.as_ref()))
    };
    // Neither does anything without the other.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may end while the last bytes of the body wait to be read.
        ended = &mut connection => match answer.await {
            Err(why) => Err(ended.err().map_or(why, |error| with_causes(&error))),
            body => body,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_protected_or_on_this_machine() {
        let url = |text: &str| text.parse::<FetchUrl>();
        assert_eq!(
            url("https://rapidsync.example/snapshot/").unwrap().below(0).to_string(),
            "https://rapidsync.example:443/snapshot/0"
        );
        for good in ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1", "https://example"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for (text, says) in [
            ("http://example/x", "unprotected"),
            ("http://127.0.0.1.example/x", "unprotected"),
            ("ftp://example", "https://"),
            ("example", "must begin with https://"),
            ("https://", "is no address"),
            ("https://user:pass@example", "password"),
            ("https://example/x?y=1", "query"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
