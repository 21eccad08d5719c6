//! BOLT 12 invoices that payees send because we asked for them.

use lightning::{
    blinded_path::message::OffersContext,
    ln::channelmanager::{Bolt12PaymentError, PaymentId},
    offers::invoice::Bolt12Invoice,
    util::ser::Writeable,
};

use super::events::Events;
use crate::store::{
    Effect,
    batch::{PaymentChange, PaymentStatus},
};

impl Events {
    /// Pays the invoice, unless another was first. What cannot be sent ends in an event of its own.
    pub(super) fn invoice_received(
        &self,
        payment_id: PaymentId,
        invoice: &Bolt12Invoice,
        context: Option<&OffersContext>,
    ) {
        self.offers.answered(&payment_id.0);
        let sent = self.manager.send_payment_for_bolt12_invoice(invoice, context);
        if let Err(error) = &sent {
            tracing::info!(%payment_id, ?error, "a BOLT 12 invoice is not paid");
        }
        if is_the_payments(&sent) {
            self.queue.effect(Effect::Payment(PaymentChange {
                payment_hash: Some(invoice.payment_hash().0),
                invoice: Some(hex::encode(invoice.encode())),
                ..self.outbound(payment_id, None, PaymentStatus::Pending)
            }));
        }
    }
}

/// Whether the row of the payment should say that this is its invoice. A payee can send several: the payment is of the
/// first, and one that comes when it has ended is of none.
fn is_the_payments(sent: &Result<(), Bolt12PaymentError>) -> bool {
    !matches!(sent, Err(Bolt12PaymentError::DuplicateInvoice | Bolt12PaymentError::UnexpectedInvoice))
}

#[cfg(test)]
mod tests {
    use lightning::ln::channelmanager::RetryableSendFailure;

    use super::*;

    #[test]
    fn a_second_invoice_is_not_written_over_the_first() {
        assert!(is_the_payments(&Ok(())));
        assert!(!is_the_payments(&Err(Bolt12PaymentError::DuplicateInvoice)));
        assert!(!is_the_payments(&Err(Bolt12PaymentError::UnexpectedInvoice)));
        // An event says that it failed; the row shows the invoice that did.
        assert!(is_the_payments(&Err(Bolt12PaymentError::SendingFailed(RetryableSendFailure::PaymentExpired))));
    }
}
