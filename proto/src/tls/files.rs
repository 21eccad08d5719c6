//! The three files of a process's credentials, looked at for every connection and read again when they have changed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{Inner, Pem, TlsError, read, read_private};
use crate::identity::Identity;

pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    /// What was taken last, or is of somebody else.
    seen: [Option<Stamp>; 3],
    /// When the log last had that the new files are of no use.
    told: Option<Instant>,
}

/// Connections may come fast, and each looks again.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Changes whenever a file is written or another takes its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    length: u64,
}

impl Files {
    pub(super) fn new([certificate, key, ca]: [&Path; 3]) -> Self {
        let seen = [certificate, key, ca].map(Stamp::of);
        Self { certificate: certificate.to_owned(), key: key.to_owned(), ca: ca.to_owned(), seen, told: None }
    }

    pub(super) fn load(&self) -> Result<(Identity, Inner), TlsError> {
        let pem = Pem {
            certificate: Zeroizing::new(read(&self.certificate)?),
            key: read_private(&self.key)?,
            ca: Zeroizing::new(read(&self.ca)?),
        };
        Inner::build(&pem, &self.certificate, &self.key, &self.ca)
    }

    /// New credentials, when the files have changed since they were read and are as good as the old ones.
    pub(super) fn renewed(&mut self, identity: &Identity) -> Option<Inner> {
        let seen = [&self.certificate, &self.key, &self.ca].map(|file| Stamp::of(file));
        if seen == self.seen {
            return None;
        }
        match self.load() {
            Ok((same, inner)) if same == *identity => {
                (self.seen, self.told) = (seen, None);
                tracing::info!(%identity, "the certificate was renewed");
                Some(inner)
            }
            Ok((other, _)) => {
                self.seen = seen;
                tracing::error!(%identity, %other, "a new certificate is of somebody else: the old one stays");
                None
            }
            // Half of them may be written, and some failures pass while the files stay as they are: too many are open, or the
            // certificate counts from a minute ahead. The next connection looks again.
            Err(error) => {
                if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    self.told = Some(Instant::now());
                    tracing::warn!(%error, "the new certificate is of no use: the old one stays");
                }
                None
            }
        }
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let meta = fs::metadata(file).ok()?;
        Some(Self { inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()), length: meta.len() })
    }
}
