//! What no request goes beyond: more than all bitcoin is no amount, and more than a century is nobody's wish. LDK and the
//! store have limits of their own, and a value that met them only there would have been half accepted.

use holdfast_proto::error::Error;

/// All the bitcoin that there will be.
pub(super) const MAX_SAT: u64 = 21_000_000 * 100_000_000;
const MAX_MSAT: u64 = MAX_SAT * 1000;
const MAX_SECONDS: u64 = 100 * 365 * 24 * 60 * 60;

/// Refuses an amount in the field of this name that cannot exist. An absent one is none.
pub(super) fn msat(field: &str, amount_msat: impl Into<Option<u64>>) -> Result<(), Error> {
    bounded(field, amount_msat.into(), MAX_MSAT, "msat, which is all bitcoin there will be")
}

/// As [`msat`], in satoshi.
pub(super) fn sat(field: &str, amount_sat: impl Into<Option<u64>>) -> Result<(), Error> {
    bounded(field, amount_sat.into(), MAX_SAT, "sat, which is all bitcoin there will be")
}

/// Refuses a time of more than 100 years.
pub(super) fn seconds(field: &str, seconds: impl Into<u64>) -> Result<(), Error> {
    bounded(field, Some(seconds.into()), MAX_SECONDS, "seconds, which is a hundred years")
}

fn bounded(field: &str, value: Option<u64>, max: u64, of_what: &str) -> Result<(), Error> {
    match value {
        Some(value) if value > max => Err(Error::misuse(field, format!("{value} is more than {max} {of_what}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::to_bigint;

    #[test]
    fn what_cannot_be_is_refused_by_name_and_what_may_be_fits_a_column() {
        let named = |refused: Result<(), Error>| match refused {
            Err(Error::Misuse { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(msat("amount_msat", MAX_MSAT + 1)), "amount_msat");
        assert_eq!(named(msat("amount_msat", 10_000_000_000_000_000_000)), "amount_msat");
        assert_eq!(named(sat("amount_sat", MAX_SAT + 1)), "amount_sat");
        assert_eq!(named(seconds("expiry_seconds", 9_300_000_000_000u64)), "expiry_seconds");
        assert_eq!(named(seconds("timeout_seconds", u32::MAX)), "timeout_seconds");
        for fine in [msat("a", MAX_MSAT), msat("a", None), sat("a", MAX_SAT), seconds("a", MAX_SECONDS)] {
            fine.unwrap();
        }
        to_bigint("amount", MAX_MSAT).unwrap();
    }
}
