//! What the leader's on-chain wallet can do.

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

/// The wallet. Each call returns after the commit of what it did (P2).
#[async_trait]
pub trait WalletOps: Send + Sync {
    async fn list_addresses(&self, request: v1::ListAddressesRequest) -> Result<v1::ListAddressesResponse, Error>;
    async fn list_utxos(&self) -> Result<v1::ListUtxosResponse, Error>;
    async fn send_coins(&self, request: v1::SendCoinsRequest) -> Result<v1::SendCoinsResponse, Error>;
    async fn bump_transaction(&self, request: v1::BumpTransactionRequest)
    -> Result<v1::BumpTransactionResponse, Error>;
    async fn set_label(&self, request: v1::SetLabelRequest) -> Result<v1::SetLabelResponse, Error>;
    async fn list_labels(&self) -> Result<v1::ListLabelsResponse, Error>;
    async fn descriptors(&self) -> Result<v1::GetDescriptorsResponse, Error>;
    async fn rescan(&self, request: v1::RescanWalletRequest) -> Result<v1::RescanWalletResponse, Error>;
}

#[cfg(test)]
mod fake {
    use super::{super::testing::FakeNode, *};

    #[async_trait]
    impl WalletOps for FakeNode {
        async fn list_addresses(&self, q: v1::ListAddressesRequest) -> Result<v1::ListAddressesResponse, Error> {
            let given = |index, is_change| v1::WalletAddress {
                address: format!("bcrt1qfake{index}"),
                index,
                is_change,
                is_used: index == 0,
                received_sat: 1000,
                label: "rent".into(),
            };
            let mut addresses = vec![given(0, false)];
            addresses.extend(q.change.then(|| given(1, true)));
            Ok(v1::ListAddressesResponse { addresses, ..Default::default() })
        }

        async fn list_utxos(&self) -> Result<v1::ListUtxosResponse, Error> {
            let utxo = v1::Utxo {
                outpoint: format!("{}:1", "ab".repeat(32)),
                amount_sat: 70_000,
                address: "bcrt1qfake".into(),
                height: Some(120),
                ..Default::default()
            };
            Ok(v1::ListUtxosResponse { utxos: vec![utxo], ..Default::default() })
        }

        async fn send_coins(&self, q: v1::SendCoinsRequest) -> Result<v1::SendCoinsResponse, Error> {
            self.note(format!(
                "send {} {:?} {:?} {:?} {} {}",
                q.address, q.amount_sat, q.feerate_sat_per_kvb, q.utxos, q.label, q.idempotency_key
            ));
            let txid = "ef".repeat(32);
            Ok(v1::SendCoinsResponse {
                txid,
                fee_sat: 141,
                amount_sat: q.amount_sat.unwrap_or(9),
                transaction: vec![2],
                first_txid: String::new(),
            })
        }

        async fn bump_transaction(&self, q: v1::BumpTransactionRequest) -> Result<v1::BumpTransactionResponse, Error> {
            self.note(format!("bump {} {}", q.txid, q.feerate_sat_per_kvb));
            Ok(v1::BumpTransactionResponse { txid: "aa".repeat(32), fee_sat: 282, is_replacement: true })
        }

        async fn set_label(&self, q: v1::SetLabelRequest) -> Result<v1::SetLabelResponse, Error> {
            self.note(format!("label {} {}", q.reference, q.label));
            Ok(v1::SetLabelResponse {})
        }

        async fn list_labels(&self) -> Result<v1::ListLabelsResponse, Error> {
            let label = v1::Label { r#type: "addr".into(), reference: "bcrt1qfake".into(), label: "rent".into() };
            Ok(v1::ListLabelsResponse { labels: vec![label], ..Default::default() })
        }

        async fn descriptors(&self) -> Result<v1::GetDescriptorsResponse, Error> {
            let (receive, change) = ("wpkh(x/0/*)#abc".into(), "wpkh(x/1/*)#def".into());
            Ok(v1::GetDescriptorsResponse { receive, change, next_receive: 3, next_change: 1 })
        }

        async fn rescan(&self, q: v1::RescanWalletRequest) -> Result<v1::RescanWalletResponse, Error> {
            self.note(format!("rescan {}", q.from_height));
            let next_height = (q.from_height + 144).min(301);
            Ok(v1::RescanWalletResponse { next_height, tip_height: 300, found: vec!["cc".repeat(32)] })
        }
    }
}
