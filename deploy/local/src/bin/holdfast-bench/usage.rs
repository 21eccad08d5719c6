//! What processes and the database take up.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use holdfast_local::{Deployment, process::Process};
use serde::Serialize;

/// Of one process, as the kernel accounts for it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Used {
    pub resident_bytes: u64,
    /// Since the process began.
    pub cpu_seconds: f64,
}

/// The three programs that run in earnest.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Programs {
    pub leader: Used,
    pub standby: Used,
    pub signer: Used,
}

#[derive(Clone, Debug, Serialize)]
pub struct Database {
    /// All of it, catalogue and free space included.
    pub bytes: i64,
    /// The node's own tables, with their indexes.
    pub tables: BTreeMap<String, Table>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Table {
    pub rows: i64,
    pub bytes: i64,
}

impl Programs {
    pub async fn look(deployment: &Deployment) -> Result<Self> {
        let (leader, _) = deployment.leader().await?;
        let standby = deployment.standby().await?;
        Ok(Self {
            leader: Used::by(leader.process())?,
            standby: Used::by(standby.process())?,
            signer: Used::by(deployment.signer().process())?,
        })
    }
}

impl Used {
    fn by(process: &Process) -> Result<Self> {
        let pid = process.pid().with_context(|| format!("{} does not run", process.name()))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::read(&status, &stat).with_context(|| format!("what the kernel says of {}", process.name()))
    }

    fn read(status: &str, stat: &str) -> Option<Self> {
        // The unit of times in /proc is this on every Linux of today.
        const TICKS_PER_SECOND: f64 = 100.0;
        let kilobytes: u64 =
            status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse().ok()?;
        // The name of the program, in brackets, may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        let cpu_seconds = (ticks()? + ticks()?) / TICKS_PER_SECOND;
        Some(Self { resident_bytes: kilobytes * 1024, cpu_seconds })
    }
}

impl Database {
    pub async fn look(deployment: &Deployment) -> Result<Self> {
        const TABLES: &str = "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c \
                              WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'r'";
        let client = deployment.postgres().client().await?;
        let bytes = client.query_one("SELECT pg_database_size(current_database())", &[]).await?.get(0);
        let mut tables = BTreeMap::new();
        for row in client.query(TABLES, &[]).await? {
            let name: String = row.get(0);
            let rows = client.query_one(&format!("SELECT count(*) FROM holdfast.\"{name}\""), &[]).await?.get(0);
            tables.insert(name, Table { rows, bytes: row.get(1) });
        }
        Ok(Self { bytes, tables })
    }

    pub fn rows(&self) -> i64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// What was added since an earlier look, table by table, where anything was.
    pub fn since(&self, before: &Self) -> Self {
        let added = self.tables.iter().map(|(name, now)| {
            let was = before.tables.get(name).copied().unwrap_or_default();
            (name.clone(), Table { rows: now.rows - was.rows, bytes: now.bytes - was.bytes })
        });
        let tables = added.filter(|(_, table)| table.rows != 0 || table.bytes != 0).collect();
        Self { bytes: self.bytes - before.bytes, tables }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_figures_are_read_whatever_the_program_is_called() {
        let status = "Name:\tx\nVmHWM:\t   90000 kB\nVmRSS:\t   83784 kB\nThreads:\t9\n";
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 20000 0 5 0 1234 66 0 0 20 0 9 0 100 900 800";
        let used = Used::read(status, stat).unwrap();
        assert_eq!(used.resident_bytes, 83_784 * 1024);
        assert!((used.cpu_seconds - 13.0).abs() < 1e-9);
    }
}
