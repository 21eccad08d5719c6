//! `holdfast pki ...`: certificates, without any server.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_proto::{
    identity::Role,
    pki::{self, Issued, PkiError, Shown},
};
use serde_json::{Value, json};

use super::{
    Output,
    args::PkiCommand,
    failure::{Exit, Failure},
    text,
};

pub(super) fn run(command: PkiCommand) -> Result<Output, Failure> {
    match command {
        PkiCommand::Init { dir, domain } => {
            let made = pki::init(&dir, &domain).map_err(failure)?;
            let said = format!(
                "made the authority of {domain}: {}\nkeep {} offline: who has it can be anyone\n",
                made.certificate.display(),
                made.key.display()
            );
            Ok(Output::ok(files(&made), said))
        }
        PkiCommand::Issue { dir, out, days, role, names } => {
            let lifetime = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
            let mut all = Vec::new();
            for name in names {
                all.push(pki::issue(&dir, role, &name, &out, lifetime).map_err(failure)?);
            }
            let said: String = all.iter().map(|issued| issued_text(issued, role)).collect();
            Ok(Output::ok(json!({ "issued": all.iter().map(files).collect::<Vec<_>>() }), said))
        }
        PkiCommand::Show { certificates } => {
            let mut all = Vec::new();
            for file in &certificates {
                all.push((file, pki::show(file).map_err(failure)?));
            }
            let said: Vec<_> = all.iter().map(|(file, shown)| shown_text(file, shown)).collect();
            let json: Vec<_> = all.iter().map(|(file, shown)| shown_json(file, shown)).collect();
            Ok(Output::ok(json!({ "certificates": json }), said.join("\n")))
        }
    }
}

fn failure(error: PkiError) -> Failure {
    let exit = match error {
        PkiError::Exists(_) | PkiError::OtherAuthority(_) => Exit::CannotCreate,
        PkiError::Write { .. } | PkiError::Random(_) => Exit::Io,
        PkiError::Identity(_) => Exit::Usage,
        PkiError::NotAnAuthority { .. } | PkiError::File(_) | PkiError::Unusable(_) | PkiError::Clock => Exit::Config,
        PkiError::Crypto(_) => Exit::Software,
    };
    Failure::new(exit, error.to_string())
}

fn files(issued: &Issued) -> Value {
    json!({
        "identity": issued.identity.as_ref().map(ToString::to_string),
        "certificate": issued.certificate,
        "key": issued.key,
        "ca": issued.ca,
    })
}

fn issued_text(issued: &Issued, role: Role) -> String {
    let identity = issued.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let mut said = format!("issued {identity}\n  certificate = \"{certificate}\"\n  key = \"{key}\"\n");
    said += &format!("  ca = \"{}\"\n", issued.ca.display());
    if role == Role::Operator {
        said += "with endpoints = [\"HOST:PORT\", ...] above these lines they make a cli.toml\n";
    }
    said
}

fn shown_json(file: &Path, shown: &Shown) -> Value {
    json!({
        "file": file,
        "uri": shown.uri,
        "authority": shown.identity.is_none(),
        "role": shown.identity.as_ref().map(|identity| identity.role.as_str()),
        "name": shown.identity.as_ref().map(|identity| &identity.name),
        "subject": shown.subject,
        "issuer": shown.issuer,
        "serial": shown.serial,
        "not_before_ms": ms(shown.not_before),
        "not_after_ms": ms(shown.not_after),
        "valid_now": valid_now(shown),
    })
}

fn shown_text(file: &Path, shown: &Shown) -> String {
    let kind = if shown.identity.is_none() { "authority" } else { "identity" };
    let until = match shown.not_after.duration_since(SystemTime::now()) {
        Ok(left) if shown.not_before <= SystemTime::now() => format!("{} days left", left.as_secs() / 86_400),
        Ok(_) => "NOT YET VALID".into(),
        Err(_) => "EXPIRED".into(),
    };
    text::pairs(&[
        ("file", file.display().to_string()),
        (kind, shown.uri.clone()),
        ("issuer", shown.issuer.clone()),
        ("serial", shown.serial.clone()),
        ("from", text::time(ms(shown.not_before))),
        ("until", format!("{} ({until})", text::time(ms(shown.not_after)))),
    ])
}

fn valid_now(shown: &Shown) -> bool {
    let now = SystemTime::now();
    shown.not_before <= now && now <= shown.not_after
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
