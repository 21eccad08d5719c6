//! What a failed call means: whose fault it is, and one line that says what to do.

use std::{error::Error, iter, net::IpAddr};

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use crate::custody::CustodyError;

/// The part of an answer that is shown at most.
const LONGEST: usize = 400;

/// Where a call would have gone in the clear. What the seed is, or is opened with, goes to AWS over TLS alone; without it
/// only within the machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "the endpoint {0} is not https, so the seed could be read on its way: set https in endpoint, AWS_ENDPOINT_URL or the profile"
)]
pub struct InTheClear(String);

/// Whether a request to `uri` may leave.
pub fn check_endpoint(uri: &str) -> Result<(), InTheClear> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let here =
        || host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme.eq_ignore_ascii_case("https") || here() {
        true => Ok(()),
        false => Err(InTheClear(printable(&format!("{scheme}://{authority}")))),
    }
}

fn in_the_clear<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a InTheClear> {
    iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// An error and its causes on one line. AWS's own words are shown as they are, less what would break the line.
pub fn one_line(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = printable(&error.to_string());
        // Many layers repeat what is below them.
        if !part.is_empty() && !parts.last().is_some_and(|last| last.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    shortened(parts.join(": "))
}

/// Why KMS did not do `call` with `key`.
pub fn kms<E>(call: &str, key: &str, error: SdkError<E>) -> CustodyError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let unavailable = |why: &str| CustodyError::Unavailable(format!("KMS key {key} {why}"));
    let wrong = |why: &str| CustodyError::Wrong(format!("KMS key {key} {why}"));
    let says = said(&error);
    match error.code().unwrap_or_default() {
        "DisabledException" => unavailable(&format!("is disabled: enable it (aws kms enable-key --key-id {key})")),
        "KMSInvalidStateException" if says.contains("pending deletion") => unavailable(&format!(
            "is pending deletion, and what it sealed is lost with it: \
             cancel that now (aws kms cancel-key-deletion --key-id {key}), then enable the key"
        )),
        "KMSInvalidStateException" => unavailable(&format!("is in a state in which it does not work: {says}")),
        "NotFoundException" => unavailable(&format!("is not found: {says}")),
        "KeyUnavailableException" | "DependencyTimeoutException" | "KMSInternalException" => {
            unavailable(&format!("could not be used for now: {says}"))
        }
        // IAM takes a while until a new policy holds everywhere, and an administrator may still open it.
        "AccessDeniedException" => unavailable(&format!(
            "is not open to the signer's role, which needs kms:{call} with the seed's encryption context, \
             in the role's policy and the key's: {says}"
        )),
        "IncorrectKeyException" => wrong("did not seal this seed: another key did"),
        "InvalidCiphertextException" => wrong(
            "does not open the sealed seed: it was changed, or sealed by another key or for another network or node",
        ),
        "InvalidKeyUsageException" => wrong("is not a symmetric key for encryption"),
        _ => common(&format!("KMS key {key}"), call, error),
    }
}

/// Why Secrets Manager did not do `call` with `secret`.
pub fn secrets_manager<E>(call: &str, secret: &str, error: SdkError<E>) -> CustodyError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let unavailable = |why: &str| CustodyError::Unavailable(format!("secret {secret} {why}"));
    let wrong = |why: &str| CustodyError::Wrong(format!("secret {secret} {why}"));
    let says = said(&error);
    match error.code().unwrap_or_default() {
        "ResourceNotFoundException" => unavailable(&format!("is not found, or holds no value: {says}")),
        "InvalidRequestException" if says.contains("delet") => unavailable(&format!(
            "is marked for deletion: restore it (aws secretsmanager restore-secret --secret-id {secret})"
        )),
        "DecryptionFailure" => unavailable(&format!("is not decrypted by its KMS key: {says}")),
        "InternalServiceError" | "InternalServiceErrorException" => {
            unavailable(&format!("could not be had for now: {says}"))
        }
        // As with KMS: what IAM says may be about to change.
        "AccessDeniedException" if says.contains("KMS") => unavailable(&format!(
            "is encrypted by a KMS key that is not open to the signer's role, which needs kms:Decrypt on it: {says}"
        )),
        "AccessDeniedException" => {
            unavailable(&format!("is not open to the signer's role, which needs secretsmanager:{call} on it: {says}"))
        }
        "ResourceExistsException" => wrong("already exists; init never replaces one"),
        _ => common(&format!("secret {secret}"), call, error),
    }
}

/// What every service may answer, or not answer.
fn common<E>(subject: &str, call: &str, error: SdkError<E>) -> CustodyError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let says = said(&error);
    let unavailable = |why: String| CustodyError::Unavailable(format!("{subject}: {why}"));
    let wrong = |why: String| CustodyError::Wrong(format!("{subject}: {why}"));
    if let Some(endpoint) = in_the_clear(&error) {
        return wrong(endpoint.to_string());
    }
    let code = match &error {
        SdkError::ServiceError(_) => error.code().unwrap_or_default(),
        SdkError::TimeoutError(_) => return unavailable(format!("{call} was not answered: {}", one_line(&error))),
        SdkError::DispatchFailure(_) => return unavailable(format!("AWS cannot be reached: {}", one_line(&error))),
        SdkError::ResponseError(_) => return unavailable(format!("an answer was cut off: {}", one_line(&error))),
        _ => return wrong(format!("{call} could not be asked: {}", one_line(&error))),
    };
    match code {
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "RequestThrottled" => unavailable(format!("AWS throttles {call}: {says}")),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            unavailable(format!("the AWS credentials are expired, or this machine's clock is wrong: {says}"))
        }
        // A new key is not known everywhere at once, and a clock that is off spoils a signature.
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch" => unavailable(format!("AWS refuses the credentials ({code}): {says}")),
        _ => {
            let status = error.raw_response().map_or(0, |response| response.status().as_u16());
            match status {
                // A refusal without a name may come from IAM as well, or from a proxy.
                401 | 403 | 500.. => unavailable(format!("{call} failed with HTTP {status}: {code} {says}")),
                _ => wrong(format!("{call} was refused: {code} {says}")),
            }
        }
    }
}

fn said<E: ProvideErrorMetadata>(error: &E) -> String {
    match error.message().map(printable) {
        Some(message) if !message.is_empty() => shortened(message),
        _ => "AWS gives no reason".into(),
    }
}

fn printable(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("could not\n  connect")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_is_not_https_stays_on_this_machine() {
        for here in
            ["https://kms.eu-central-1.amazonaws.com/", "HTTPS://10.0.0.1", "http://127.0.0.1:5000/", "http://[::1]:1"]
        {
            check_endpoint(here).unwrap();
        }
        check_endpoint("http://localhost:4566/x").unwrap();
        for away in [
            "http://kms.example/",
            "http://10.0.0.1:5000/",
            "http://127.0.0.1@kms.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example:80",
            "http://kms.example/127.0.0.1",
            "http://kms.example#@127.0.0.1",
            "http://[fd00::1]:80/",
            "kms.example",
            "",
        ] {
            assert!(check_endpoint(away).is_err(), "{away}");
        }
        let says = check_endpoint("http://user:secret@kms.example:80/path").unwrap_err().to_string();
        assert!(says.contains("http://kms.example:80 ") && !says.contains("secret"), "{says}");
    }

    #[test]
    fn causes_are_one_line_of_bounded_length() {
        assert_eq!(one_line(&Outer(io::Error::other("no\troute"))), "could not connect: no route");
        assert_eq!(one_line(&Outer(io::Error::other("connect"))), "could not connect");
        let long = one_line(&Outer(io::Error::other("é".repeat(1_000))));
        assert_eq!(long.chars().count(), LONGEST + 3);
    }
}
