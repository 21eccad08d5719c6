//! Who may not call is told so before anything of the request is read: nobody fills the memory with requests that are
//! not his to make.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use holdfast_proto::tls::PeerIdentity;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::SignerCore;
use crate::rules::{Call, authorise};

#[derive(Clone)]
pub(super) struct Door<S> {
    pub(super) core: Arc<SignerCore>,
    pub(super) inner: S,
}

impl<S> Door<S> {
    /// Why the request is turned away, if it is. A method that nobody knows goes on: the service says so.
    fn refusal<B>(&self, request: &http::Request<B>) -> Option<Status> {
        let call = request.uri().path().rsplit('/').next().and_then(Call::of_method)?;
        // Without an identity, which every connection has, the service refuses as well.
        let PeerIdentity(caller) = request.extensions().get()?;
        authorise(caller, call).err()?;
        // Refused again by it, and so counted and written to the audit log.
        self.core.answer(caller, call, |_| Ok(())).err().map(Status::from)
    }
}

impl<S> Service<http::Request<Body>> for Door<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.refusal(&request) {
            Some(status) => Box::pin(async move { Ok(status.into_http()) }),
            None => Box::pin(self.inner.call(request)),
        }
    }
}

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}
