//! Splicing is asked for here, and refused with its reason, until it is safe for a node of this kind.

use holdfast_proto::error::Error;

/// Names the refusal, as the signer's rules name theirs.
const RULE: &str = "splicing";

const WHY: &str = "this release does not splice: a splice of LDK 0.2.7 cannot have its fee raised, ends when the lead \
                   passes on during its negotiation, and was never tried against crashes; and the signer cannot tell \
                   one that the peer agreed to from one that is made up. Open another channel, or close this one with \
                   `--to` (docs/channels.md)";

pub(super) fn refusal() -> Error {
    Error::refused(RULE, WHY)
}
