//! Deposits, as a leader goes on with them.

use tokio_postgres::{Client, Row};

use super::from_bigint;
use super::read::named;
use super::rows::standing_name;
use super::session::Failure;
use crate::chain::deposits::LOOKED_AFTER;
use crate::store::batch::{Deposit, Standing};

/// Those that may still change, and those of the last blocks.
pub(super) async fn deposits(client: &Client) -> Result<Vec<Deposit>, Failure> {
    let rows = client.query(OPEN, &[&i64::from(LOOKED_AFTER)]).await?;
    rows.iter().map(deposit).collect()
}

const OPEN: &str = "SELECT outpoint, address, amount_sat, standing, block_height, block_hash, confirmations
    FROM holdfast.deposits
    WHERE standing IN ('unconfirmed', 'mined')
        OR block_height > (SELECT max(block_height) FROM holdfast.deposits) - $1";

fn deposit(row: &Row) -> Result<Deposit, Failure> {
    let wrong = |what: &str| Failure::Wrong(format!("a deposit's {what} does not parse"));
    let small = |number: i64, what: &str| u32::try_from(number).map_err(|_| wrong(what));
    let block = match (row.try_get::<_, Option<i64>>(4)?, row.try_get::<_, Option<&str>>(5)?) {
        (Some(height), Some(hash)) => {
            Some((small(height, "block height")?, hash.parse().map_err(|_| wrong("block hash"))?))
        }
        _ => None,
    };
    Ok(Deposit {
        outpoint: row.try_get::<_, &str>(0)?.parse().map_err(|_| wrong("outpoint"))?,
        address: row.try_get(1)?,
        amount_sat: from_bigint(row.try_get(2)?),
        // Written once more with each change; what it was is no state.
        label: None,
        standing: named(row.try_get(3)?, STANDINGS, standing_name)?,
        block,
        confirmations: small(row.try_get(6)?, "confirmations")?,
    })
}

const STANDINGS: [Standing; 4] = [Standing::Unconfirmed, Standing::Mined, Standing::Confirmed, Standing::Gone];
