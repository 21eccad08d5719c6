//! Pages that are made from the code say what the code says.

use std::{fs, path::Path};

const NODE: &str = include_str!("../../../node/src/config.toml");
const SIGNER: &str = include_str!("../../../signer/src/config.toml");

/// `HOLDFAST_WRITE_DOCS=1` writes the page anew.
#[test]
fn the_configuration_reference_is_that_of_the_programs() {
    let page = format!(
        "# Configuration\n\n\
         One TOML file a program, parsed whole before anything starts. Unknown keys are errors. Lines that start with `#` and no\n\
         space are keys with their defaults. Made from what the programs print; do not edit.\n\n\
         ## The signer: `holdfast-signer config`\n\n```toml\n{SIGNER}```\n\n\
         ## A replica: `holdfast-node config`\n\n```toml\n{NODE}```\n"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("HOLDFAST_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is out of date: HOLDFAST_WRITE_DOCS=1 makes it anew");
}
