//! Writes to standard output and standard error. Either may be closed or full, or may be a pipe without a reader.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a write to standard error waits for the reader before the rest of the text is dropped. The timeout is long
/// enough for a busy reader, and short enough not to block other work for long.
const READER_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Maximum size of an atomic write to a pipe on Linux. If a pipe is ready for writing, such a write does not block.
const PIPE_CHUNK_BYTES: usize = 4096;

/// Writes to standard output. Reports an error and returns false if the write fails, unless the reader has closed the
/// pipe.
pub fn print(text: &[u8]) -> bool {
    let mut output = io::stdout().lock();
    is_written(output.write_all(text).and_then(|()| output.flush()))
}

/// Like [`print()`], but removes colours from the text if, for example, standard output is not a terminal or `NO_COLOR`
/// is set.
pub fn print_coloured(text: &str) -> bool {
    let mut output = anstream::stdout().lock();
    is_written(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// Writes the output of `--help` or `--version` to standard output, or a usage error to standard error. Returns false
/// if the write to standard output fails, as [`print()`] does.
pub fn print_usage(usage: &clap::Error) -> bool {
    if !usage.use_stderr() {
        return is_written(usage.print().and_then(|()| io::stdout().flush()));
    }
    let message = usage.render();
    match anstream::AutoStream::choice(&io::stderr()) {
        anstream::ColorChoice::Never => write_error(message.to_string().as_bytes()),
        _ => write_error(message.ansi().to_string().as_bytes()),
    }
    true
}

/// Writes one line to standard error. Errors are ignored, because they cannot be reported.
pub fn report(problem: impl Display) {
    write_error(format!("elements_exporter: {problem}\n").as_bytes());
}

/// Returns whether a path, such as `/dev/stdout`, refers to standard output.
pub fn is_stdout(path: &Path) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| File::from(stdout).metadata());
    let identity = |file: &fs::Metadata| (file.dev(), file.ino());
    stdout.is_ok_and(|stdout| fs::metadata(path).is_ok_and(|file| identity(&file) == identity(&stdout)))
}

/// Writes to standard error if the reader keeps up. After a timeout, text is dropped without waiting, until the reader
/// reads again.
fn write_error(text: &[u8]) {
    static IS_STUCK: AtomicBool = AtomicBool::new(false);
    let mut stderr = io::stderr().lock();
    for chunk in text.chunks(PIPE_CHUNK_BYTES) {
        let zero = Timespec::default();
        let timeout = if IS_STUCK.load(Ordering::Relaxed) {
            &zero
        } else {
            &READER_TIMEOUT
        };
        let ready = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(timeout));
        let is_stuck = ready == Ok(0);
        IS_STUCK.store(is_stuck, Ordering::Relaxed);
        if is_stuck || stderr.write_all(chunk).is_err() {
            return;
        }
    }
}

/// Reports an error and returns false if a write failed. A closed pipe is not an error: the reader does not need the
/// rest.
fn is_written(written: io::Result<()>) -> bool {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report(format_args!("cannot write to standard output: {error}"));
            false
        }
        _ => true,
    }
}

/// Writer for the log on standard error. A line that cannot be written is dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_error(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
