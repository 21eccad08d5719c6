//! Names of KMS keys, as configurations and KMS give them.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// What a key is called in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum KeyName {
    Arn(KeyArn),
    /// The last part of an ARN: a UUID, or `mrk-` and 32 hexadecimal digits.
    Id(String),
    /// `alias/name` or its ARN. It can be pointed at another key, so it only counts when a seed is sealed.
    Alias(String),
}

/// The ARN of one key: `arn:<partition>:kms:<region>:<account>:key/<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArn(String);

impl KeyName {
    /// As KMS takes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Arn(arn) => &arn.0,
            Self::Id(name) | Self::Alias(name) => name,
        }
    }

    /// The key to ask when a seed was sealed by `recorded`: that one, or its replica in another region when the
    /// configuration names it. None when the configuration names another key.
    pub fn for_seed_of(&self, recorded: &KeyArn) -> Option<KeyArn> {
        match self {
            Self::Arn(arn) => arn.is_key_or_replica_of(recorded).then(|| arn.clone()),
            Self::Id(id) => (id == recorded.id()).then(|| recorded.clone()),
            Self::Alias(_) => Some(recorded.clone()),
        }
    }
}

impl KeyArn {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn region(&self) -> &str {
        self.part(3)
    }

    fn id(&self) -> &str {
        self.part(5).trim_start_matches("key/")
    }

    /// Replicas of a multi-Region key have the same id, partition and account, and open what any of them sealed.
    fn is_key_or_replica_of(&self, other: &Self) -> bool {
        let same = |part| self.part(part) == other.part(part);
        self == other || (self.id().starts_with("mrk-") && same(1) && same(4) && same(5))
    }

    fn part(&self, index: usize) -> &str {
        // There are six parts by construction.
        self.0.splitn(6, ':').nth(index).unwrap_or_default()
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyArn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not the ARN of a KMS key (arn:aws:kms:<region>:<account>:key/<id>)");
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "kms", region, account, key] = parts[..] else { return Err(wrong()) };
        let id = key.strip_prefix("key/").ok_or_else(wrong)?;
        match [partition, region, account, id].into_iter().all(is_plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl TryFrom<String> for KeyName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let alias = |name: &str| name.strip_prefix("alias/").is_some_and(|name| !name.is_empty());
        if text.starts_with("arn:") {
            return match text.splitn(6, ':').nth(5).is_some_and(alias) {
                true => Ok(Self::Alias(text)),
                false => text.parse().map(Self::Arn),
            };
        }
        if alias(&text) {
            return Ok(Self::Alias(text));
        }
        match is_plain(&text) {
            true => Ok(Self::Id(text)),
            false => Err(format!("`{text}` names no KMS key: give its ARN, its id, or alias/<name>")),
        }
    }
}

fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const MULTI: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

    fn name(text: &str) -> KeyName {
        KeyName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn keys_are_named_as_kms_names_them() {
        assert_eq!(name(KEY), KeyName::Arn(KEY.parse().unwrap()));
        assert_eq!(name(KEY).as_str(), KEY);
        assert_eq!(KEY.parse::<KeyArn>().unwrap().region(), "eu-central-1");
        assert!(matches!(name("1234abcd-12ab-34cd-56ef-1234567890ab"), KeyName::Id(_)));
        for alias in ["alias/holdfast", "arn:aws:kms:eu-central-1:111122223333:alias/holdfast"] {
            assert_eq!(name(alias), KeyName::Alias(alias.into()));
        }
        for wrong in [
            "",
            "alias/",
            "hold fast",
            "arn:aws:kms",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms::111122223333:key/1",
        ] {
            assert!(KeyName::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_seed_is_opened_by_its_own_key_or_a_replica_of_it() {
        let recorded: KeyArn = KEY.parse().unwrap();
        let asked = |text: &str| name(text).for_seed_of(&recorded).map(|arn| arn.to_string());
        for same in [KEY, "1234abcd-12ab-34cd-56ef-1234567890ab", "alias/anything"] {
            assert_eq!(asked(same).as_deref(), Some(KEY));
        }
        assert_eq!(asked(&KEY.replace("1234abcd", "5678abcd")), None);
        assert_eq!(asked("5678abcd-12ab-34cd-56ef-1234567890ab"), None);
        // The same id elsewhere is another key, unless it is one of a multi-Region key.
        assert_eq!(asked(&KEY.replace("eu-central-1", "eu-west-1")), None);
        let multi: KeyArn = MULTI.parse().unwrap();
        let replica = MULTI.replace("eu-central-1", "eu-west-1");
        assert_eq!(name(&replica).for_seed_of(&multi).unwrap().as_str(), replica);
        assert_eq!(name(&MULTI.replace("1111", "9999")).for_seed_of(&multi), None);
    }
}
