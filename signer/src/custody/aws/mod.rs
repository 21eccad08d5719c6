//! Custody by AWS: the seed is read once at start, by the SDK's own clients and its own chain of credentials.
//!
//! - [`kms`]: a file sealed by a key of KMS; [`secrets_manager`]: a secret of Secrets Manager;
//! - [`session`]: region, credentials, retries and the deadline of a start; [`error`]: what an answer of AWS means;
//! - [`account`]: whose account a seed may be given to; [`key`]: names of keys;
//! - [`value`]: what a secret may hold; [`pin`]: which version of it is in use;
//! - [`confinement`]: what a confined signer may open for all that.

mod account;
mod confinement;
mod error;
mod key;
pub mod kms;
pub(super) mod pin;
pub mod secrets_manager;
mod session;
mod value;

use std::time::Duration;

pub use self::{
    account::AccountId,
    confinement::allow_start,
    key::{KeyArn, KeyName},
    secrets_manager::SecretName,
};

/// How AWS is reached. What is not set comes from the SDK's own chain: environment, profile, instance.
#[derive(Clone, Debug)]
pub struct AwsAccess {
    pub region: Option<String>,
    pub profile: Option<String>,
    /// The service's URL, where it is not the region's public one.
    pub endpoint: Option<String>,
    /// For all of a start: credentials, every retry and the answer.
    pub timeout: Duration,
}
