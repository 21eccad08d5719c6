//! What a command that fails leaves of the folders that it needed: as the wrong user they would be in the way of the next.

use std::fs;

use crate::site::Site;

#[test]
fn a_command_that_fails_leaves_no_folder_of_its_own() {
    let site = Site::with_tokens(&[]);
    site.token("absent", "nowhere");
    site.fails(&["init", "--config", "absent.toml"], 69, "no token has the address");
    assert!(!site.path("absent").exists());

    // The same for folders above it, and for the target of a move.
    let _ = site.init("file");
    let custody = "backend = \"pkcs11\"\n[custody.pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\n\
                   token = \"pkcs11:token=nowhere\"\npin_file = \"pin\"\n";
    site.configure("deep", "new/er/est", "regtest", custody);
    site.fails(&["rewrap", "--from", "file.toml", "--to", "deep.toml"], 69, "no token has the address");
    assert!(!site.path("new").exists());

    // One that was there stays.
    fs::create_dir_all(site.path("new/er")).unwrap();
    site.fails(&["init", "--config", "deep.toml"], 69, "no token has the address");
    assert!(site.path("new/er").exists() && !site.path("new/er/est").exists());
}

/// SoftHSM itself says only that something failed.
#[test]
fn without_the_folder_of_its_tokens_the_library_is_said_to_have_none() {
    let site = Site::with_tokens(&["holdfast"]);
    site.token("token", "holdfast");
    let _ = site.init("token");
    fs::rename(site.path("tokens"), site.path("away")).unwrap();
    site.fails(&["check", "--config", "token.toml"], 69, "so no token is there");
    fs::rename(site.path("away"), site.path("tokens")).unwrap();
    let _ = site.ok(&["check", "--config", "token.toml"]);
}
