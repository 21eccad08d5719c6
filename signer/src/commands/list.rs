//! `holdfast-signer list`: what the configuration and the data directory hold. It opens no key and asks no backend.

use std::{
    io,
    path::{Path, PathBuf},
};

use holdfast_signer::{
    config::SignerConfig,
    custody::describe::{self, Backend, Sealed},
};
use serde_json::{Map, Value, json};

use super::{Exit, Failure, establish::guard_path, node_id};

/// It needs no passphrase, no PIN and no network, and proves nothing: `check` does.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  holdfast-signer list --config signer.toml --json")]
pub struct Args {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let config = SignerConfig::load(&args.config)?;
    let node_id = match present(&node_id::path(&config.data_dir))? {
        true => Some(node_id::read(&config.data_dir)?.to_string()),
        false => None,
    };
    let guard = guard_path(&config.data_dir);
    let view = View {
        backend: describe::backend(&config.custody, &config.data_dir),
        guard_present: present(&guard)?,
        guard,
        node_id,
        config,
    };
    match args.json {
        true => println!("{}", view.json()),
        false => print!("{}", view.table()),
    }
    Ok(())
}

struct View {
    config: SignerConfig,
    node_id: Option<String>,
    backend: Backend,
    guard: PathBuf,
    guard_present: bool,
}

impl View {
    fn table(&self) -> String {
        let mut rows = vec![
            ("network", self.config.network.to_string()),
            ("data directory", self.config.data_dir.display().to_string()),
            ("node id", self.node_id.clone().unwrap_or_else(|| "none recorded: no keys were made here".into())),
            ("backend", self.backend.name.to_owned()),
        ];
        rows.extend(self.backend.facts.clone());
        if let Some(path) = &self.backend.sealed {
            let at = path.display();
            match describe::sealed(path) {
                Sealed::Absent => rows.push(("sealed seed", format!("{at}: ABSENT"))),
                Sealed::Unreadable(why) => rows.push(("sealed seed", format!("UNREADABLE: {why}"))),
                Sealed::Present(header) => {
                    rows.push(("sealed seed", at.to_string()));
                    rows.push(("  of node", format!("{} on {}", header.node_id, header.network)));
                    rows.push(("  lock", header.lock.into()));
                    let identity = if header.identity_in_token { "in the token" } else { "a child of the seed" };
                    rows.push(("  node key", identity.into()));
                    rows.extend(header.facts);
                }
            }
        }
        let guard = if self.guard_present { "present" } else { "ABSENT" };
        rows.push(("guard", format!("{}: {guard}", self.guard.display())));
        rows.iter().map(|(name, value)| format!("{name:<17}{value}\n")).collect()
    }

    fn json(&self) -> Value {
        let sealed = self.backend.sealed.as_ref().map(|path| {
            let mut value = match describe::sealed(path) {
                Sealed::Absent => json!({ "present": false }),
                Sealed::Unreadable(why) => json!({ "present": true, "unreadable": why }),
                Sealed::Present(header) => {
                    let facts = object(&header.facts);
                    let mut value = json!(header);
                    value["present"] = true.into();
                    value["facts"] = facts;
                    value
                }
            };
            value["path"] = path.display().to_string().into();
            value
        });
        json!({
            "network": self.config.network.to_string(),
            "data_dir": self.config.data_dir.display().to_string(),
            "node_id": self.node_id,
            "backend": self.backend.name,
            "configured": object(&self.backend.facts),
            "sealed_seed": sealed,
            "guard": { "path": self.guard.display().to_string(), "present": self.guard_present },
        })
    }
}

fn object(facts: &[describe::Fact]) -> Value {
    let entries = facts.iter().map(|(name, value)| (name.replace(' ', "_").to_lowercase(), value.clone().into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn present(path: &Path) -> Result<bool, Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Failure::new(Exit::NoInput, format!("{}: {e}", path.display()))),
    }
}
