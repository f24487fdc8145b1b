//! Files on disk: written piece by piece, counted, read in parts, removed with their last owner.
//!
//! All of a process lie in one folder, which is made for the first of them and goes with the [`Spool`]. Their names are
//! random and say nothing of what clients call them. The folder is locked as long as its process lives, so that
//! [`Spool::clear`] can tell what a process that was killed has left behind.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::clock::hex;

/// What folders of running processes are called.
const FOLDER: &str = "kiegate-uploads-";
/// What a folder is called until it is locked.
const UNLOCKED: &str = ".kiegate-new-uploads-";
/// Nothing takes so long to be made.
const MAKING: Duration = Duration::from_mins(1);
/// Written at once, in bytes.
const WRITE: usize = 256 * 1024;
/// Read at once, in bytes.
const READ: u64 = 128 * 1024;
/// What a file takes beside its bytes, so that empty ones are not free.
const OVERHEAD: u64 = 4096;

/// How much may lie there, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of all sandboxes together.
    pub total: u64,
    /// Of each sandbox.
    pub each: u64,
}

/// Where uploaded files lie. Clones share it.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    parent: PathBuf,
    room: Room,
    used: Share,
    folder: Mutex<Option<Arc<Folder>>>,
}

/// How much of the room is taken, in bytes.
#[derive(Debug, Default)]
pub(in crate::sim) struct Share(AtomicU64);

/// The folder, and the lock on it.
struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Why a file is not kept.
#[derive(Debug, thiserror::Error)]
pub(in crate::sim) enum SpoolError {
    /// There is no room left for it.
    #[error("the room for uploaded files is full")]
    Full,
    /// The disk said no.
    #[error("an uploaded file cannot be written")]
    Disk(#[from] io::Error),
}

/// A file that is being written. It is gone when this is dropped.
pub(in crate::sim) struct Incoming {
    stored: Stored,
    file: Arc<File>,
    pending: BytesMut,
}

/// A file that is there. It is gone when this is dropped.
pub(in crate::sim) struct Stored {
    spool: Spool,
    share: Arc<Share>,
    folder: Arc<Folder>,
    id: [u8; 16],
    size: u64,
    charged: u64,
}

impl Spool {
    /// Files will lie in a folder below `parent`; nothing is made yet.
    pub fn new(parent: impl Into<PathBuf>, room: Room) -> Self {
        let (used, folder) = (Share::default(), Mutex::new(None));
        Self(Arc::new(Inner { parent: parent.into(), room, used, folder }))
    }

    /// Removes the folders below `parent` whose process is no more. A folder that cannot be looked into is left alone.
    pub fn clear(parent: &Path) {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            fs::symlink_metadata(path).is_ok_and(|about| {
                // One that is being made has no lock for a moment.
                let forgotten =
                    || about.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > MAKING));
                about.is_dir() && (name.starts_with(FOLDER) || name.starts_with(UNLOCKED) && forgotten())
            })
        };
        let paths = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in paths.filter(is_ours) {
            let Ok(folder) = File::open(&path) else { continue };
            // The system takes a lock away when its process ends, however it ends.
            if folder.try_lock().is_ok() && fs::remove_dir_all(&path).is_ok() {
                tracing::info!(folder = %path.display(), "removed uploaded files that a killed process has left");
            }
        }
    }

    /// Begins a file of a sandbox whose share is `share`.
    ///
    /// # Errors
    /// No room, or no disk.
    pub(in crate::sim) async fn begin(&self, share: &Arc<Share>) -> Result<Incoming, SpoolError> {
        let (spool, share) = (self.clone(), Arc::clone(share));
        on_disk(move || spool.begin_now(share)).await
    }

    /// As [`Spool::begin`], and it waits for the disk.
    fn begin_now(self, share: Arc<Share>) -> Result<Incoming, SpoolError> {
        let folder = self.folder()?;
        let mut stored = Stored { spool: self, share, folder, id: rand::random(), size: 0, charged: 0 };
        stored.charge(OVERHEAD)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(stored.path())?;
        Ok(Incoming { stored, file: Arc::new(file), pending: BytesMut::new() })
    }

    /// A file with these bytes.
    ///
    /// # Errors
    /// No room, or no disk.
    pub(in crate::sim) async fn keep(&self, share: &Arc<Share>, bytes: Bytes) -> Result<Stored, SpoolError> {
        let (spool, share) = (self.clone(), Arc::clone(share));
        on_disk(move || {
            let mut incoming = spool.begin_now(share)?;
            incoming.stored.grow(bytes.len() as u64)?;
            (&*incoming.file).write_all(&bytes)?;
            Ok(incoming.stored)
        })
        .await
    }

    /// A copy of `original` that belongs to another share.
    ///
    /// # Errors
    /// No room, or no disk.
    pub(in crate::sim) async fn copy(
        &self,
        share: &Arc<Share>,
        original: Arc<Stored>,
    ) -> Result<Stored, SpoolError> {
        let (spool, share) = (self.clone(), Arc::clone(share));
        on_disk(move || {
            let mut incoming = spool.begin_now(share)?;
            incoming.stored.grow(original.size)?;
            io::copy(&mut File::open(original.path())?, &mut &*incoming.file)?;
            Ok(incoming.stored)
        })
        .await
    }

    /// The folder, made now if it is not there.
    fn folder(&self) -> io::Result<Arc<Folder>> {
        let mut folder = self.0.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder.as_ref().filter(|folder| folder.path.is_dir()) {
            return Ok(Arc::clone(folder));
        }
        let made = Arc::new(Folder::make(&self.0.parent)?);
        *folder = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Folder {
    /// Makes a folder below `parent` that nobody else can look into.
    fn make(parent: &Path) -> io::Result<Self> {
        let id = hex(&rand::random::<[u8; 8]>());
        let (unlocked, path) = (parent.join(format!("{UNLOCKED}{id}")), parent.join(format!("{FOLDER}{id}")));
        DirBuilder::new().recursive(true).mode(0o700).create(&unlocked)?;
        let lock = File::open(&unlocked)?;
        match lock.try_lock() {
            Ok(()) => {}
            // Where there are no locks, nobody else can take it for a dead one's either.
            Err(TryLockError::Error(_)) => tracing::debug!("{} takes no locks", parent.display()),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
        }
        // Only now does it bear the name that `clear` looks for.
        fs::rename(&unlocked, &path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.path.display(), "cannot remove uploaded files: {error}");
        }
    }
}

impl Share {
    /// Takes `bytes` more, if `most` allows.
    fn take(&self, bytes: u64, most: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Incoming {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// No room, or no disk.
    pub(in crate::sim) async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.stored.grow(bytes.len() as u64)?;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE { self.flush().await } else { Ok(()) }
    }

    /// Ends it: all of it is there.
    ///
    /// # Errors
    /// No disk.
    pub(in crate::sim) async fn finish(mut self) -> Result<Stored, SpoolError> {
        self.flush().await?;
        Ok(self.stored)
    }

    async fn flush(&mut self) -> Result<(), SpoolError> {
        let (file, bytes) = (Arc::clone(&self.file), self.pending.split().freeze());
        on_disk(move || Ok((&*file).write_all(&bytes)?)).await
    }
}

impl Stored {
    /// In bytes.
    pub(in crate::sim) fn size(&self) -> u64 {
        self.size
    }

    /// What no other file is called, now or later.
    pub(in crate::sim) fn id(&self) -> String {
        hex(&self.id)
    }

    /// A part of it, read as fast as the reader takes it.
    ///
    /// # Errors
    /// It is not there any more, or cannot be read.
    pub(in crate::sim) async fn read(self: Arc<Self>, part: Range<u64>) -> io::Result<Body> {
        let path = self.path();
        let file = Arc::new(spawn_blocking(|| File::open(path)).await??);
        // The file stays while somebody reads it, be it replaced meanwhile.
        let pieces = try_unfold((self, file, part), async |(stored, file, part)| {
            if part.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let end = part.end.min(part.start + READ);
            let length = usize::try_from(end - part.start).expect("a piece fits into memory");
            let reader = Arc::clone(&file);
            let piece = spawn_blocking(move || {
                let mut piece = vec![0; length];
                reader.read_exact_at(&mut piece, part.start).map(|()| Bytes::from(piece))
            });
            Ok(Some((piece.await??, (stored, file, end..part.end))))
        });
        Ok(Body::from_stream(pieces))
    }

    fn path(&self) -> PathBuf {
        self.folder.path.join(self.id())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), SpoolError> {
        self.charge(bytes)?;
        self.size += bytes;
        Ok(())
    }

    fn charge(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let Inner { room, used, .. } = &*self.spool.0;
        if !self.share.take(bytes, room.each) {
            return Err(SpoolError::Full);
        }
        if !used.take(bytes, room.total) {
            self.share.give_back(bytes);
            return Err(SpoolError::Full);
        }
        self.charged += bytes;
        Ok(())
    }
}

impl Drop for Stored {
    /// Gives the room back at once and removes the file off the event loop.
    fn drop(&mut self) {
        self.share.give_back(self.charged);
        self.spool.0.used.give_back(self.charged);
        let (path, folder) = (self.path(), Arc::clone(&self.folder));
        let remove = move || {
            let _ = fs::remove_file(path);
            drop(folder);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Runs what waits for the disk off the event loop.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    spawn_blocking(work).await.map_err(io::Error::from)?
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const ROOM: Room = Room { total: 100_000, each: 60_000 };

    fn files(parent: &Path) -> Vec<PathBuf> {
        let folders = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
        folders.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())).collect()
    }

    async fn until(condition: impl Fn() -> bool) {
        for _ in 0..2000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not come about");
    }

    #[tokio::test]
    async fn a_file_is_written_read_in_parts_and_removed_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::new(parent.path(), ROOM);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is made before it is needed");
        let share = Arc::new(Share::default());
        let mut incoming = spool.begin(&share).await.unwrap();
        incoming.write(b"0123").await.unwrap();
        incoming.write(b"456789").await.unwrap();
        let stored = Arc::new(incoming.finish().await.unwrap());
        assert_eq!((stored.size(), share.0.load(Ordering::Relaxed)), (10, 10 + OVERHEAD));
        let part = Arc::clone(&stored).read(2..5).await.unwrap();
        drop(stored);
        assert_eq!(part.collect().await.unwrap().to_bytes(), "234", "it stays while it is read");
        until(|| files(parent.path()).is_empty()).await;
        assert_eq!(share.0.load(Ordering::Relaxed) + spool.0.used.0.load(Ordering::Relaxed), 0);
        drop(spool);
        until(|| fs::read_dir(parent.path()).unwrap().count() == 0).await;
    }

    #[tokio::test]
    async fn half_a_file_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::new(parent.path(), ROOM);
        let mut incoming = spool.begin(&Arc::default()).await.unwrap();
        incoming.write(b"half").await.unwrap();
        assert_eq!(files(parent.path()).len(), 1);
        drop(incoming);
        until(|| files(parent.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn the_room_is_bounded_for_each_and_for_all() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::new(parent.path(), ROOM);
        let (one, two) = (Arc::<Share>::default(), Arc::<Share>::default());
        let large = Bytes::from(vec![0; 50_000]);
        let kept = spool.keep(&one, large.clone()).await.unwrap();
        assert!(matches!(spool.keep(&one, large.clone()).await, Err(SpoolError::Full)), "its share is full");
        assert!(matches!(spool.keep(&two, large.clone()).await, Err(SpoolError::Full)), "all is full");
        drop(kept);
        let kept = Arc::new(spool.keep(&two, large).await.unwrap());
        let copy = spool.copy(&one, Arc::clone(&kept)).await;
        assert!(matches!(copy, Err(SpoolError::Full)), "a copy counts, too");
    }

    #[tokio::test]
    async fn only_folders_of_the_dead_are_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::new(parent.path(), ROOM);
        let _kept = spool.keep(&Arc::default(), Bytes::from_static(b"x")).await.unwrap();
        let dead = parent.path().join(format!("{FOLDER}dead"));
        let elsewhere = parent.path().join("elsewhere");
        for folder in [&dead, &elsewhere] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "x").unwrap();
        }
        let link = parent.path().join(format!("{FOLDER}link"));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        Spool::clear(parent.path());
        assert!(!dead.exists());
        assert!(link.exists() && elsewhere.join("file").exists(), "links are not followed");
        assert_eq!(files(parent.path()).len(), 3, "what lives stays");
    }
}
