//! Whose account a seed may be given to.
//!
//! Credentials may come from a metadata endpoint, over plain HTTP: whoever answers there decides which account is asked.
//! What AWS itself answers comes over TLS, so an ARN in an answer is true; it is compared before a seed depends on it.

use serde::Deserialize;

use crate::custody::CustodyError;

/// An AWS account: twelve digits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountId(String);

impl AccountId {
    /// The account that may hold what is made: that of `named`, where it is an ARN, or the one in the configuration.
    ///
    /// # Errors
    /// What to write, when neither says one, or both do and differ.
    pub fn of(named: &str, configured: Option<&Self>) -> Result<Self, String> {
        let in_name = account_of(named).map(|account| Self::try_from(account.to_owned())).transpose()?;
        match (in_name, configured) {
            (Some(named_one), Some(other)) if named_one != *other => {
                Err(format!("account = \"{}\" is not the account of {named}: remove it, or name another", other.0))
            }
            (Some(account), _) => Ok(account),
            (None, Some(account)) => Ok(account.clone()),
            (None, None) => Err(format!(
                "`{named}` does not say in which AWS account: a seed is only given to an account that the configuration \
                 names. Write its ARN instead, or account = \"<its 12 digits>\" beside it"
            )),
        }
    }

    /// Refuses `arn`, which AWS answered with, when it lies in another account.
    pub fn check(&self, arn: &str) -> Result<(), CustodyError> {
        match account_of(arn) == Some(&self.0) {
            true => Ok(()),
            false => Err(CustodyError::Wrong(format!(
                "AWS answered with {arn}, which is not in account {}: the credentials are another account's, and the seed \
                 was not given to it",
                self.0
            ))),
        }
    }
}

impl TryFrom<String> for AccountId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            true => Ok(Self(text)),
            false => Err(format!("`{text}` is not an AWS account: write its 12 digits, in quotes")),
        }
    }
}

/// `arn:<partition>:<service>:<region>:<account>:...`; none of what is no ARN.
fn account_of(name: &str) -> Option<&str> {
    name.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:seed-a1b2c3";

    fn account(text: &str) -> AccountId {
        AccountId::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn an_account_is_named_by_the_arn_or_beside_the_name() {
        let (ours, other) = (account("111122223333"), account("999999999999"));
        assert_eq!(AccountId::of(ARN, None), Ok(ours.clone()));
        assert_eq!(AccountId::of(ARN, Some(&ours)), Ok(ours.clone()));
        assert_eq!(AccountId::of("seed", Some(&ours)), Ok(ours.clone()));
        assert!(AccountId::of(ARN, Some(&other)).unwrap_err().contains("is not the account of"));
        assert!(AccountId::of("seed", None).unwrap_err().contains("account = "));
        for wrong in ["", "11112222333", "1111222233334", "11112222333x"] {
            assert!(AccountId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_another_account_is_refused() {
        let ours = account("111122223333");
        assert_eq!(ours.check(ARN), Ok(()));
        for wrong in [&ARN.replace("1111", "9999"), "seed", ""] {
            assert!(ours.check(wrong).is_err(), "{wrong}");
        }
    }
}
