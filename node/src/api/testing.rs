//! A replica without a node, database or signer behind it, and its API on a real socket with real certificates.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use holdfast_proto::{
    identity::Role,
    node::v1::node_client::NodeClient,
    pki,
    tls::{self, Credentials},
};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::transport::Channel;

use super::*;

/// Answers with made-up figures, and notes what it was asked to do.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub leads: bool,
    pub leader: String,
    pub leader_api: String,
    pub away: Vec<String>,
    /// What pay and keysend come to.
    pub outcome: v1::PaymentStatus,
    /// Never answers a payment, nor gives an invoice.
    pub hangs: bool,
    /// Cannot say who leads.
    pub database_away: bool,
    pub asked: Arc<Mutex<Vec<String>>>,
    /// While somebody holds it, the signer is away and the node cannot be looked at.
    pub stuck: Arc<Mutex<()>>,
    pub operators: Arc<Operators>,
    pub log: Arc<FakeLog>,
}

impl Fake {
    pub fn leading() -> Self {
        Self { leads: true, outcome: v1::PaymentStatus::Succeeded, leader: "a".into(), ..Self::default() }
    }

    pub fn standing_by(leader: &str, api: &str) -> Self {
        Self { leader: leader.into(), leader_api: api.into(), ..Self::default() }
    }

    fn payments() -> Vec<v1::Payment> {
        let payment = |sequence: u8, direction: v1::PaymentDirection, status: v1::PaymentStatus| v1::Payment {
            payment_hash: hex::encode([sequence; 32]),
            direction: direction.into(),
            status: status.into(),
            amount_msat: Some(u64::from(sequence) * 1000),
            fee_msat: (direction == v1::PaymentDirection::Outbound).then_some(1),
            sequence: sequence.into(),
            kind: "bolt11".into(),
            created_ms: 1_700_000_000_000,
            updated_ms: 1_700_000_000_500,
            ..Default::default()
        };
        vec![
            payment(3, v1::PaymentDirection::Outbound, v1::PaymentStatus::Failed),
            payment(2, v1::PaymentDirection::Outbound, v1::PaymentStatus::Succeeded),
            payment(1, v1::PaymentDirection::Inbound, v1::PaymentStatus::Pending),
        ]
    }
}

#[async_trait]
impl Backend for Fake {
    fn leading(&self) -> Option<Arc<dyn NodeOps>> {
        let node = FakeNode { outcome: self.outcome, hangs: self.hangs, asked: self.asked.clone() };
        self.leads.then(|| Arc::new(node) as Arc<dyn NodeOps>)
    }

    fn readiness(&self) -> Result<(), Vec<String>> {
        if self.stuck.try_lock().is_err() {
            return Err(vec!["signer: no answer".into()]);
        }
        if self.away.is_empty() { Ok(()) } else { Err(self.away.clone()) }
    }

    fn watched(&self) -> Watched {
        let stuck = self.stuck.try_lock().is_err();
        let away = |name| (stuck && name == "signer").then(|| "no answer".into());
        let part = |name| Part { name, away: away(name), took: Some(Duration::from_millis(2)) };
        Watched {
            parts: ["postgres", "signer", "bitcoind"].map(part).into(),
            bitcoind_height: Some(101),
            ..Watched::default()
        }
    }

    fn htlcs(&self) -> Option<Htlcs> {
        let _wait = self.stuck.lock();
        self.leads.then_some(Htlcs { inbound: 1, inbound_msat: 1_000, ..Htlcs::default() })
    }

    fn operators(&self) -> Arc<Operators> {
        self.operators.clone()
    }

    fn events(&self) -> Arc<dyn EventSource> {
        self.log.clone()
    }

    async fn info(&self) -> Result<v1::GetInfoResponse, Error> {
        Ok(v1::GetInfoResponse {
            replica: "a".into(),
            network: "regtest".into(),
            is_leader: self.leads,
            term: 7,
            ..Default::default()
        })
    }

    async fn leader(&self) -> Result<v1::GetLeaderResponse, Error> {
        if self.database_away {
            return Err(Error::unavailable("postgres: connection refused"));
        }
        Ok(v1::GetLeaderResponse {
            term: 7,
            leader: self.leader.clone(),
            api_address: self.leader_api.clone(),
            is_this_replica: self.leads,
            since_ms: 1_700_000_000_000,
            history: vec![v1::Takeover {
                term: 7,
                replica: self.leader.clone(),
                at_ms: 1_700_000_000_000,
                phases_us: [("lock".to_owned(), 1200), ("load".to_owned(), 34_000)].into(),
            }],
        })
    }

    async fn handover(&self) -> Result<v1::HandoverResponse, Error> {
        Ok(v1::HandoverResponse { term: 8 })
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<Option<v1::Payment>, Error> {
        Ok(Self::payments().into_iter().find(|p| p.payment_hash == hex::encode(payment_hash)))
    }

    async fn payments(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Payment>, Error> {
        let older = |p: &v1::Payment| before.is_none_or(|before| p.sequence < before);
        Ok(Self::payments().into_iter().filter(older).take(limit as usize).collect())
    }

    async fn forwards(&self, request: v1::ListForwardsRequest) -> Result<v1::ListForwardsResponse, Error> {
        let v1::ListForwardsRequest { limit, before, since_ms, until_ms, channel, totals } = request;
        self.asked.lock().unwrap().push(format!("forwards {limit} {before:?} {since_ms:?} {until_ms:?} {channel}"));
        let forward = v1::Forward {
            sequence: 17,
            at_ms: 1_700_000_000_000,
            incoming_channel: "ab".repeat(32),
            outgoing_channel: "cd".repeat(32),
            amount_msat: Some(1_000_000),
            fee_msat: Some(1_001),
        };
        let sums = v1::ForwardTotals { count: 2, amount_msat: 2_000_000, fee_msat: 2_002 };
        Ok(v1::ListForwardsResponse { forwards: vec![forward], totals: totals.then_some(sums) })
    }

    async fn offers(&self, _limit: u32, _before: Option<u64>) -> Result<Vec<v1::Offer>, Error> {
        let offer = v1::Offer { offer_id: hex::encode([7; 32]), offer: "lno1fake".into(), ..Default::default() };
        Ok(vec![v1::Offer { description: "coffee".into(), created_ms: 1_700_000_000_000, ..offer }])
    }

    async fn channel_backup(&self) -> Result<v1::ChannelBackup, Error> {
        let channel = v1::ChannelBackupEntry {
            channel_id: "cd".repeat(32),
            counterparty: "02".repeat(33),
            addresses: vec!["peer.example:9735".into()],
            funding_outpoint: format!("{}:1", "ab".repeat(32)),
            capacity_sat: 100_000,
            ..Default::default()
        };
        Ok(v1::ChannelBackup { node_id: "03".repeat(33), network: "regtest".into(), channels: vec![channel] })
    }
}

/// A log in memory, which replicas may share.
#[derive(Debug, Default)]
pub(crate) struct FakeLog {
    pub events: Mutex<Vec<v1::Event>>,
    /// Why it cannot be read.
    pub away: Mutex<Option<String>>,
}

impl FakeLog {
    /// Happens.
    pub fn push(&self, sequence: u64, topic: v1::EventTopic, what: &str) {
        let event = v1::Event { sequence, topic: topic.into(), what: what.into(), ..Default::default() };
        self.events.lock().unwrap().push(event);
    }
}

#[async_trait]
impl EventSource for FakeLog {
    async fn newest(&self) -> Result<u64, Error> {
        if let Some(why) = &*self.away.lock().unwrap() {
            return Err(Error::unavailable(why.clone()));
        }
        Ok(self.events.lock().unwrap().last().map_or(0, |event| event.sequence))
    }

    async fn page(&self, after: u64, limit: u32) -> Result<EventPage, Error> {
        let newest = self.newest().await?;
        let all = self.events.lock().unwrap();
        let events = all.iter().filter(|event| event.sequence > after).take(limit as usize).cloned().collect();
        Ok(EventPage { pruned_through: 0, newest, events })
    }
}

pub(super) struct FakeNode {
    outcome: v1::PaymentStatus,
    hangs: bool,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeNode {
    pub(super) fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    pub(super) fn paid(&self, amount_msat: Option<u64>) -> v1::Payment {
        v1::Payment {
            payment_hash: hex::encode([5; 32]),
            direction: v1::PaymentDirection::Outbound.into(),
            status: self.outcome.into(),
            amount_msat,
            fee_msat: Some(3),
            failure: if self.outcome == v1::PaymentStatus::Failed { "RouteNotFound".into() } else { String::new() },
            ..Default::default()
        }
    }
}

#[async_trait]
impl NodeOps for FakeNode {
    async fn new_address(&self) -> Result<v1::NewAddressResponse, Error> {
        Ok(v1::NewAddressResponse { address: "bcrt1qfake".into() })
    }

    async fn balance(&self) -> Result<v1::GetBalanceResponse, Error> {
        Ok(v1::GetBalanceResponse { onchain_confirmed_sat: 1_000_000, lightning_sat: 500, ..Default::default() })
    }

    async fn connect_peer(&self, q: v1::ConnectPeerRequest) -> Result<v1::ConnectPeerResponse, Error> {
        self.note(format!("connect {} {}", q.node_id, q.address));
        Ok(v1::ConnectPeerResponse {})
    }

    async fn disconnect_peer(&self, q: v1::DisconnectPeerRequest) -> Result<v1::DisconnectPeerResponse, Error> {
        self.note(format!("disconnect {}", q.node_id));
        Ok(v1::DisconnectPeerResponse {})
    }

    async fn list_peers(&self) -> Result<v1::ListPeersResponse, Error> {
        Ok(v1::ListPeersResponse::default())
    }

    async fn open_channel(&self, q: v1::OpenChannelRequest) -> Result<v1::OpenChannelResponse, Error> {
        let v1::OpenChannelRequest { feerate_sat_per_kvb, min_htlc_msat, max_htlcs, max_in_flight_percent, .. } = q;
        self.note(format!(
            "open {} {} {} {} {} {feerate_sat_per_kvb:?} {min_htlc_msat:?} {max_htlcs:?} {max_in_flight_percent:?}",
            q.node_id, q.address, q.capacity_sat, q.push_msat, q.announce
        ));
        Ok(v1::OpenChannelResponse { user_channel_id: "ab".repeat(16) })
    }

    async fn close_channel(&self, q: v1::CloseChannelRequest) -> Result<v1::CloseChannelResponse, Error> {
        if q.channel_id.is_empty() {
            return Err(Error::misuse("channel_id", "is empty"));
        }
        self.note(format!("close {} {} {} {:?}", q.channel_id, q.force, q.address, q.feerate_sat_per_kvb));
        Ok(v1::CloseChannelResponse {})
    }

    async fn list_channels(&self) -> Result<v1::ListChannelsResponse, Error> {
        let channel = v1::Channel {
            channel_id: "cd".repeat(32),
            counterparty: "02".repeat(33),
            capacity_sat: 100_000,
            outbound_msat: 60_000_000,
            inbound_msat: 40_000_000,
            is_usable: true,
            state: "ready".into(),
            ..Default::default()
        };
        Ok(v1::ListChannelsResponse { channels: vec![channel], ..Default::default() })
    }

    async fn create_invoice(&self, q: v1::CreateInvoiceRequest) -> Result<v1::CreateInvoiceResponse, Error> {
        self.note(format!("invoice {:?} {} {}", q.amount_msat, q.description, q.expiry_seconds));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let payment_hash = hex::encode([6; 32]);
        Ok(v1::CreateInvoiceResponse { invoice: "lnbcrt1fake".into(), payment_hash, expires_at_ms: 1_700_000_000_000 })
    }

    async fn pay_invoice(&self, q: v1::PayInvoiceRequest) -> Result<v1::Payment, Error> {
        self.note(format!("pay {} {:?} {:?} {}", q.invoice, q.amount_msat, q.max_fee_msat, q.wait_ms));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(self.paid(q.amount_msat.or(Some(1000))))
    }

    async fn send_keysend(&self, q: v1::SendKeysendRequest) -> Result<v1::Payment, Error> {
        self.note(format!("keysend {} {} {:?} {}", q.node_id, q.amount_msat, q.max_fee_msat, q.wait_ms));
        Ok(self.paid(Some(q.amount_msat)))
    }
}

/// A trust domain on disk, in a folder that goes away with it.
pub(crate) struct Trust(pub tempfile::TempDir);

impl Trust {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init(dir.path(), "test").unwrap();
        Self(dir)
    }

    pub fn issue(&self, role: Role, name: &str) -> pki::Issued {
        pki::issue(self.0.path(), role, name, self.0.path(), pki::LEAF_LIFETIME).unwrap()
    }

    pub fn credentials(&self, role: Role, name: &str) -> Credentials {
        let file = |end: &str| -> PathBuf { self.0.path().join(format!("{role}-{name}.{end}")) };
        if !file("pem").exists() {
            self.issue(role, name);
        }
        Credentials::load(&file("pem"), &file("key"), &self.0.path().join("ca.pem")).unwrap()
    }

    /// Serves `fake` as replica `name` until the sender is dropped.
    pub async fn serve(
        &self,
        name: &str,
        listener: TcpListener,
        fake: Fake,
        metrics: Arc<Metrics>,
    ) -> oneshot::Sender<()> {
        let (stop, stopped) = oneshot::channel::<()>();
        let credentials = self.credentials(Role::Replica, name);
        tokio::spawn(serve(Arc::new(fake), metrics, listener, credentials, async { drop(stopped.await) }));
        stop
    }
}

/// One replica's API.
pub(crate) struct Fixture {
    pub trust: Trust,
    pub endpoint: String,
    pub metrics: Arc<Metrics>,
    pub asked: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

impl Fixture {
    pub async fn leading() -> Self {
        Self::of(Fake::leading()).await
    }

    pub async fn standing_by(leader: &str, api: &str) -> Self {
        Self::of(Fake::standing_by(leader, api)).await
    }

    pub async fn of(fake: Fake) -> Self {
        let trust = Trust::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (metrics, asked) = (Arc::new(Metrics::new()), fake.asked.clone());
        let stop = trust.serve("a", listener, fake, metrics.clone()).await;
        Self { trust, endpoint, metrics, asked, _stop: stop }
    }

    pub async fn client(&self, role: Role) -> NodeClient<Channel> {
        client_of(self, role, "caller").await
    }
}

/// A caller of this name.
pub(crate) async fn client_of(fixture: &Fixture, role: Role, name: &str) -> NodeClient<Channel> {
    let credentials = fixture.trust.credentials(role, name);
    let patience = Duration::from_secs(20);
    NodeClient::new(tls::connect(&fixture.endpoint, &credentials, Role::Replica, patience).await.unwrap())
}
