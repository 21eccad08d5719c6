//! The service on a real socket, with a made-up node behind it.

use holdfast_proto::{identity::Role, node::v1::node_client::NodeClient};

use super::{super::testing::Fixture, *};

#[tokio::test]
async fn an_operator_may_do_everything_and_a_replica_may_ask_who_leads() {
    let fixture = Fixture::leading().await;
    let mut operator = fixture.client(Role::Operator).await;
    assert_eq!(operator.new_address(v1::NewAddressRequest {}).await.unwrap().into_inner().address, "bcrt1qfake");
    assert!(operator.handover(v1::HandoverRequest {}).await.is_ok());

    for role in [Role::Replica, Role::Front, Role::Signer] {
        let mut client = fixture.client(role).await;
        assert_eq!(client.get_leader(v1::GetLeaderRequest {}).await.is_ok(), role == Role::Replica);
        assert_eq!(client.get_info(v1::GetInfoRequest {}).await.is_ok(), role == Role::Replica);
        for status in [
            client.handover(v1::HandoverRequest {}).await.map(drop).unwrap_err(),
            client.new_address(v1::NewAddressRequest {}).await.map(drop).unwrap_err(),
            client.list_payments(v1::ListPaymentsRequest::default()).await.map(drop).unwrap_err(),
            client.pay_invoice(v1::PayInvoiceRequest::default()).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(matches!(Error::from(status), Error::Refused { rule, .. } if rule == "identity"));
        }
    }
}

#[tokio::test]
async fn a_standby_says_where_the_leader_is() {
    let fixture = Fixture::standing_by("b", "10.0.0.2:9736").await;
    let mut operator = fixture.client(Role::Operator).await;
    for status in [
        operator.new_address(v1::NewAddressRequest {}).await.map(drop).unwrap_err(),
        operator.handover(v1::HandoverRequest {}).await.map(drop).unwrap_err(),
    ] {
        let Error::Unavailable { what, .. } = Error::from(status) else { panic!("not unavailable") };
        assert!(what.contains("b leads") && what.contains("10.0.0.2:9736"), "{what}");
    }
    // What the database knows, a standby knows.
    assert!(operator.list_payments(v1::ListPaymentsRequest::default()).await.is_ok());
    assert!(!operator.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().is_leader);
}

#[tokio::test]
async fn payments_are_found_paged_and_bounded() {
    let fixture = Fixture::leading().await;
    let mut operator = fixture.client(Role::Operator).await;
    let all = operator.list_payments(v1::ListPaymentsRequest { limit: u32::MAX, before: None }).await.unwrap();
    assert_eq!(all.into_inner().payments.len(), 3);
    let page = operator.list_payments(v1::ListPaymentsRequest { limit: 1, before: Some(3) }).await.unwrap();
    assert_eq!(page.into_inner().payments[0].sequence, 2);
    let hash = hex::encode([2; 32]);
    let one = operator.get_payment(v1::GetPaymentRequest { payment_hash: hash }).await.unwrap();
    assert_eq!(one.into_inner().sequence, 2);
    for hash in ["", "zz", &hex::encode([9; 32])] {
        let status = operator.get_payment(v1::GetPaymentRequest { payment_hash: hash.into() }).await.unwrap_err();
        assert!(matches!(Error::from(status), Error::Misuse { field, .. } if field == "payment_hash"), "{hash}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_outcome() {
    let fixture = Fixture::leading().await;
    let mut operator: NodeClient<_> = fixture.client(Role::Operator).await;
    operator.list_peers(v1::ListPeersRequest::default()).await.unwrap();
    let bad = v1::GetPaymentRequest { payment_hash: String::new() };
    operator.get_payment(bad).await.unwrap_err();
    let text = fixture.metrics.render().unwrap();
    for line in [
        "holdfast_api_requests_total{method=\"ListPeers\",outcome=\"ok\"} 1",
        "holdfast_api_requests_total{method=\"GetPayment\",outcome=\"misuse\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
