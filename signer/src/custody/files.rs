//! Secrets and sealed seeds on disk: read only when nobody else may, written once and durably.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::CustodyError;
use crate::harden::memory::LockedBytes;

/// Longest secret or sealed seed that is read.
const MAX_FILE: u64 = 64 * 1024;

/// A passphrase or PIN, in locked memory.
#[derive(Debug)]
pub struct SecretLine(LockedBytes);

impl SecretLine {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was read as UTF-8, and its pages are read-only since")
    }
}

/// Reads a passphrase or PIN: one line of text, whose line end is no part of it.
pub fn read_secret(path: &Path, what: &str) -> Result<SecretLine, CustodyError> {
    let mut bytes = read_private(path, what)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(path, what, "is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong(path, what, "is empty"));
    }
    if text.contains(['\n', '\0']) {
        return Err(wrong(path, what, "holds more than one line"));
    }
    let length = text.len();
    bytes.truncate(length);
    Ok(SecretLine(bytes))
}

/// Reads a file that belongs to us or to root and that nobody else may read or write, straight into locked memory.
pub fn read_private(path: &Path, what: &str) -> Result<LockedBytes, CustodyError> {
    let unavailable = |e: io::Error| CustodyError::Unavailable(format!("{what} {}: {e}", path.display()));
    let mut file = File::open(path).map_err(unavailable)?;
    // What is checked is what is read: the open file, not its name.
    let meta = file.metadata().map_err(unavailable)?;
    if !meta.is_file() {
        return Err(wrong(path, what, "is not a regular file"));
    }
    if meta.len() > MAX_FILE {
        return Err(wrong(path, what, "is too long"));
    }
    if meta.mode() & forbidden_bits(path) != 0 {
        let mode = meta.mode() & 0o777;
        return Err(wrong(path, what, &format!("is open to group or others (mode {mode:03o}): run chmod 600 on it")));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return Err(wrong(path, what, "belongs to another user"));
    }
    // One byte more, so that the end is seen.
    LockedBytes::new(meta.len() as usize + 1, |room| {
        let mut length = 0;
        while length < room.len() {
            match file.read(&mut room[length..]) {
                Ok(0) => return Ok(length),
                Ok(read) => length += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unavailable(e)),
            }
        }
        Err(wrong(path, what, "grew while it was read"))
    })
}

/// Writes a new file, mode 0600, whole or not at all, durable when this returns; an existing file is never replaced.
pub fn create_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_durably(path, content, RenameFlags::NOREPLACE)
}

/// The same, in place of the file that is there.
pub fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_durably(path, content, RenameFlags::empty())
}

fn write_durably(path: &Path, content: &[u8], flags: RenameFlags) -> io::Result<()> {
    let directory = parent(path);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut draft = name.to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = directory.join(draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        renameat_with(CWD, &draft, CWD, path, flags)?;
        File::open(&directory)?.sync_all()
    })();
    if written.is_err() {
        // The draft may not exist; what matters is that none is left behind.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// systemd gives a service its credentials in a directory that only the service can enter, with an ACL on each file that
/// shows as group bits; there they mean nothing.
fn forbidden_bits(path: &Path) -> u32 {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match credentials {
        Some(directory) if path.parent() == Some(&directory) => 0o037,
        _ => 0o077,
    }
}

fn wrong(path: &Path, what: &str, why: &str) -> CustodyError {
    CustodyError::Wrong(format!("{what} {} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create_durably(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_secret_is_one_line() {
        for (content, secret) in [
            (&b"1234"[..], Some("1234")),
            (b"12 34\n", Some("12 34")),
            (b"1\r\n", Some("1")),
            (b"\n", None),
            (b"", None),
        ] {
            let (_directory, path) = file(content, 0o600);
            assert_eq!(read_secret(&path, "PIN file").ok().as_ref().map(|s| s.as_str()), secret);
        }
        let (_directory, path) = file(b"1\n2\n", 0o600);
        assert!(matches!(read_secret(&path, "PIN file"), Err(CustodyError::Wrong(_))));
    }

    /// From the first byte: there is no other place that it passes through.
    #[test]
    fn a_secret_is_read_into_locked_memory() {
        let (_directory, path) = file(b"1234\n", 0o600);
        let secret = read_secret(&path, "passphrase file").unwrap();
        crate::harden::memory::tests::is_guarded(secret.as_str().as_ptr() as usize);
        assert_eq!(format!("{secret:?}"), "SecretLine(LockedBytes)");
    }

    #[test]
    fn a_secret_open_to_others_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
            let (_directory, path) = file(b"1234", mode);
            let refusal = read_secret(&path, "PIN file").unwrap_err().to_string();
            assert!(refusal.contains("chmod 600"), "{refusal}");
        }
        let (_directory, path) = file(b"1234", 0o400);
        assert!(read_secret(&path, "PIN file").is_ok());
    }

    #[test]
    fn a_missing_secret_is_unavailable() {
        let directory = tempfile::tempdir().unwrap();
        let missing = read_secret(&directory.path().join("none"), "PIN file");
        assert!(matches!(missing, Err(CustodyError::Unavailable(_))));
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let (directory, path) = file(b"first", 0o600);
        assert_eq!(create_durably(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a draft was left behind");
    }
}
