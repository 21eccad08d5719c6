//! Which token: the part of RFC 7512 that names one.

use std::{fmt, str::FromStr};

use cryptoki::slot::TokenInfo;
use serde::Deserialize;

/// `pkcs11:token=...;serial=...`, with `manufacturer` and `model` to narrow it further. Never a slot number: those move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenUri {
    token: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
}

impl TokenUri {
    pub fn matches(&self, info: &TokenInfo) -> bool {
        let is = |wanted: &Option<String>, got: &str| wanted.as_deref().is_none_or(|wanted| wanted == got);
        is(&self.token, info.label())
            && is(&self.serial, info.serial_number())
            && is(&self.manufacturer, info.manufacturer_id())
            && is(&self.model, info.model())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("a token's address begins with `pkcs11:` (RFC 7512)")]
    Scheme,
    #[error("`{0}` does not name a token: only token, serial, manufacturer and model do")]
    Attribute(String),
    #[error("`{0}` stands twice")]
    Twice(String),
    #[error("`{0}` is not a percent-encoded text")]
    Encoding(String),
    #[error("a query (`?`) is not taken: the module and the PIN have configuration keys of their own")]
    Query,
    #[error("a token's address needs token= or serial=")]
    Unnamed,
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let path = text.strip_prefix("pkcs11:").ok_or(UriError::Scheme)?;
        if path.contains('?') {
            return Err(UriError::Query);
        }
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or_else(|| UriError::Attribute(attribute.to_owned()))?;
            let field = match name {
                "token" => &mut uri.token,
                "serial" => &mut uri.serial,
                "manufacturer" => &mut uri.manufacturer,
                "model" => &mut uri.model,
                _ => return Err(UriError::Attribute(name.to_owned())),
            };
            if field.replace(decode(value)?).is_some() {
                return Err(UriError::Twice(name.to_owned()));
            }
        }
        match (&uri.token, &uri.serial) {
            (None, None) => Err(UriError::Unnamed),
            _ => Ok(uri),
        }
    }
}

impl TryFrom<String> for TokenUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        text.parse()
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("token", &self.token),
            ("serial", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        f.write_str("pkcs11:")?;
        let set = fields.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        for (i, (name, value)) in set.enumerate() {
            write!(f, "{}{name}={}", if i == 0 { "" } else { ";" }, encode(value))?;
        }
        Ok(())
    }
}

fn decode(value: &str) -> Result<String, UriError> {
    let bad = || UriError::Encoding(value.to_owned());
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let ([high, low, tail @ ..], mut byte) = (rest, [0]) else { return Err(bad()) };
        hex::decode_to_slice([*high, *low], &mut byte).map_err(|_| bad())?;
        bytes.push(byte[0]);
        rest = tail;
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.is_empty() => Ok(text),
        _ => Err(bad()),
    }
}

fn encode(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for (text, token, serial) in [
            ("pkcs11:token=holdfast", Some("holdfast"), None),
            ("pkcs11:serial=0123abcd", None, Some("0123abcd")),
            ("pkcs11:token=My%20token%3B%201;serial=7", Some("My token; 1"), Some("7")),
            ("pkcs11:token=%C3%A4;model=SoftHSM%20v2", Some("ä"), None),
        ] {
            let uri: TokenUri = text.parse().unwrap();
            assert_eq!((uri.token.as_deref(), uri.serial.as_deref()), (token, serial));
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, error) in [
            ("token=holdfast", UriError::Scheme),
            ("pkcs11:", UriError::Unnamed),
            ("pkcs11:model=x", UriError::Unnamed),
            ("pkcs11:slot-id=3", UriError::Attribute("slot-id".into())),
            ("pkcs11:token", UriError::Attribute("token".into())),
            ("pkcs11:token=a;token=b", UriError::Twice("token".into())),
            ("pkcs11:token=a?pin-value=1234", UriError::Query),
            ("pkcs11:token=%2", UriError::Encoding("%2".into())),
            ("pkcs11:token=%zz", UriError::Encoding("%zz".into())),
            ("pkcs11:token=%ff", UriError::Encoding("%ff".into())),
            ("pkcs11:token=", UriError::Encoding("".into())),
        ] {
            assert_eq!(text.parse::<TokenUri>(), Err(error), "{text}");
        }
    }
}
