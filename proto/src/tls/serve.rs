//! The server's side: a stream of connections that have shown who they are.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::{Server, server::Connected};

use super::{Credentials, connect::explain, verify};
use crate::{
    error::Error,
    identity::Identity,
    outage::Outage,
    strangers::{Tally, costliest, origin},
};

/// Accepts and shakes hands until the stream is dropped; feed it to tonic's `serve_with_incoming_shutdown`. Must be called
/// on a tokio runtime.
///
/// Handshakes run side by side, each with a deadline. One that fails is counted and costs nobody else anything: a line a
/// minute has the count and the last reason. The stream itself never yields an error and never ends.
pub fn incoming(listener: TcpListener, credentials: Credentials) -> impl Stream<Item = io::Result<TlsIncoming>> + Send {
    let (ready, stream) = mpsc::channel(16);
    tokio::spawn(accept(listener, credentials, ready));
    ReceiverStream::new(stream)
}

/// A tonic server that notices a dead client within seconds.
pub fn server() -> Server {
    Server::builder().http2_keepalive_interval(Some(PING_EVERY)).http2_keepalive_timeout(Some(PING_TIMEOUT))
}

/// Who is on the other side of a request's connection, in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(pub Identity);

/// The caller's identity. Refused by rule `identity` when the request did not come through [`incoming`].
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Result<Identity, Error> {
    match request.extensions().get::<PeerIdentity>() {
        Some(PeerIdentity(identity)) => Ok(identity.clone()),
        None => Err(Error::refused("identity", "the connection carries no identity")),
    }
}

/// A connection whose client has shown a certificate of our authority and trust domain.
#[derive(Debug)]
pub struct TlsIncoming {
    stream: TlsStream<TcpStream>,
    peer: PeerIdentity,
}

impl Connected for TlsIncoming {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(3);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Beyond so many, each new connection takes the place of one: strangers who connect and say nothing get no more memory than
/// that, and keep nobody else out.
const HANDSHAKES_AT_ONCE: usize = 256;

/// Connections whose handshakes are under way, the oldest first, and where they are from.
#[derive(Default)]
struct Pending(VecDeque<(IpAddr, AbortHandle)>);

impl Pending {
    /// Makes room at the cost of the origin that holds most places: its oldest connection ends.
    fn add(&mut self, address: IpAddr, handshake: AbortHandle) {
        self.0.retain(|(_, handshake)| !handshake.is_finished());
        if self.0.len() >= HANDSHAKES_AT_ONCE
            && let Some(index) = costliest(self.0.iter().enumerate().map(|(index, (origin, _))| (index, *origin)))
            && let Some((origin, handshake)) = self.0.remove(index)
        {
            handshake.abort();
            tracing::debug!(%origin, "too many handshakes at once: ended the oldest from there");
        }
        self.0.push_back((origin(address), handshake));
    }
}

async fn accept(listener: TcpListener, credentials: Credentials, ready: mpsc::Sender<io::Result<TlsIncoming>>) {
    let mut handshakes = JoinSet::new();
    let mut pending = Pending::default();
    let (refusals, outage) = (Arc::new(Mutex::new(Tally::default())), Outage::default());
    loop {
        tokio::select! {
            () = ready.closed() => return,
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, address)) => {
                    if let Some(lasted) = outage.over() {
                        tracing::info!(seconds = lasted.as_secs(), "accepts connections again");
                    }
                    let (acceptor, ready) = (TlsAcceptor::from(credentials.server_config()), ready.clone());
                    let refusals = refusals.clone();
                    let handshake = handshakes.spawn(async move {
                        let why = match time::timeout(HANDSHAKE_DEADLINE, shake_hands(tcp, acceptor)).await {
                            // A closed channel means that the server is shutting down: the connection is simply dropped.
                            Ok(Ok(connection)) => return drop(ready.send(Ok(connection)).await),
                            Ok(Err(why)) => why,
                            Err(_) => "it did not finish its handshake in time".into(),
                        };
                        let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
                        refusals.add();
                        match refusals.due(Instant::now()) {
                            Some(count) => tracing::warn!(%address, why, count, "refused connections; this is the last"),
                            None => tracing::debug!(%address, why, "refused a connection"),
                        }
                    });
                    pending.add(address.ip(), handshake);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when connections end.
                    if outage.failed() {
                        tracing::error!(%error, "cannot accept connections");
                    }
                    time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn shake_hands(tcp: TcpStream, acceptor: TlsAcceptor) -> Result<TlsIncoming, String> {
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream = acceptor.accept(tcp).await.map_err(|e| explain(&e).to_string())?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or("no client certificate")?;
    let peer = PeerIdentity(verify::identity_of(leaf).map_err(|e| e.to_string())?);
    Ok(TlsIncoming { stream, peer })
}

impl AsyncRead for TlsIncoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIncoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
