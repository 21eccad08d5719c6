//! What the leader can do with payments beyond making and paying an invoice.

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

/// Hold invoices, BOLT 12, probes, and what others pay us for theirs. Each call returns after the commit of what it did (P2).
#[async_trait]
pub trait PaymentOps: Send + Sync {
    async fn settle_invoice(&self, request: v1::SettleInvoiceRequest) -> Result<v1::Payment, Error>;
    async fn cancel_invoice(&self, request: v1::CancelInvoiceRequest) -> Result<v1::Payment, Error>;
    async fn create_offer(&self, request: v1::CreateOfferRequest) -> Result<v1::Offer, Error>;
    async fn disable_offer(&self, request: v1::DisableOfferRequest) -> Result<v1::Offer, Error>;
    async fn create_refund(&self, request: v1::CreateRefundRequest) -> Result<v1::CreateRefundResponse, Error>;
    async fn claim_refund(&self, request: v1::ClaimRefundRequest) -> Result<v1::Payment, Error>;
    async fn probe(&self, request: v1::ProbeRequest) -> Result<v1::ProbeResponse, Error>;
    async fn set_channel_policy(&self, request: v1::SetChannelPolicyRequest) -> Result<v1::Channel, Error>;
}

#[cfg(test)]
mod fake {
    use super::{super::testing::FakeNode, *};

    #[async_trait]
    impl PaymentOps for FakeNode {
        async fn settle_invoice(&self, q: v1::SettleInvoiceRequest) -> Result<v1::Payment, Error> {
            self.note(format!("settle {} {}", q.payment_hash, q.preimage));
            Ok(self.paid(Some(1000)))
        }

        async fn cancel_invoice(&self, q: v1::CancelInvoiceRequest) -> Result<v1::Payment, Error> {
            self.note(format!("cancel {}", q.payment_hash));
            Ok(v1::Payment { status: v1::PaymentStatus::Failed.into(), ..self.paid(Some(1000)) })
        }

        async fn create_offer(&self, q: v1::CreateOfferRequest) -> Result<v1::Offer, Error> {
            self.note(format!("offer {:?} {} {} {}", q.amount_msat, q.description, q.expiry_seconds, q.label));
            Ok(v1::Offer { offer: "lno1fake".into(), amount_msat: q.amount_msat, ..Default::default() })
        }

        async fn disable_offer(&self, q: v1::DisableOfferRequest) -> Result<v1::Offer, Error> {
            self.note(format!("disable {}", q.offer_id));
            Ok(v1::Offer { offer_id: q.offer_id, disabled_ms: 1_700_000_000_000, ..Default::default() })
        }

        async fn create_refund(&self, q: v1::CreateRefundRequest) -> Result<v1::CreateRefundResponse, Error> {
            self.note(format!("refund {} {} {} {}", q.amount_msat, q.description, q.expiry_seconds, q.idempotency_key));
            let payment = v1::Payment { status: v1::PaymentStatus::Pending.into(), ..self.paid(Some(q.amount_msat)) };
            Ok(v1::CreateRefundResponse { refund: "lnr1fake".into(), payment: Some(payment) })
        }

        async fn claim_refund(&self, q: v1::ClaimRefundRequest) -> Result<v1::Payment, Error> {
            self.note(format!("claim {} {}", q.refund, q.wait_ms));
            Ok(self.paid(Some(1000)))
        }

        async fn probe(&self, q: v1::ProbeRequest) -> Result<v1::ProbeResponse, Error> {
            self.note(format!("probe {} {} {} {}", q.node_id, q.invoice, q.amount_msat, q.timeout_seconds));
            Ok(v1::ProbeResponse { reachable: true, fee_msat: 1001, parts: 1, attempts: 2, ..Default::default() })
        }

        async fn set_channel_policy(&self, q: v1::SetChannelPolicyRequest) -> Result<v1::Channel, Error> {
            self.note(format!("policy {} {:?} {:?} {:?}", q.channel_id, q.base_fee_msat, q.fee_ppm, q.cltv_delta));
            Ok(v1::Channel { channel_id: q.channel_id, fee_ppm: q.fee_ppm.unwrap_or(9), ..Default::default() })
        }
    }
}
