//! Where the replicas are and who we are: from flags, or else from a small file.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_proto::{identity::Role, tls::Credentials};
use serde::Deserialize;

use super::{
    args::ConnectionArgs,
    failure::{Exit, Failure},
};
use crate::config::HostPort;

#[derive(Debug)]
pub(super) struct Settings {
    /// At least one.
    pub endpoints: Vec<HostPort>,
    pub credentials: Credentials,
    /// How long to look for a leader, and to wait for an answer that may be given up on.
    pub patience: Duration,
}

impl Settings {
    /// A flag wins over the file. The file named by `--config` must exist; the one in its usual place need not.
    pub fn load(args: ConnectionArgs) -> Result<Self, Failure> {
        let file = match &args.config {
            Some(path) => Some(CliFile::load(path)?),
            None => match usual_place() {
                Some(path) if path.exists() => Some(CliFile::load(&path)?),
                _ => None,
            },
        };
        let file = file.unwrap_or_default();
        let endpoints = if args.endpoints.is_empty() { file.endpoints } else { args.endpoints };
        if endpoints.is_empty() {
            return Err(missing("no replica to talk to", "--endpoint HOST:PORT", "endpoints"));
        }
        let need = |flag: Option<PathBuf>, file: Option<PathBuf>, name, option, key| {
            flag.or(file).ok_or_else(|| missing(name, option, key))
        };
        let certificate = need(args.cert, file.certificate, "no certificate", "--cert FILE", "certificate")?;
        let key = need(args.key, file.key, "no key", "--key FILE", "key")?;
        let ca = need(args.ca, file.ca, "no authority's certificate", "--ca FILE", "ca")?;
        let credentials =
            Credentials::load(&certificate, &key, &ca).map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
        let identity = credentials.identity();
        if identity.role != Role::Operator {
            let message = format!("{} is of {identity}, and only operators may operate", certificate.display());
            return Err(Failure::new(Exit::NoPermission, message)
                .hint("`holdfast pki issue --dir DIR operator NAME` makes an operator's certificate"));
        }
        Ok(Self { endpoints, credentials, patience: args.timeout.unwrap_or(DEFAULT_PATIENCE) })
    }
}

const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// `cli.toml`. Relative paths start at its directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CliFile {
    #[serde(default)]
    endpoints: Vec<HostPort>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl CliFile {
    fn load(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::new(Exit::Config, format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path)
            .map_err(|e: io::Error| Failure { exit: Exit::NoInput, ..failed(e.to_string()) })?;
        let mut file: Self = toml::from_str(&text).map_err(|e| failed(e.to_string().trim_end().to_owned()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for path in [&mut file.certificate, &mut file.key, &mut file.ca].into_iter().flatten() {
            *path = directory.join(&*path);
        }
        Ok(file)
    }
}

fn usual_place() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("holdfast").join("cli.toml"))
}

fn missing(what: &str, option: &str, key: &str) -> Failure {
    let place = usual_place().map_or("a file given with --config".to_owned(), |path| path.display().to_string());
    Failure::new(Exit::Usage, what).hint(format!("give {option}, or set `{key}` in {place}"))
}
