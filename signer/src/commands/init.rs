//! `holdfast-signer init`: makes the keys, the guard store and the record of the node id. Nothing else ever does but
//! `import` and `restore`, of a seed that exists already.

use std::path::Path;

use holdfast_signer::{
    config::SignerConfig,
    custody::{self, IdentityPlace},
};

use super::{Failure, establish::establish};

pub fn run(config: &Path, identity: Option<IdentityPlace>) -> Result<(), Failure> {
    let config = SignerConfig::load(config)?;
    let (backend, network, data_dir) = (&config.custody, config.network, &config.data_dir);
    let id = establish(&config, || match identity {
        Some(place) => custody::init_with_identity(backend, network, data_dir, place),
        None => custody::init(backend, network, data_dir),
    })?;
    println!("{id}");
    Ok(())
}
