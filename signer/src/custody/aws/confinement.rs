//! What a start needs of files and ports to reach AWS, beyond what a confined signer may open.

use std::{env, path::PathBuf};

use super::AwsAccess;
use crate::harden::confine::Plan;

/// HTTPS; and HTTP, by which instances and containers give credentials, on link-local addresses.
const PORTS: [u16; 2] = [443, 80];

/// URLs in which the environment names another port.
const URLS: [&str; 11] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
];

/// Files that the environment names. A token's file is replaced while the signer runs.
const FILES: [&str; 6] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Lets the SDK's own chain work until the signer is sealed. What a profile names besides (a token's file, a process that
/// gives credentials, a port) has to be in the table `[confinement]`.
pub fn allow_start(plan: &mut Plan, access: &AwsAccess) {
    PORTS.into_iter().for_each(|port| plan.connect_at_start(port));
    let urls = URLS.into_iter().filter_map(|name| env::var(name).ok()).chain(access.endpoint.clone());
    urls.filter_map(|url| port(&url)).for_each(|port| plan.connect_at_start(port));
    for file in FILES.into_iter().filter_map(env::var_os).map(PathBuf::from) {
        plan.read_replaceable(&file);
    }
    if let Some(home) = env::var_os("HOME") {
        plan.read.insert(PathBuf::from(home).join(".aws"));
    }
    // Where Fedora and its relations keep the roots that TLS trusts.
    plan.read.insert("/etc/pki".into());
}

/// The port that a URL gives expressly.
fn port(url: &str) -> Option<u16> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_that_are_written_count() {
        for (url, given) in [
            ("http://127.0.0.1:5000", Some(5000)),
            ("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com", None),
            ("http://user:secret@proxy:3128/", Some(3128)),
            ("http://[fd00:ec2::254]", None),
            ("http://[::1]:1338/path:7", Some(1338)),
            ("proxy:8080", Some(8080)),
        ] {
            assert_eq!(port(url), given, "{url}");
        }
    }
}
