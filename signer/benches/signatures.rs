//! Durable counterparty signatures over mutual TLS: how many a second, and how long each takes.
//!
//! One signer with its guard in a file; as many channels as stand in the table, each of them one call after another:
//! sign commitment n, hear that n - 1 is revoked. Only the signing is timed.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bitcoin::{
    Network,
    hashes::{Hash, sha256},
};
use holdfast_proto::{
    identity::Role,
    lightning::{CommitmentNumber, public_keys_to_wire},
    pki,
    signer::v1::{self, signer_client::SignerClient},
    tls::{self, Credentials},
};
use holdfast_signer::{
    custody::{Custody, CustodyError, NodeIdentity, Seed},
    guard::EmbeddedStore,
    keys::{ChannelKeys, NodeKeys, SeedIdentity},
    rules::RulesConfig,
    service::{SignerCore, serve},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::transport::Channel;
use zeroize::Zeroizing;

const SEED: [u8; 32] = [42; 32];
const RUN: Duration = Duration::from_secs(3);
const CHANNEL_SAT: u64 = 10_000_000;

/// Custody of a seed that everybody knows.
struct Known(Arc<SeedIdentity>);

impl Custody for Known {
    fn backend(&self) -> &'static str {
        "file"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.0.clone()
    }

    fn identity_in_token(&self) -> bool {
        false
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new(SEED))
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(&folder.path().join("ca"), "bench").unwrap();
    let store = Arc::new(EmbeddedStore::create(&folder.path().join("guard.redb")).unwrap());
    let identity = Arc::new(SeedIdentity::new(&Zeroizing::new(SEED)).unwrap());
    let core = SignerCore::new(Arc::new(Known(identity)), Network::Regtest, store, RulesConfig::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let credentials_of = |role| credentials(folder.path(), role);
    tokio::spawn(serve(Arc::new(core), listener, credentials_of(Role::Signer), std::future::pending()));
    let replica = credentials_of(Role::Replica);
    let connected = tls::connect(&endpoint, &replica, Role::Signer, Duration::from_secs(5)).await.unwrap();
    let mut client = SignerClient::new(connected).max_decoding_message_size(1 << 20);
    client.announce_term(v1::AnnounceTermRequest { term: 1 }).await.unwrap();

    println!("HTLCs  channels   signatures/s      p50      p99");
    let mut next_id = 0u64;
    for htlcs in [0, 10, 100] {
        for channels in [1, 8, 32] {
            let started = Instant::now();
            let mut runs = JoinSet::new();
            for _ in 0..channels {
                next_id += 1;
                runs.spawn(run(client.clone(), next_id, htlcs));
            }
            let mut latencies = runs.join_all().await.concat();
            latencies.sort();
            let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
            let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1000.0;
            println!("{htlcs:5} {channels:9} {rate:14.0} {:7.2}ms {:7.2}ms", at(50), at(99));
        }
    }
}

fn credentials(folder: &Path, role: Role) -> Credentials {
    let issued = pki::issue(&folder.join("ca"), role, "one", folder, Duration::from_secs(3600)).unwrap();
    Credentials::load(&issued.certificate, &issued.key, &issued.ca).unwrap()
}

/// One channel's life for the time of a run.
async fn run(mut client: SignerClient<Channel>, id: u64, htlcs: u64) -> Vec<Duration> {
    let mut keys_id = [0; 32];
    keys_id[..8].copy_from_slice(&id.to_be_bytes());
    let keys_id = keys_id.to_vec();
    let theirs = NodeKeys::new(Zeroizing::new([7; 32]), Network::Regtest).unwrap().channel(&[id as u8; 32]);
    let of = v1::ChannelRef {
        channel_keys_id: keys_id.clone(),
        funding_outpoint: Some(v1::OutPoint { txid: sha256::Hash::hash(&keys_id).to_byte_array().to_vec(), vout: 0 }),
    };
    let request =
        v1::GetChannelPublicKeysRequest { term: 1, channel_keys_id: keys_id.clone(), splice_parent_funding_txid: None };
    let parameters = v1::ChannelParameters {
        holder_pubkeys: Some(client.get_channel_public_keys(request).await.unwrap().into_inner()),
        holder_selected_contest_delay: 144,
        is_outbound_from_holder: true,
        counterparty_pubkeys: Some(public_keys_to_wire(&theirs.public_keys(None))),
        counterparty_selected_contest_delay: 144,
        splice_parent_funding_txid: None,
        channel_type: v1::ChannelType::AnchorsZeroFeeHtlc.into(),
        channel_value_sat: CHANNEL_SAT,
    };
    let request = v1::RegisterFundingRequest { term: 1, channel: Some(of.clone()), parameters: Some(parameters) };
    client.register_funding(request).await.unwrap();

    let (started, mut latencies) = (Instant::now(), vec![]);
    for number in 0.. {
        if started.elapsed() > RUN {
            break;
        }
        let commitment = commitment(&theirs, number, if number == 0 { 0 } else { htlcs });
        let request = v1::SignCounterpartyCommitmentRequest {
            term: 1,
            channel: Some(of.clone()),
            commitment: Some(commitment),
            ..Default::default()
        };
        let asked = Instant::now();
        client.sign_counterparty_commitment(request).await.unwrap();
        latencies.push(asked.elapsed());
        if number > 0 {
            let secret = theirs.per_commitment_secret(CommitmentNumber::new("number", number - 1).unwrap());
            let request = v1::ValidateCounterpartyRevocationRequest {
                term: 1,
                channel_keys_id: keys_id.clone(),
                number: number - 1,
                secret: secret.to_vec(),
            };
            client.validate_counterparty_revocation(request).await.unwrap();
        }
    }
    latencies
}

fn commitment(theirs: &ChannelKeys, number: u64, htlcs: u64) -> v1::Commitment {
    let point = theirs.per_commitment_point(CommitmentNumber::new("number", number).unwrap());
    v1::Commitment {
        number,
        per_commitment_point: point.serialize().to_vec(),
        to_broadcaster_sat: 1_000_000,
        to_countersignatory_sat: 1_000_000,
        feerate_sat_per_kw: 253,
        htlcs: (0..htlcs)
            .map(|i| v1::Htlc {
                offered: i % 2 == 0,
                amount_msat: 1_000_000 + i,
                cltv_expiry: 500 + i as u32,
                payment_hash: sha256::Hash::hash(&i.to_be_bytes()).to_byte_array().to_vec(),
            })
            .collect(),
    }
}
