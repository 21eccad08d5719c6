//! A share's bytes as lines that survive printing and typing.
//!
//! Each line is bech32m (BIP 350) with the prefix `hfshare`: the line's number, then up to 39 bytes. So each has a
//! checksum of its own, which finds any four wrong characters, and an error names the line it is in. Lines may
//! stand in any order, in capitals, between comments and empty lines.

use bitcoin::bech32::{Bech32m, Hrp, encode_lower_to_fmt, primitives::decode::CheckedHrpstring};
use zeroize::Zeroizing;

use super::share::{LENGTH, ShareError};

pub(super) const PREFIX: &str = "hfshare";
const CHUNK: usize = 39;
const LINES: usize = LENGTH.div_ceil(CHUNK);
/// Bech32m's promise ends at 90 characters.
const _: () = assert!(PREFIX.len() + 1 + ((1 + CHUNK) * 8).div_ceil(5) + 6 <= 90);

pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let prefix = Hrp::parse_unchecked(PREFIX);
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    for (number, chunk) in (1u8..).zip(bytes.chunks(CHUNK)) {
        let line = Zeroizing::new([&[number], chunk].concat());
        // It fails only for what is longer than bech32 goes.
        encode_lower_to_fmt::<Bech32m, String>(&mut text, prefix, &line).expect("40 bytes fit into a line");
        text.push('\n');
    }
    text
}

pub(super) fn decode(text: &str) -> Result<Zeroizing<[u8; LENGTH]>, ShareError> {
    let mut found: [Option<Zeroizing<Vec<u8>>>; LINES] = Default::default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for (place, line) in (1..).zip(lines) {
        count = place;
        let slip = |why: &dyn ToString| ShareError::Line { line: place, why: why.to_string() };
        // A person may have typed spaces to keep count.
        let line = Zeroizing::new(line.replace([' ', '\t'], ""));
        let line = CheckedHrpstring::new::<Bech32m>(&line).map_err(|error| slip(&error))?;
        if !line.hrp().as_str().eq_ignore_ascii_case(PREFIX) {
            return Err(slip(&format!("it does not begin with {PREFIX}1")));
        }
        let bytes = Zeroizing::new(line.byte_iter().collect::<Vec<_>>());
        let (number, content) = bytes.split_first().ok_or_else(|| slip(&"it is empty"))?;
        let number = usize::from(*number);
        if number == 0 || number > LINES {
            return Err(slip(&format!("it says that it is line {number} of {LINES}")));
        }
        if content.len() != CHUNK.min(LENGTH - (number - 1) * CHUNK) {
            return Err(slip(&"it is too short or too long"));
        }
        match &found[number - 1] {
            Some(same) if same.as_slice() == content => {}
            Some(_) => return Err(ShareError::Contradiction(number)),
            None => found[number - 1] = Some(Zeroizing::new(content.to_vec())),
        }
    }
    if count == 0 {
        return Err(ShareError::NoLines);
    }
    let mut share = Zeroizing::new([0; LENGTH]);
    for (number, chunk) in (1..).zip(share.chunks_mut(CHUNK)) {
        let content = found[number - 1].as_ref().ok_or(ShareError::Missing(number))?;
        chunk.copy_from_slice(content);
    }
    Ok(share)
}
