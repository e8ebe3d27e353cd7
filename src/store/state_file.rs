//! Resolves the path of the state file, checks whether the file may be replaced, and locks it.
//!
//! The path comes from the configuration and may be wrong. Therefore, only state files are replaced or moved, and only
//! one exporter at a time may use a state file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::lock::lock;
use crate::text_file::BYTE_ORDER_MARK;

/// First bytes of a state file, regardless of its version.
const BEGINNING: &[u8] = b"{\"state\":";

/// Maximum number of symbolic links that are followed if the file does not exist yet. Linux has the same limit for
/// existing files.
const MAX_LINKS: usize = 40;

/// Maximum number of bytes that are read from a lock file, which contains a process id and a line feed.
const MAX_PID_BYTES: u64 = 16;

/// Reason why a path cannot be used for the state file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path refers to something other than a regular file.
    #[error("{} is {kind}; expected a regular file, or a path at which one can be created", path.display())]
    NotRegular {
        /// Path of the state file.
        path: PathBuf,
        /// Type of the file.
        kind: &'static str,
    },
    /// The file at the path is not a state file.
    #[error("{} is not a state file and was not changed; expected a state file, an empty file, or no file", .0.display())]
    Foreign(PathBuf),
    /// The path is invalid, or access is denied.
    #[error("cannot read {}", path.display())]
    Unreachable {
        /// Path of the state file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Another exporter has locked the file.
    #[error("{} is in use by {}; expected a separate state file for each exporter", path.display(), holder(*pid))]
    InUse {
        /// Path of the state file.
        path: PathBuf,
        /// Id of the process that holds the lock, if the lock file contains it.
        pid: Option<u32>,
    },
    /// The file system failed.
    #[error("{}: {problem}", path.display())]
    Io {
        /// Path of the state file.
        path: PathBuf,
        /// The problem, such as "cannot be read".
        problem: &'static str,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Returns whether the configuration is the cause, rather than a disk that is full, read-only or temporarily
    /// missing.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

pub(super) fn io_error(path: &Path, problem: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, problem, source }
}

/// Checks that the file at a path is a state file, is empty, or does not exist. Does not change the file. Returns its
/// path, with symbolic links resolved.
///
/// # Errors
/// Returns an error if there is anything else at the path, or if the path cannot be read.
pub fn resolve(path: &Path) -> Result<PathBuf, Error> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::NotRegular {
            path: path.to_owned(),
            kind: "the name of a directory",
        });
    }
    let target = match open(path)? {
        None => follow_links(path)?,
        Some(file) => {
            check_beginning(path, file)?;
            fs::canonicalize(path).map_err(|source| unreachable(path, source))?
        }
    };
    match target.file_name() {
        Some(_) => Ok(target),
        None => Err(Error::NotRegular {
            path: path.to_owned(),
            kind: "not the name of a file",
        }),
    }
}

/// Opens a regular file for reading. Returns `None` if there is no file. Other types of files are not opened, because
/// opening a FIFO blocks, and opening a device can have side effects.
pub(super) fn open(path: &Path) -> Result<Option<File>, Error> {
    let opened = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Ok(Err(metadata));
        }
        // A FIFO may have replaced the file in the meantime.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        options.open(path).map(Ok)
    });
    match opened {
        Ok(Ok(file)) => Ok(Some(file)),
        Ok(Err(metadata)) => Err(not_regular(path, &metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreachable(path, error)),
    }
}

fn not_regular(path: &Path, metadata: &Metadata) -> Error {
    let file_type = metadata.file_type();
    let kinds = [
        (file_type.is_dir(), "a directory"),
        (file_type.is_symlink(), "a symbolic link"),
        (file_type.is_fifo(), "a FIFO"),
        (file_type.is_socket(), "a socket"),
    ];
    Error::NotRegular {
        path: path.to_owned(),
        kind: kinds
            .into_iter()
            .find_map(|(is, kind)| is.then_some(kind))
            .unwrap_or("a device"),
    }
}

/// Returns the error for a path that cannot be read. An invalid path is a configuration error, but a failing file
/// system may recover.
fn unreachable(path: &Path, source: io::Error) -> Error {
    const WRONG: [Errno; 5] = [
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
    ];
    let path = path.to_owned();
    if Errno::from_io_error(&source).is_some_and(|error| WRONG.contains(&error)) {
        Error::Unreachable { path, source }
    } else {
        let problem = "cannot be read";
        Error::Io { path, problem, source }
    }
}

/// Checks the first bytes of a state file. A truncated file passes, however short it is.
fn check_beginning(path: &Path, file: File) -> Result<(), Error> {
    let metadata = file.metadata().map_err(io_error(path, "cannot be read"))?;
    if !metadata.is_file() {
        return Err(not_regular(path, &metadata));
    }
    let mut beginning = Vec::new();
    let longest = u64::try_from(BYTE_ORDER_MARK.len() + BEGINNING.len()).unwrap_or(u64::MAX);
    file.take(longest)
        .read_to_end(&mut beginning)
        .map_err(io_error(path, "cannot be read"))?;
    let beginning = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&beginning);
    if BEGINNING.starts_with(beginning.get(..BEGINNING.len()).unwrap_or(beginning)) {
        Ok(())
    } else {
        Err(Error::Foreign(path.to_owned()))
    }
}

/// Follows symbolic links to the path at which the file will be created.
fn follow_links(path: &Path) -> Result<PathBuf, Error> {
    let mut target = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                // The file will be created here. If the directory is missing, creating the file fails.
                let directory = fs::canonicalize(parent(&target));
                let named = directory.ok().zip(target.file_name());
                return Ok(named.map_or_else(|| target.clone(), |(directory, name)| directory.join(name)));
            }
            Err(error) => return Err(unreachable(path, error)),
        }
    }
    Err(unreachable(path, Errno::LOOP.into()))
}

/// Returns the directory of a file, or the working directory if the path is a bare file name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Appends a suffix to the file name of a path.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Returns whether there is a state file at a path. The file may be empty or truncated.
///
/// # Errors
/// Returns an error if there is anything else at the path, or if the path cannot be read.
fn is_left_over(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreachable(path, error)),
        Ok(metadata) if !metadata.is_file() => return Err(not_regular(path, &metadata)),
        Ok(_) => {}
    }
    match open(path)? {
        Some(file) => check_beginning(path, file).map(|()| true),
        None => Ok(false),
    }
}

/// Removes the temporary file of a process that was killed during a save.
fn remove_left_over(target: &Path) -> Result<(), Error> {
    let temporary = beside(target, TEMPORARY);
    if is_left_over(&temporary)? {
        fs::remove_file(&temporary).map_err(io_error(&temporary, "cannot be removed"))?;
    }
    Ok(())
}

/// Suffix of the temporary file.
const TEMPORARY: &str = ".new";

/// Replaces a file atomically. Only the owner may read the new file, because it contains the names of all customers.
/// Returns the new file, locked if the file system supports locks.
///
/// # Errors
/// Returns an error if a file operation fails, or if another program's file has the name of the temporary file. In that
/// case, none of the new content remains.
fn replace(target: &Path, write: impl FnOnce(File) -> io::Result<File>) -> Result<File, Error> {
    remove_left_over(target)?;
    let directory = parent(target);
    let mut prefix = OsString::from(target.file_name().unwrap_or_default());
    prefix.push(TEMPORARY);
    // The name is constant, so that the next startup can remove the file of a process that was killed.
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(0)
        .tempfile_in(directory)
        .map_err(io_error(target, "a temporary file next to it cannot be created"))?;
    let (file, temporary) = temporary.into_parts();
    let file = write(file).map_err(io_error(target, "cannot be written"))?;
    file.sync_all().map_err(io_error(target, "cannot be synced to disk"))?;
    // No other process has opened the file yet, so locking fails only if the file system does not support locks.
    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
    temporary
        .persist(target)
        .map_err(|failed| io_error(target, "cannot be replaced")(failed.error))?;
    // The rename is durable only after the directory is synced. Before that, a power failure may bring back the
    // old state.
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(file)
}

/// The state file of a running exporter, locked against other exporters.
pub struct StateFile {
    path: PathBuf,
    locks: Mutex<Option<Locks>>,
    /// Whether the state file could not be restored and has not been set aside yet.
    is_damaged: AtomicBool,
}

/// Locks of the state file. One is on a separate lock file, because each save replaces the state file. The other is on
/// the state file itself, because that file may have several hard links. The kernel releases both when the process
/// ends. A lock is `None` if the file system does not support locks, or if the file does not exist yet.
struct Locks {
    target: PathBuf,
    _lock: Option<File>,
    state: Option<File>,
}

impl StateFile {
    /// Locks the file at `path`, and removes the temporary file of a process that was killed during a save. If the file
    /// system fails or is read-only, no error is returned, because the next save locks the file.
    ///
    /// # Errors
    /// Returns an error if the path is unusable, or if another exporter has locked the file.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let file = Self {
            path,
            locks: Mutex::default(),
            is_damaged: AtomicBool::new(false),
        };
        match file.lock_target() {
            Err(error) if error.is_configuration() => Err(error),
            _ => Ok(file),
        }
    }

    /// Returns the configured path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the file at the configured path, and returns its path with symbolic links resolved.
    fn lock_target(&self) -> Result<PathBuf, Error> {
        let target = resolve(&self.path)?;
        let mut locks = lock(&self.locks);
        if locks.as_ref().is_none_or(|locks| locks.target != target) {
            // The old locks are released first, because the new path may refer to the same file.
            *locks = None;
            let lock = lock_beside(&target)?;
            let state = lock_itself(&target)?;
            // If the name of the temporary file is taken by another program's file, that file is kept, and saves fail.
            let _ = remove_left_over(&target);
            *locks = Some(Locks {
                target: target.clone(),
                _lock: lock,
                state,
            });
        }
        Ok(target)
    }

    /// Replaces the state file with the output of `write`.
    ///
    /// # Errors
    /// Returns an error if a file operation fails, the path is no longer usable, or a damaged state file cannot be
    /// set aside.
    pub fn save(&self, write: impl FnOnce(File) -> io::Result<File>) -> Result<(), Error> {
        let target = self.lock_target()?;
        if self.is_damaged.load(Ordering::Relaxed) {
            self.set_aside()?;
        }
        let state = replace(&target, write)?;
        let mut locks = lock(&self.locks);
        if let Some(locks) = locks.as_mut().filter(|locks| locks.target == target) {
            locks.state = Some(state);
        }
        Ok(())
    }

    /// Sets aside a state file that cannot be restored, so that the next save does not destroy it. Returns its new
    /// path.
    ///
    /// # Errors
    /// Returns an error if a file operation fails, or if the file at the new path is not a state file.
    pub fn set_aside(&self) -> Result<PathBuf, Error> {
        self.is_damaged.store(true, Ordering::Relaxed);
        let target = self.lock_target()?;
        let aside = beside(&target, ".unusable");
        is_left_over(&aside)?;
        match fs::rename(&target, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&target, "cannot be set aside")(error));
            }
            _ => self.is_damaged.store(false, Ordering::Relaxed),
        }
        Ok(aside)
    }
}

/// Locks the lock file next to the state file. Returns `None` if the file system does not support locks.
fn lock_beside(target: &Path) -> Result<Option<File>, Error> {
    let path = beside(target, ".lock");
    let failed = |source| io_error(&path, "cannot be locked")(source);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let mut file = options.open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("the lock file is not a regular file")));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // The id is used only in the error message of another process.
            let _ = write_pid(&mut file);
            Ok(Some(file))
        }
        Err(Errno::WOULDBLOCK) => Err(Error::InUse {
            path: target.to_owned(),
            pid: read_pid(&mut file),
        }),
        Err(error) if has_no_locks(error) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Locks the state file itself, if it exists.
fn lock_itself(target: &Path) -> Result<Option<File>, Error> {
    let Some(file) = open(target)? else { return Ok(None) };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Err(Error::InUse {
            path: target.to_owned(),
            pid: None,
        }),
        Err(error) if has_no_locks(error) => Ok(None),
        Err(error) => Err(io_error(target, "cannot be locked")(error.into())),
    }
}

/// Returns whether an error means that the file system does not support locks, at least for files opened read-only.
fn has_no_locks(error: Errno) -> bool {
    const NONE: [Errno; 5] = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK, Errno::INVAL, Errno::BADF];
    NONE.contains(&error)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Writes the process id. A file that contains anything other than a process id is left untouched.
fn write_pid(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() > 0 && read_pid(file).is_none() {
        return Ok(());
    }
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
