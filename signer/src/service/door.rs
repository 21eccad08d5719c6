//! Who may not call is told so before anything of the request is read: nobody fills the memory with requests that are
//! not his to make. Nor with those that are: how large each may be, and how many are under way at once, is limited for
//! each identity, over all of its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use holdfast_proto::{
    error::Error,
    identity::{Identity, Role},
    tls::PeerIdentity,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::SignerCore;
use crate::rules::{Call, authorise};

/// Calls of one identity that are read, wait or are answered at once. More than the streams of a connection: a replica that
/// has one and a half of them is not turned away.
const CALLS: usize = 300;
/// Of those, requests that may be large.
const LARGE_CALLS: usize = 4;

/// How large a request may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// What operators and fronts ask.
    Small,
    /// Beyond a commitment with as many HTLCs as there can be, and beyond any transaction that is relayed.
    Medium,
    /// A PSBT that brings the transactions it spends.
    Large,
}

impl Size {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Small => 64 << 10,
            Self::Medium => 1 << 20,
            Self::Large => 8 << 20,
        }
    }

    fn of(caller: &Identity, call: Call) -> Self {
        match (caller.role, call) {
            (Role::Replica, Call::SignWalletPsbt) => Self::Large,
            (Role::Replica, _) => Self::Medium,
            _ => Self::Small,
        }
    }
}

/// What the identities that have asked hold: one entry for each certificate's name, of which the authority makes few.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<Identity, [Arc<Semaphore>; 2]>>>);

impl Places {
    /// Held until the call is answered or given up.
    fn take(&self, caller: &Identity, size: Size) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        let of_caller = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(caller.clone())
                .or_insert_with(|| [CALLS, LARGE_CALLS].map(|places| Arc::new(Semaphore::new(places))))
                .clone()
        };
        let needed = if size == Size::Large { 2 } else { 1 };
        let taken = of_caller.into_iter().take(needed).map(Semaphore::try_acquire_owned).collect::<Result<_, _>>();
        taken.map_err(|_| Error::unavailable(format!("{caller} has too many calls under way")))
    }
}

#[derive(Clone)]
pub(super) struct Door<S> {
    pub(super) core: Arc<SignerCore>,
    pub(super) places: Places,
    /// The same service, by what it reads at most.
    pub(super) small: S,
    pub(super) medium: S,
    pub(super) large: S,
}

impl<S> Door<S> {
    /// Why the request is turned away, if it is. A method that nobody knows goes on: the service says so.
    fn refusal<B>(&self, request: &http::Request<B>) -> Option<Status> {
        let call = called(request)?;
        // Without an identity, which every connection has, the service refuses as well.
        let PeerIdentity(caller) = request.extensions().get()?;
        authorise(caller, call).err()?;
        // Refused again by it, and so counted and written to the audit log.
        self.core.answer(caller, call, |_| Ok(())).err().map(Status::from)
    }
}

/// The call that the path names.
fn called<B>(request: &http::Request<B>) -> Option<Call> {
    request.uri().path().rsplit('/').next().and_then(Call::of_method)
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
        // Generated services are ready at any time; so each of the three is when it is called.
        self.small.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Some(status) = self.refusal(&request) {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let (Some(call), Some(PeerIdentity(caller))) = (called(&request), request.extensions().get()) else {
            // The service refuses it.
            return Box::pin(self.small.call(request));
        };
        let size = Size::of(caller, call);
        let places = match self.places.take(caller, size) {
            Ok(places) => places,
            Err(error) => return Box::pin(async move { Ok(Status::from(error).into_http()) }),
        };
        let answer = match size {
            Size::Small => self.small.call(request),
            Size::Medium => self.medium.call(request),
            Size::Large => self.large.call(request),
        };
        Box::pin(async move {
            let _places = places;
            answer.await
        })
    }
}

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, name: &str) -> Identity {
        Identity { domain: "test".into(), role, name: name.into() }
    }

    #[test]
    fn places_are_each_identitys_own_and_come_back() {
        let places = Places::default();
        let (one, other) = (identity(Role::Operator, "one"), identity(Role::Operator, "other"));
        let mut held: Vec<_> = (0..CALLS).map(|_| places.take(&one, Size::Small).unwrap()).collect();
        assert!(matches!(places.take(&one, Size::Small), Err(Error::Unavailable { .. })));
        places.take(&other, Size::Small).unwrap();
        held.pop();
        places.take(&one, Size::Small).unwrap();

        let replica = identity(Role::Replica, "one");
        let held: Vec<_> = (0..LARGE_CALLS).map(|_| places.take(&replica, Size::Large).unwrap()).collect();
        assert!(matches!(places.take(&replica, Size::Large), Err(Error::Unavailable { .. })));
        places.take(&replica, Size::Medium).unwrap();
        drop(held);
        places.take(&replica, Size::Large).unwrap();
    }

    #[test]
    fn only_what_needs_it_may_be_large() {
        for call in Call::ALL {
            let sizes = Role::ALL.map(|role| Size::of(&identity(role, "one"), call));
            let replicas = if call == Call::SignWalletPsbt { Size::Large } else { Size::Medium };
            for (role, size) in Role::ALL.into_iter().zip(sizes) {
                assert_eq!(size, if role == Role::Replica { replicas } else { Size::Small }, "{call:?} {role}");
            }
        }
    }
}
