//! Pages that are made from the code say what the code says.

use std::{collections::BTreeSet, fs, path::Path};

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

/// Of what docs/errors.md says ends a program, only what is away (69) is worth another start; nor is a wrong command line (64).
#[test]
fn the_units_start_nothing_again_that_a_restart_does_not_mend() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md")).unwrap();
    let ends = page.split("## Ends at once").nth(1).unwrap().split("\n#").next().unwrap();
    let rows: Vec<Vec<&str>> =
        ends.lines().filter(|line| line.starts_with("| ")).skip(1).map(|line| line.split(" | ").collect()).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for (unit, programs) in [
        (include_str!("../../systemd/holdfast-node.service"), ["replica", "both", "all three"]),
        (include_str!("../../systemd/holdfast-signer.service"), ["signer", "both", "all three"]),
    ] {
        let of_program = rows.iter().filter(|row| programs.contains(&row[1]));
        let codes = of_program.flat_map(|row| row[2].split(", ")).filter(|code| *code != "69").chain(["64"]);
        let listed = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
        let (listed, codes): (BTreeSet<&str>, BTreeSet<&str>) = (listed.split(' ').collect(), codes.collect());
        assert_eq!(listed, codes, "{programs:?}");
    }
}
