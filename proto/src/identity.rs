//! Who a certificate speaks for: `spiffe://<domain>/<role>/<name>`, from its one URI subject alternative name.

use std::{fmt, str::FromStr};

/// What an identity is, and so which calls are open to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Replica,
    Front,
    Signer,
    Operator,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Replica, Role::Front, Role::Signer, Role::Operator];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Replica => "replica",
            Role::Front => "front",
            Role::Signer => "signer",
            Role::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, IdentityError> {
        Role::ALL.into_iter().find(|role| role.as_str() == s).ok_or_else(|| IdentityError::Role(s.to_owned()))
    }
}

/// A parsed SPIFFE-style identity. Domain and name hold lower-case letters, digits, `-`, `_` and `.` only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub domain: String,
    pub role: Role,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("`{0}` is not of the form spiffe://<domain>/<role>/<name>")]
    Form(String),
    #[error("`{0}` is not a role: it is one of replica, front, signer, operator")]
    Role(String),
    #[error("`{0}` may hold only a-z, 0-9, `-`, `_` and `.`, and 1 to 63 of them")]
    Name(String),
}

impl Identity {
    pub fn new(domain: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        for part in [domain, name] {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
            if part.is_empty() || part.len() > 63 || !part.bytes().all(plain) {
                return Err(IdentityError::Name(part.to_owned()));
            }
        }
        Ok(Self { domain: domain.to_owned(), role, name: name.to_owned() })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.domain, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(s.to_owned());
        let rest = s.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        Self::new(domain, role.parse()?, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip() {
        for role in Role::ALL {
            let identity = Identity::new("holdfast.example", role, "a-1").unwrap();
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://d/replica",
            "spiffe://d/replica/a/b",
            "spiffe://d/root/a",
            "https://d/replica/a",
            "spiffe://d/replica/",
            "spiffe:///replica/a",
            "spiffe://D/replica/a",
            "spiffe://d/replica/a b",
            "spiffe://d/replica/../a",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
