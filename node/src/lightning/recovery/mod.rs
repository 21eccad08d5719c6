//! Getting back what is left of channels whose state is lost: when all of the database is gone, and a backup of the
//! channels (see [`super::channel_backup`]) is not.
//!
//! A peer that resumes a channel which this node does not know is answered as BOLT 2's data loss protection wants it, by
//! LDK itself, and closes the channel with its own newest commitment. What is ours in that depends on no state: only on
//! the channel's keys, which the signer derives from `channel_keys_id`. So a recovery needs somebody to connect to the
//! peer ([`super::peers`]), to find the transaction that spends the funding output ([`keeper`]), to tell which of its
//! outputs are ours ([`outputs`]), and to hand those to the sweeper, which knows the rest. What has been found out
//! ([`record`]) is committed with what is done about it, so any leader goes on with it.

mod asked;
mod keeper;
mod ops;
mod outputs;
mod record;

pub use asked::Asked;
pub use keeper::{Parts, Recoveries};
pub use record::{NAMESPACE, RecoveryError, unfinished};
