//! Arithmetic on public points, so that a token that only gives x coordinates can serve BOLT 4 and BOLT 8.

use bitcoin::{
    hashes::{Hash, sha256},
    secp256k1::{PublicKey, constants::GENERATOR_X, constants::GENERATOR_Y},
};
use zeroize::Zeroizing;

use crate::{custody::SharedSecret, keys::secp};

/// An x coordinate, big-endian, as `CKM_ECDH1_DERIVE` with `CKD_NULL` gives it.
pub type X = Zeroizing<[u8; 32]>;

/// What to ask the token for, so as to learn `k * P` with its sign.
pub enum Plan {
    /// `P = -G`: the answer is `-K`, and `P + G` is no point that could be asked for.
    Known(PublicKey),
    /// Ask for the x coordinates of `k * P` and of `k * shifted`, where `shifted = P + G`.
    Ask { shifted: PublicKey },
}

pub fn plan(point: &PublicKey, node_id: &PublicKey) -> Plan {
    match point.combine(&generator()) {
        Ok(shifted) => Plan::Ask { shifted },
        // The sum is the point at infinity.
        Err(_) => Plan::Known(node_id.negate(secp())),
    }
}

/// `k * P` from `x(k * P)` and `x(k * (P + G))`; none when the two do not belong to one key `k` with `k * G = node_id`.
///
/// Of the two points `S` and `-S` with the first x, the right one plus `node_id` has the second.
pub fn resolve(x: &X, shifted_x: &X, node_id: &PublicKey) -> Option<PublicKey> {
    // A sum at infinity has no x, so that candidate is not the one: P + G was a point, and so is k times it.
    let fits = |point: &PublicKey| point.combine(node_id).is_ok_and(|sum| sum.serialize()[1..] == shifted_x[..]);
    [0x02, 0x03].into_iter().filter_map(|parity| with_parity(x, parity)).find(fits)
}

/// The sum of all points and G; none when it is the point at infinity.
pub fn shifted_sum(points: &[PublicKey]) -> Option<PublicKey> {
    let generator = generator();
    let all: Vec<_> = points.iter().chain([&generator]).collect();
    PublicKey::combine_keys(&all).ok()
}

/// `k * P` of each of several points, from the x of each and that of `k` times their shifted sum; none when more than one
/// choice of signs gives it, or none does.
pub fn resolve_all(xs: &[X], sum_x: &X, node_id: &PublicKey) -> Option<Vec<PublicKey>> {
    let secp = secp();
    let mut products = xs.iter().map(|x| with_parity(x, 0x02)).collect::<Option<Vec<_>>>()?;
    // What a change of sign adds. In the order of Gray's code only one sign changes from each choice to the next.
    let mut changes = products.iter().map(|p| Some(p.combine(p).ok()?.negate(secp))).collect::<Option<Vec<_>>>()?;
    let start: Vec<_> = products.iter().chain([node_id]).collect();
    let mut sum = PublicKey::combine_keys(&start).ok()?;
    let mut found = None;
    for step in 1_u32..=1 << xs.len() {
        if sum.serialize()[1..] == sum_x[..] && found.replace(products.clone()).is_some() {
            return None;
        }
        let sign = step.trailing_zeros() as usize;
        if sign < xs.len() {
            sum = sum.combine(&changes[sign]).ok()?;
            changes[sign] = changes[sign].negate(secp);
            products[sign] = products[sign].negate(secp);
        }
    }
    found
}

fn with_parity(x: &X, parity: u8) -> Option<PublicKey> {
    let mut bytes = Zeroizing::new([parity; 33]);
    bytes[1..].copy_from_slice(x.as_slice());
    PublicKey::from_slice(bytes.as_slice()).ok()
}

pub fn shared_secret(point: &PublicKey) -> SharedSecret {
    let compressed = Zeroizing::new(point.serialize());
    Zeroizing::new(sha256::Hash::hash(compressed.as_slice()).to_byte_array())
}

/// A CKA_EC_POINT: by the specification an OCTET STRING around the encoded point; some tokens leave the wrapping out.
pub fn decode(attribute: &[u8]) -> Option<PublicKey> {
    let unwrapped = match attribute {
        [0x04, length @ (33 | 65), point @ ..] if point.len() == usize::from(*length) => point,
        point => point,
    };
    PublicKey::from_slice(unwrapped).ok()
}

fn generator() -> PublicKey {
    let mut bytes = [0x04; 65];
    bytes[1..33].copy_from_slice(&GENERATOR_X);
    bytes[33..].copy_from_slice(&GENERATOR_Y);
    // secp256k1's own generator is on the curve.
    PublicKey::from_slice(&bytes).expect("the generator is a point")
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Scalar, Secp256k1, SecretKey, ecdh};
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = SecretKey> {
        any::<[u8; 32]>().prop_filter_map("not a key", |bytes| SecretKey::from_slice(&bytes).ok())
    }

    /// What a token says: the x coordinate alone.
    fn x_of(key: &SecretKey, point: &PublicKey) -> X {
        let product = point.mul_tweak(&Secp256k1::new(), &Scalar::from(*key)).unwrap();
        Zeroizing::new(product.serialize()[1..].try_into().unwrap())
    }

    fn ecdh_by_x(key: &SecretKey, point: &PublicKey) -> Option<SharedSecret> {
        let node_id = key.public_key(&Secp256k1::new());
        let product = match plan(point, &node_id) {
            Plan::Known(product) => product,
            Plan::Ask { shifted } => resolve(&x_of(key, point), &x_of(key, &shifted), &node_id)?,
        };
        Some(shared_secret(&product))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn two_x_coordinates_give_the_shared_secret(key in key(), other in key()) {
            let point = other.public_key(&Secp256k1::new());
            let right = ecdh::SharedSecret::new(&point, &key).secret_bytes();
            prop_assert_eq!(ecdh_by_x(&key, &point).map(|s| *s), Some(right));
        }

        #[test]
        fn several_points_share_the_question_of_their_signs(key in key(), others in prop::collection::vec(key(), 1..5)) {
            let secp = Secp256k1::new();
            let node_id = key.public_key(&secp);
            let points: Vec<_> = others.iter().map(|other| other.public_key(&secp)).collect();
            let xs: Vec<_> = points.iter().map(|point| x_of(&key, point)).collect();
            let Some(sum) = shifted_sum(&points) else { return Ok(()) };
            let right: Vec<_> = points.iter().map(|p| p.mul_tweak(&secp, &Scalar::from(key)).unwrap()).collect();
            prop_assert_eq!(resolve_all(&xs, &x_of(&key, &sum), &node_id), Some(right));
            // One false answer among them.
            for wrong in 0..xs.len() {
                let mut xs = xs.clone();
                xs[wrong] = x_of(&others[wrong], &points[wrong]);
                prop_assert_eq!(resolve_all(&xs, &x_of(&key, &sum), &node_id), None);
            }
            prop_assert_eq!(resolve_all(&xs, &x_of(&others[0], &sum), &node_id), None);
        }

        #[test]
        fn answers_of_another_key_are_noticed(key in key(), other in key(), stranger in key()) {
            let secp = Secp256k1::new();
            let (point, node_id) = (other.public_key(&secp), key.public_key(&secp));
            let Plan::Ask { shifted } = plan(&point, &node_id) else { return Ok(()) };
            prop_assert!(resolve(&x_of(&stranger, &point), &x_of(&stranger, &shifted), &node_id).is_none());
            prop_assert!(resolve(&x_of(&key, &point), &x_of(&stranger, &shifted), &node_id).is_none());
        }
    }

    #[test]
    fn awkward_points_give_the_shared_secret() {
        let secp = Secp256k1::new();
        let one = SecretKey::from_slice(&[[0; 31].as_slice(), &[1]].concat()).unwrap();
        for byte in 1..=255u8 {
            let key = SecretKey::from_slice(&[byte; 32]).unwrap_or(one);
            let (g, k) = (generator(), key.public_key(&secp));
            let minus = |point: &PublicKey| point.negate(&secp);
            let doubled = g.combine(&g).unwrap();
            for point in [g, minus(&g), k, minus(&k), doubled, minus(&doubled)] {
                let right = ecdh::SharedSecret::new(&point, &key).secret_bytes();
                assert_eq!(ecdh_by_x(&key, &point).map(|s| *s), Some(right));
            }
        }
    }

    /// Points whose signs the sum cannot tell, or that have no sum: never a guess.
    #[test]
    fn related_points_give_no_answer_or_the_right_one() {
        let secp = Secp256k1::new();
        let [key, a, b] = [3, 5, 7].map(|byte| SecretKey::from_slice(&[byte; 32]).unwrap());
        let (node_id, g) = (key.public_key(&secp), generator());
        let (a, b) = (a.public_key(&secp), b.public_key(&secp));
        let minus = |point: &PublicKey| point.negate(&secp);
        let ab = a.combine(&b).unwrap();
        let sets = [
            vec![a, a],
            vec![a, minus(&a)],
            vec![a, b, minus(&ab)],
            vec![a, minus(&a.combine(&g).unwrap())],
            vec![g, a],
        ];
        let mut answered = 0;
        for points in sets {
            let xs: Vec<_> = points.iter().map(|point| x_of(&key, point)).collect();
            let Some(sum) = shifted_sum(&points) else { continue };
            let Some(products) = resolve_all(&xs, &x_of(&key, &sum), &node_id) else { continue };
            answered += 1;
            for (product, point) in products.iter().zip(&points) {
                assert_eq!(*product, point.mul_tweak(&secp, &Scalar::from(key)).unwrap());
            }
        }
        assert_eq!(answered, 2, "twice the same point, and G with another, have an answer");
    }

    #[test]
    fn both_forms_of_an_ec_point_are_read() {
        let point = generator();
        let wrap = |bytes: &[u8]| [&[0x04, bytes.len() as u8], bytes].concat();
        for form in [point.serialize_uncompressed().to_vec(), point.serialize().to_vec()] {
            assert_eq!(decode(&form), Some(point));
            assert_eq!(decode(&wrap(&form)), Some(point));
        }
        for bad in [&[][..], &[0x04], &[0x04, 65], &wrap(&[0x04; 65]), &[0x02; 34]] {
            assert_eq!(decode(bad), None);
        }
    }
}
