//! The store inside the signer's own process: one file, one writer, and as many waiters to a flush as there are.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc},
    thread::{self, JoinHandle},
};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::store::{GuardStore, Name, StoreError, Write};

/// Key to (version, record).
pub(super) const RECORDS: TableDefinition<&[u8], (u64, &[u8])> = TableDefinition::new("records");
/// More than this many records are not flushed at once, so that the first of them does not wait for long.
const BATCH: usize = 512;

/// Records in one redb file.
pub struct EmbeddedStore {
    database: Arc<Shared>,
    /// Taken when the store is dropped.
    writer: Option<(mpsc::Sender<Waiting>, JoinHandle<()>)>,
}

struct Waiting {
    write: Write,
    done: mpsc::SyncSender<Result<(), StoreError>>,
}

/// The open database. After a failed write redb wants to be opened anew, so there may be none for a while.
struct Shared {
    path: Option<PathBuf>,
    open: RwLock<Option<Database>>,
}

impl EmbeddedStore {
    /// Makes a new, empty store; there must be nothing at `path`.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let database = Builder::new().create_file(file).map_err(unavailable)?;
        make_table(&database)?;
        // The file's name must last as well as what is in it.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Self::start(Some(path.to_owned()), database)
    }

    /// Opens the store at `path`. None there is an error: it is never taken for an empty one.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::start(Some(path.to_owned()), open(path)?)
    }

    /// A store that is gone when the process is. For tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database =
            Builder::new().create_with_backend(redb::backends::InMemoryBackend::new()).map_err(unavailable)?;
        make_table(&database)?;
        Self::start(None, database)
    }

    fn start(path: Option<PathBuf>, database: Database) -> Result<Self, StoreError> {
        let database = Arc::new(Shared { path, open: RwLock::new(Some(database)) });
        let (writer, waiting) = mpsc::channel();
        let shared = Arc::clone(&database);
        let thread = thread::Builder::new()
            .name("guard-writer".into())
            .spawn(move || write_batches(&shared, &waiting))
            .map_err(unavailable)?;
        Ok(Self { database, writer: Some((writer, thread)) })
    }
}

/// Waits for the writer, so that the file is free for whoever opens it next.
impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            // It panicked: there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

impl GuardStore for EmbeddedStore {
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError> {
        self.database
            .read(|table| {
                let mut records = Vec::new();
                for entry in table.iter()? {
                    let (key, value) = entry?;
                    records.push((key.value().to_vec(), value.value().1.to_vec()));
                }
                Ok(records)
            })?
            .into_iter()
            .map(|(key, record)| Ok((Name::from_key(&key)?, record)))
            .collect()
    }

    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        self.database.read(|table| Ok(table.get(name.key().as_slice())?.map(|value| value.value().1.to_vec())))
    }

    fn put(&self, write: Write) -> Result<(), StoreError> {
        let (done, wait) = mpsc::sync_channel(1);
        let gone = || StoreError::Unavailable("the writer has ended".into());
        let (writer, _) = self.writer.as_ref().ok_or_else(gone)?;
        writer.send(Waiting { write, done }).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }
}

/// The writer: takes what waits, flushes it at once, tells everyone. Ends when the store is dropped.
fn write_batches(shared: &Shared, waiting: &mpsc::Receiver<Waiting>) {
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH - 1));
        let results = shared.write(&batch);
        for (waiting, result) in batch.into_iter().zip(results) {
            // Who does not wait any longer needs no answer.
            let _ = waiting.done.send(result);
        }
    }
}

impl Shared {
    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], (u64, &'static [u8])>) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        // Whoever does not know whether his write failed reads before he writes again.
        self.reopen()?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = open.as_ref().ok_or_else(|| StoreError::Unavailable("closed after a failed write".into()))?;
        let read = || look(&database.begin_read()?.open_table(RECORDS)?);
        read().map_err(unavailable)
    }

    /// One transaction for all; one result each.
    fn write(&self, batch: &[Waiting]) -> Vec<Result<(), StoreError>> {
        let written = self.try_write(batch);
        written.unwrap_or_else(|error| {
            // What redb holds in memory may now differ from the file: forget it, open again at the next use.
            if self.path.is_some() {
                *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            batch.iter().map(|_| Err(error.clone())).collect()
        })
    }

    fn try_write(&self, batch: &[Waiting]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.reopen()?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = open.as_ref().ok_or_else(|| StoreError::Unavailable("closed after a failed write".into()))?;
        let write = || -> Result<_, redb::Error> {
            let transaction = database.begin_write()?;
            let mut results = Vec::with_capacity(batch.len());
            {
                let mut table = transaction.open_table(RECORDS)?;
                for Waiting { write, .. } in batch {
                    let key = write.name.key();
                    let found = table.get(key.as_slice())?.map_or(0, |value| value.value().0);
                    if found != write.previous {
                        let (name, expected) = (write.name, write.previous);
                        results.push(Err(StoreError::Conflict { name, expected, found }));
                        continue;
                    }
                    table.insert(key.as_slice(), (write.version, write.record.as_slice()))?;
                    results.push(Ok(()));
                }
            }
            // redb's default durability: flushed to the disk before it returns.
            transaction.commit()?;
            Ok(results)
        };
        write().map_err(unavailable)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        if self.open.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(path)) = (slot.as_ref(), &self.path) {
            *slot = Some(open(path)?);
        }
        Ok(())
    }
}

fn make_table(database: &Database) -> Result<(), StoreError> {
    let make = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        Ok(())
    };
    make().map_err(unavailable)
}

fn open(path: &Path) -> Result<Database, StoreError> {
    Builder::new().open(path).map_err(|error| not_opened(path, error))
}

/// Why there is no store at `path` to be had, and what to do.
pub(super) fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    let why = match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another holdfast-signer is using it; only one may run on a data_dir".to_owned()
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            "is missing; never put an old copy in its place, which would let revoked states be signed: docs/recovery.md \
             says what to do"
                .to_owned()
        }
        error => error.to_string(),
    };
    StoreError::Unavailable(format!("{}: {why}", path.display()))
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
