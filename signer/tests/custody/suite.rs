//! What every backend promises.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bitcoin::{
    Network,
    hashes::{Hash, sha256},
    secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey, ecdh, ecdsa::Signature},
};
use holdfast_signer::{
    config::CustodyConfig,
    custody::{self, Custody, CustodyError, NodeIdentity},
};
use lightning::sign::KeysManager;

pub const NETWORK: Network = Network::Regtest;

/// Where a backend under test keeps what it keeps.
pub struct Subject {
    pub config: CustodyConfig,
    pub data_dir: PathBuf,
    /// The file with the sealed seed, which a thief or a fault may change; none where the seed is kept elsewhere.
    pub sealed: Option<PathBuf>,
    /// Takes away what holds the keys, and gives it back.
    pub lose: Box<dyn Fn()>,
    pub restore: Box<dyn Fn()>,
}

impl Subject {
    pub fn init(&self) -> Result<Arc<dyn Custody>, CustodyError> {
        custody::init(&self.config, NETWORK, &self.data_dir)
    }

    pub fn open(&self, node_id: &PublicKey) -> Result<Arc<dyn Custody>, CustodyError> {
        custody::open(&self.config, NETWORK, &self.data_dir, node_id)
    }
}

/// The whole suite on a subject that has no keys yet. `points` is the number of random ECDH points.
pub fn conforms(subject: &Subject, points: usize) {
    let stranger = key(1).public_key(&Secp256k1::new());
    assert_unavailable(subject.open(&stranger), "before init there is nothing to open");
    let made = subject.init().unwrap();
    check(subject, made, points);
}

/// The part of it that comes after init.
pub fn check(subject: &Subject, made: Arc<dyn Custody>, points: usize) {
    let node_id = made.identity().public_key();
    init_never_replaces(subject, &*made);

    let opened = subject.open(&node_id).unwrap();
    opened.self_test().unwrap();
    assert_eq!(opened.backend(), made.backend());
    assert_eq!(opened.identity().public_key(), node_id);
    assert_eq!(opened.identity_in_token(), made.identity_in_token());
    assert_eq!(*opened.unseal().unwrap(), *made.unseal().unwrap());
    drop(made);

    if !opened.identity_in_token() {
        the_identity_is_ldks(&*opened, points);
    }
    signatures_are_the_nodes(&*opened);
    ecdh_is_libsecp256k1s(&*opened, points);
    callers_get_their_own_answers(&*opened);
    another_node_or_network_is_refused(subject, &node_id);
    a_changed_file_is_refused(subject, &node_id);
    a_lost_backend_is_unavailable(subject, &*opened);
}

fn init_never_replaces(subject: &Subject, made: &dyn Custody) {
    let content = || subject.sealed.as_ref().map(|path| fs::read(path).unwrap());
    let before = content();
    assert_wrong(subject.init(), "a second init");
    assert_eq!(content(), before);
    made.self_test().unwrap();
}

fn signatures_are_the_nodes(custody: &dyn Custody) {
    let (secp, identity) = (Secp256k1::new(), custody.identity());
    for i in 0..300u32 {
        let digest = sha256::Hash::hash(&i.to_be_bytes()).to_byte_array();
        let signature = identity.sign(&digest).unwrap();
        let message = Message::from_digest(digest);
        let plain = signature.to_standard();
        secp.verify_ecdsa(&message, &plain, &identity.public_key()).unwrap();
        assert_eq!(normalised(plain), plain, "low-S");
        assert_eq!(secp.recover_ecdsa(&message, &signature), Ok(identity.public_key()), "recovery id");
    }
}

fn ecdh_is_libsecp256k1s(custody: &dyn Custody, points: usize) {
    let (secp, identity) = (Secp256k1::new(), custody.identity());
    let node_id = identity.public_key();
    // The other side of each exchange: the key of the point, times the node's public key.
    let other_side = |key: &SecretKey| {
        let shared = node_id.mul_tweak(&secp, &Scalar::from(*key)).unwrap();
        sha256::Hash::hash(&shared.serialize()).to_byte_array()
    };
    // G and -G, 2G and -2G; P + G is the point at infinity for one, and needs a doubling for another.
    let one = SecretKey::from_slice(&[&[0; 31][..], &[1]].concat()).unwrap();
    let two = one.add_tweak(&Scalar::ONE).unwrap();
    let awkward = [one, one.negate(), two, two.negate()];
    for key in awkward.into_iter().chain((0..points).map(key)) {
        assert_eq!(*identity.ecdh(&key.public_key(&secp)).unwrap(), other_side(&key));
    }
    // With the node's own key as the point there is no other side to ask (`ecdh_with_a_known_key` has one): the answers
    // for K and -K are a point and its negation, so they differ and neither fails.
    let (k, minus_k) = (identity.ecdh(&node_id).unwrap(), identity.ecdh(&node_id.negate(&secp)).unwrap());
    assert_ne!(*k, *minus_k);
}

/// The same against libsecp256k1's own ECDH, for an identity whose secret the test has.
pub fn ecdh_with_a_known_key(identity: &dyn NodeIdentity, secret: &SecretKey, points: usize) {
    let secp = Secp256k1::new();
    let one = SecretKey::from_slice(&[&[0; 31][..], &[1]].concat()).unwrap();
    let g = one.public_key(&secp);
    let k = secret.public_key(&secp);
    assert_eq!(identity.public_key(), k);
    // P = G, -G, K, -K, and those whose P + G is K or -K.
    let minus = |point: &PublicKey| point.negate(&secp);
    let next_to = |point: PublicKey| point.combine(&minus(&g)).unwrap();
    let awkward = [g, minus(&g), k, minus(&k), next_to(k), next_to(minus(&k))];
    for point in awkward.into_iter().chain((0..points).map(|i| key(i).public_key(&secp))) {
        assert_eq!(*identity.ecdh(&point).unwrap(), ecdh::SharedSecret::new(&point, secret).secret_bytes(), "{point}");
    }
}

/// An imported LDK node keeps its id, and its peers' shared secrets.
fn the_identity_is_ldks(custody: &dyn Custody, points: usize) {
    let ldk = KeysManager::new(&custody.unseal().unwrap(), 0, 0, true).get_node_secret_key();
    ecdh_with_a_known_key(&*custody.identity(), &ldk, points.min(500));
}

fn callers_get_their_own_answers(custody: &dyn Custody) {
    let (secp, identity) = (Secp256k1::new(), custody.identity());
    let alone: Vec<_> = (0..16).map(|caller| identity.ecdh(&key(caller).public_key(&secp)).unwrap()).collect();
    thread::scope(|scope| {
        for (caller, shared) in alone.iter().enumerate() {
            let (secp, identity) = (&secp, &identity);
            scope.spawn(move || {
                for _ in 0..10 {
                    assert_eq!(*identity.ecdh(&key(caller).public_key(secp)).unwrap(), **shared);
                    let message = Message::from_digest(**shared);
                    let signature = identity.sign(shared).unwrap();
                    assert_eq!(secp.recover_ecdsa(&message, &signature), Ok(identity.public_key()));
                }
            });
        }
    });
}

fn another_node_or_network_is_refused(subject: &Subject, node_id: &PublicKey) {
    let other = node_id.negate(&Secp256k1::new());
    assert_wrong(subject.open(&other), "another node id");
    let elsewhere = custody::open(&subject.config, Network::Bitcoin, &subject.data_dir, node_id);
    assert_wrong(elsewhere, "another network");
}

fn a_changed_file_is_refused(subject: &Subject, node_id: &PublicKey) {
    let Some(sealed) = &subject.sealed else { return };
    let good = fs::read_to_string(sealed).unwrap();
    let opens = || subject.open(node_id).and_then(|custody| custody.unseal());
    let line_of = |field: &str| good.lines().find(|line| line.starts_with(&format!("{field} =")));

    let fields: Vec<_> = ["nonce", "ciphertext"].into_iter().filter_map(|f| Some((f, line_of(f)?))).collect();
    assert!(fields.iter().any(|(field, _)| *field == "ciphertext"), "{good}");
    for (field, line) in fields {
        let first = line.find('"').unwrap() + 1;
        for at in [first, first + 7, line.len() - 2] {
            let digit = if &line[at..=at] == "0" { "1" } else { "0" };
            let changed = good.replace(line, &format!("{}{digit}{}", &line[..at], &line[at + 1..]));
            fs::write(sealed, changed).unwrap();
            assert_wrong(opens(), field);
        }
        fs::write(sealed, good.replace(line, &format!("{field} = \"\""))).unwrap();
        assert_wrong(opens(), "an emptied field");
    }
    // The same ciphertext under a header for another network.
    fs::write(sealed, good.replace("\"regtest\"", "\"signet\"")).unwrap();
    let moved = custody::open(&subject.config, Network::Signet, &subject.data_dir, node_id);
    assert_wrong(moved.and_then(|custody| custody.unseal()), "a header of another network");

    fs::write(sealed, good).unwrap();
    opens().unwrap();
}

/// P8 and P7: away is never empty and never wrong, and what comes back is used again without a hand.
fn a_lost_backend_is_unavailable(subject: &Subject, running: &dyn Custody) {
    let node_id = running.identity().public_key();
    (subject.lose)();
    assert_unavailable(subject.open(&node_id), "a lost backend");
    // One that runs may have all it needs in memory; then it goes on.
    for answer in [running.self_test(), running.unseal().map(drop)] {
        assert!(matches!(answer, Ok(()) | Err(CustodyError::Unavailable(_))), "{answer:?}");
    }
    (subject.restore)();
    subject.open(&node_id).unwrap().self_test().unwrap();
    wait_for("the running backend to work again", || running.self_test().is_ok() && running.unseal().is_ok());
}

pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A deterministic key; any will do.
pub fn key(i: usize) -> SecretKey {
    SecretKey::from_slice(&sha256::Hash::hash(&i.to_be_bytes()).to_byte_array()).unwrap()
}

fn normalised(mut signature: Signature) -> Signature {
    signature.normalize_s();
    signature
}

pub fn assert_wrong<T>(result: Result<T, CustodyError>, what: &str) -> String {
    match result.err() {
        Some(CustodyError::Wrong(why)) => why,
        other => panic!("{what}: expected a refusal, got {other:?}"),
    }
}

pub fn assert_unavailable<T>(result: Result<T, CustodyError>, what: &str) -> String {
    match result.err() {
        Some(CustodyError::Unavailable(why)) => why,
        other => panic!("{what}: expected unavailable, got {other:?}"),
    }
}
