//! Which parts are away, in the words of `/readyz`, the status page and the log.

use holdfast_proto::outage::Outage;
use holdfast_signer_client::v1 as signer_v1;

use crate::store::postgres::ReadError;

/// A signer that answers, but whose custody failed its last self-test, is of no use to a leader: it counts as away.
pub(super) fn signer(asked: Result<signer_v1::GetNodeInfoResponse, String>) -> Option<String> {
    match asked {
        Ok(info) => Some(info.custody_unavailable).filter(|why| !why.is_empty()),
        Err(why) => Some(why),
    }
}

/// Without the part's name, which stands before it wherever this is shown.
pub(super) fn postgres(error: ReadError) -> String {
    match error {
        ReadError::Unavailable(why) => why,
        error @ ReadError::Broken(_) => error.to_string(),
    }
}

/// What the log has of the parts that no session of their own tells of.
#[derive(Default)]
pub(super) struct Told {
    signer: Outage,
    bitcoind: Outage,
}

impl Told {
    pub(super) fn round(&self, signer: Option<&str>, bitcoind: Option<&str>) {
        for (part, outage, away) in [("signer", &self.signer, signer), ("bitcoind", &self.bitcoind, bitcoind)] {
            match away {
                Some(why) if outage.failed() => tracing::warn!("waiting for {part}: {why}"),
                Some(_) => {}
                None => {
                    if let Some(away) = outage.over() {
                        tracing::info!(away_ms = away.as_millis() as u64, "{part} is back");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_without_its_custody_is_away() {
        let info = |why: &str| signer_v1::GetNodeInfoResponse { custody_unavailable: why.into(), ..Default::default() };
        assert_eq!(signer(Ok(info(""))), None);
        let why = "custody unavailable: no token has the address pkcs11:token=holdfast";
        assert_eq!(signer(Ok(info(why))).as_deref(), Some(why));
        assert_eq!(signer(Err("refused".into())).as_deref(), Some("refused"));
    }

    #[test]
    fn the_parts_name_is_left_to_who_shows_it() {
        assert_eq!(postgres(ReadError::Unavailable("no route".into())), "no route");
    }
}
