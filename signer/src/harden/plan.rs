//! The plan of a signer's configuration.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::confine::{ConfineError, Plan, enclosing};
use crate::{
    config::{CustodyConfig, SignerConfig},
    custody::aws,
};

impl Plan {
    /// Nothing but what this configuration needs to serve, and to begin again with a token or with renewed certificates.
    pub fn of(config: &SignerConfig) -> Result<Self, ConfineError> {
        let mut plan = Self::new(&config.confinement)?;
        plan.write.insert(config.data_dir.clone());
        plan.reach(&config.custody);
        for file in [&config.tls.certificate, &config.tls.key, &config.tls.ca] {
            plan.read_replaceable(file);
        }
        plan.bind_ports
            .extend([Some(config.listen), config.health_listen].iter().flatten().map(|address| address.port()));
        if let Some(collector) = &config.telemetry.otlp_endpoint {
            plan.connect(collector.port());
        }
        Ok(plan)
    }

    /// What a command needs that makes, opens or moves the keys: no port to listen on, and a sealed seed may be written.
    pub fn for_keys(config: &SignerConfig) -> Result<Self, ConfineError> {
        let mut plan = Self::new(&config.confinement)?;
        plan.write.insert(config.data_dir.clone());
        plan.reach(&config.custody);
        if let CustodyConfig::File(file) = &config.custody {
            plan.write.insert(enclosing(&file.path));
        }
        Ok(plan)
    }

    /// What either needs.
    pub fn and(mut self, other: Self) -> Self {
        self.require |= other.require;
        self.read.extend(other.read);
        self.write.extend(other.write);
        self.execute.extend(other.execute);
        self.remove_empty.extend(other.remove_empty);
        self.bind_ports.extend(other.bind_ports);
        self.connect_ports.extend(other.connect_ports);
        self.connect_ports_at_start.extend(other.connect_ports_at_start);
        self.allow_exec |= other.allow_exec;
        self.allow_netlink |= other.allow_netlink;
        self
    }

    fn reach(&mut self, custody: &CustodyConfig) {
        match custody {
            CustodyConfig::File(file) => {
                self.read_replaceable(&file.path);
                self.read_replaceable(&file.passphrase_file);
            }
            CustodyConfig::Pkcs11(token) => {
                self.read_replaceable(&token.pin_file);
                // A bare name is left to the dynamic linker.
                if token.module.components().count() > 1 {
                    self.read_replaceable(&token.module);
                }
                if is_softhsm(&token.module) {
                    self.allow_softhsm();
                }
            }
            CustodyConfig::AwsKms(kms) => aws::allow_start(self, &kms.access()),
            CustodyConfig::AwsSecretsManager(secret) => aws::allow_start(self, &secret.access()),
        }
    }

    /// SoftHSM is files: its configuration, and the folder of its tokens, which may be moved away and back.
    fn allow_softhsm(&mut self) {
        for file in softhsm_configurations() {
            if let Some(tokens) = tokens_folder(&file) {
                self.write.insert(enclosing(&tokens));
            }
            self.read.insert(file);
        }
    }
}

fn is_softhsm(module: &Path) -> bool {
    module.file_name().is_some_and(|name| name.to_string_lossy().contains("softhsm"))
}

/// Where SoftHSM looks for its configuration (softhsm2.conf(5)).
fn softhsm_configurations() -> Vec<PathBuf> {
    match env::var_os("SOFTHSM2_CONF") {
        Some(file) => vec![file.into()],
        None => {
            let home = env::home_dir().map(|home| home.join(".config/softhsm2/softhsm2.conf"));
            home.into_iter().chain(["/etc/softhsm/softhsm2.conf".into()]).collect()
        }
    }
}

fn tokens_folder(configuration: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(configuration).ok()?;
    let values = text.lines().filter_map(|line| line.split_once('='));
    let mut folders = values.filter(|(key, _)| key.trim() == "directories.tokendir");
    folders.next().map(|(_, folder)| PathBuf::from(folder.trim()))
}
