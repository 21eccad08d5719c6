//! Terms as plain numbers: which comes next, and what it means to see one.

/// A term above every term seen anywhere. Postgres's bigint bounds it; at a takeover a millisecond that is 292 million
/// years away, so a database or signer that is near it is not ours.
pub fn next(database: u64, signer: u64) -> Result<u64, TermsExhausted> {
    match database.max(signer) {
        newest if newest < i64::MAX as u64 => Ok(newest + 1),
        newest => Err(TermsExhausted { newest }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no term follows {newest}")]
pub struct TermsExhausted {
    pub newest: u64,
}

/// What a leader of term `ours` learns from the database's newest term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Leads,
    Superseded,
    /// The database no longer knows our term.
    WentBack,
}

pub fn standing(ours: u64, newest: u64) -> Standing {
    match newest.cmp(&ours) {
        std::cmp::Ordering::Equal => Standing::Leads,
        std::cmp::Ordering::Greater => Standing::Superseded,
        std::cmp::Ordering::Less => Standing::WentBack,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step of one of three replicas. Each may stop for ever after any of them, and go on later.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Reads both terms.
        Look(usize),
        /// Raises the database's term from the one that it read.
        Raise(usize),
        Announce(usize),
        Write(usize),
        Sign(usize),
    }

    #[derive(Clone, Copy, Default)]
    struct Replica {
        seen: Option<(u64, u64)>,
        term: Option<u64>,
    }

    fn step() -> impl Strategy<Value = Step> {
        (0usize..3, 0u8..5).prop_map(|(replica, kind)| match kind {
            0 => Step::Look(replica),
            1 => Step::Raise(replica),
            2 => Step::Announce(replica),
            3 => Step::Write(replica),
            _ => Step::Sign(replica),
        })
    }

    proptest! {
        /// P3, with no lock at all: whatever the order of steps, no term has two leaders, and once a term is in the
        /// database and at the signer, nothing of an older one is written or signed.
        #[test]
        fn one_term_acts(steps in prop::collection::vec(step(), 1..200), start_signer in 0u64..5) {
            let (mut database, mut signer) = (0u64, start_signer);
            let mut replicas = [Replica::default(); 3];
            let mut leaders = std::collections::BTreeMap::new();
            let (mut last_written, mut last_signed) = (0, 0);
            for step in steps {
                match step {
                    Step::Look(i) => replicas[i].seen = Some((database, signer)),
                    Step::Raise(i) => if let Some((read, at_signer)) = replicas[i].seen.take() && read == database {
                        let term = next(read, at_signer).unwrap();
                        prop_assert!(term > database && term > at_signer);
                        prop_assert_eq!(leaders.insert(term, i), None, "two leaders in term {}", term);
                        database = term;
                        replicas[i].term = Some(term);
                    },
                    Step::Announce(i) => signer = signer.max(replicas[i].term.unwrap_or(0)),
                    Step::Write(i) => if let Some(ours) = replicas[i].term && standing(ours, database) == Standing::Leads {
                        prop_assert!(ours >= last_written);
                        last_written = ours;
                    },
                    Step::Sign(i) => if let Some(ours) = replicas[i].term && ours >= signer {
                        signer = ours;
                        prop_assert!(ours >= last_signed);
                        last_signed = ours;
                    },
                }
            }
        }

        #[test]
        fn the_next_term_is_above_all_or_an_error(database in any::<u64>(), signer in any::<u64>()) {
            match next(database, signer) {
                Ok(term) => prop_assert!(term > database && term > signer && i64::try_from(term).is_ok()),
                Err(TermsExhausted { newest }) => prop_assert!(newest >= i64::MAX as u64),
            }
        }
    }

    #[test]
    fn a_replica_knows_where_it_stands() {
        assert_eq!(standing(3, 3), Standing::Leads);
        assert_eq!(standing(3, 4), Standing::Superseded);
        assert_eq!(standing(3, 2), Standing::WentBack);
    }
}
