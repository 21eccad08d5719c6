//! Who may not make a call is told so before anything of it is read: nobody fills the memory with requests that are not
//! his to make.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use holdfast_proto::{error::Error, tls::PeerIdentity};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::Metrics;
use crate::operators::{Operators, required};

#[derive(Clone)]
pub(super) struct Door<S> {
    pub(super) operators: Arc<Operators>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inner: S,
}

impl<S> Door<S> {
    /// Why the request is turned away, if it is. A call that nobody knows goes on: the service says so, and one that it
    /// knows but the table of roles does not is refused there.
    fn refusal<B>(&self, request: &http::Request<B>) -> Option<Status> {
        let (method, _) = request.uri().path().rsplit('/').next().and_then(required)?;
        // Without an identity, which every connection has, the service refuses as well.
        let PeerIdentity(caller) = request.extensions().get()?;
        let error = self.operators.authorise(caller, method).err()?;
        self.metrics.answered::<()>(method, &Err(error.clone()), Duration::ZERO);
        tracing::info!(method, %caller, %error, "turned a caller away");
        Some(Error::into(error))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_proto::{error::Error, identity::Role, node::v1};
    use tonic::Code;

    use super::super::testing::{Fake, Fixture, client_of};

    #[tokio::test]
    async fn each_operator_may_do_what_his_role_lets_him_and_is_told_so_otherwise() {
        let table = "[roles]\nviewer = \"read\"\nshop = \"invoice\"\nlost = \"none\"\nboss = \"admin\"";
        let operators = Arc::new(toml::from_str(table).unwrap());
        let fixture = Fixture::of(Fake { operators, ..Fake::leading() }).await;
        for (name, list, invoice, send, close) in [
            ("stranger", false, false, false, false),
            ("lost", false, false, false, false),
            ("viewer", true, false, false, false),
            ("shop", true, true, false, false),
            ("boss", true, true, true, true),
        ] {
            let mut client = client_of(&fixture, Role::Operator, name).await;
            let did = [
                client.list_payments(v1::ListPaymentsRequest::default()).await.map(drop),
                client.create_invoice(v1::CreateInvoiceRequest::default()).await.map(drop),
                client.send_coins(v1::SendCoinsRequest::default()).await.map(drop),
                client
                    .close_channel(v1::CloseChannelRequest { channel_id: "x".into(), ..Default::default() })
                    .await
                    .map(drop),
            ];
            assert_eq!(did.each_ref().map(Result::is_ok), [list, invoice, send, close], "{name}: {did:?}");
            for refusal in did.into_iter().filter_map(Result::err) {
                assert_eq!(refusal.code(), Code::PermissionDenied, "{name}: {refusal}");
            }
        }
        let mut shop = client_of(&fixture, Role::Operator, "shop").await;
        let status = shop.watch_events(v1::WatchEventsRequest::default()).await.map(drop);
        assert!(status.is_ok(), "{status:?}");
        let status = shop.handover(v1::HandoverRequest {}).await.map(drop).unwrap_err();
        let Error::Refused { rule, why } = Error::from(status) else { panic!("not refused") };
        assert_eq!(rule, "identity");
        assert_eq!(why, "Handover needs the role admin, and operator shop has invoice");
        let text = fixture.metrics.render().unwrap();
        assert!(text.contains("holdfast_api_requests_total{method=\"Handover\",outcome=\"refused\"} 1"), "{text}");
    }

    /// A request beyond what the service reads: who may not make it is refused, who may is told that it is too long.
    #[tokio::test]
    async fn who_may_not_make_a_call_is_refused_before_it_is_read() {
        let operators = Arc::new(toml::from_str("[roles]\nviewer = \"read\"\nboss = \"admin\"").unwrap());
        let fixture = Fixture::of(Fake { operators, ..Fake::leading() }).await;
        let long = v1::CloseChannelRequest { channel_id: "x".repeat(9 << 20), ..Default::default() };
        let mut viewer = client_of(&fixture, Role::Operator, "viewer").await;
        let status = viewer.close_channel(long.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        let mut boss = client_of(&fixture, Role::Operator, "boss").await;
        let status = boss.close_channel(long).await.unwrap_err();
        assert_ne!(status.code(), Code::PermissionDenied, "{status}");
        assert!(fixture.asked.lock().unwrap().is_empty());
    }
}
