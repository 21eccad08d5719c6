//! Which channels a database has heard of, be they open, closed or archived.

use std::collections::HashSet;

use super::read::{PgReader, ReadError, array};

const KNOWN: &str = "SELECT channel_id FROM holdfast.channels WHERE channel_id = ANY($1)
    UNION SELECT channel_id FROM holdfast.monitors WHERE channel_id = ANY($1)";

impl PgReader {
    /// Those of `channel_ids` that this database knows, or knew once.
    pub async fn known_channels(&self, channel_ids: &[[u8; 32]]) -> Result<HashSet<[u8; 32]>, ReadError> {
        let asked: Vec<&[u8]> = channel_ids.iter().map(<[u8; 32]>::as_slice).collect();
        let known = self.rows(KNOWN, &[&asked], |row| array(row.try_get(0)?)).await?;
        Ok(known.into_iter().collect())
    }
}
