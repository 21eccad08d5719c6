//! The contract explains itself: each field says what it holds, in which unit.

use std::{fs, path::Path};

const FILES: [&str; 3] = ["signer/v1/signer.proto", "signer/v1/error.proto", "node/v1/node.proto"];

#[test]
fn every_field_is_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/holdfast");
    let mut silent = Vec::new();
    for file in FILES {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let mut line_above = "";
        for (number, line) in text.lines().enumerate() {
            // A field that shares its line with its message or has a comment behind it does not end like this.
            let field = line.starts_with("  ") && line.trim_end().ends_with(';') && line.contains(" = ");
            if field
                && !is_enum_value(line.trim())
                && !line.contains("//")
                && !line_above.trim_start().starts_with("//")
            {
                silent.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
            line_above = line;
        }
    }
    assert!(silent.is_empty(), "fields without a word:\n{}", silent.join("\n"));
}

/// Values of an enum say what they are by their names.
fn is_enum_value(field: &str) -> bool {
    field
        .split(' ')
        .next()
        .is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
}
