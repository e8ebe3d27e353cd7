//! Saves the store to the state file and restores it after a restart.
//!
//! The file consists of JSON lines: the first is a header, and the last contains the number and checksum of
//! all preceding lines. A new file is written next to the old one and then renamed, so the state file is always
//! complete. An embedded database is not needed, because the state takes up only a few megabytes, and all of it except
//! the run history can be fetched again in one cycle.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Store;
use super::collected::StoredRecord;
use super::freshness::{Attempt, Freshness};
use super::inner::{Inner, StoredCustomer};
use super::state_file::{self, StateFile};
use crate::collector::{CollectorId, CollectorSettings, Context, Target};
use crate::domain::{CustomerFilter, CustomerId, Timestamp};
use crate::lock::lock;
use crate::text_file::BYTE_ORDER_MARK;

/// Version of the format. A file with a higher version is set aside and not restored.
const FORMAT: u32 = 1;

/// Maximum length of a line. A line contains at most the record of one customer.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Reason why the state could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is not usable, or the file system failed.
    #[error(transparent)]
    File(#[from] state_file::Error),
    /// The file is not a state file, or is incomplete or damaged.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        what: &'static str,
    },
    /// The file has a newer format.
    #[error("{}: was written by a newer version (format {format}; this version supports {FORMAT})", path.display())]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Version of the file's format.
        format: u32,
    },
}

/// A copy of the state that can be written while the store changes.
pub struct SavedState(Inner);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    State {
        format: u32,
        version: String,
    },
    Customer {
        id: CustomerId,
        organization: String,
        /// Whether the filters excluded the customer. Older files do not contain excluded customers.
        #[serde(rename = "left_out", default, skip_serializing_if = "is_false")]
        is_excluded: bool,
    },
    Record {
        collector: String,
        customer: CustomerId,
        good_at: Timestamp,
        /// Time from which the age of held rows is measured. Older files lack this field.
        #[serde(default)]
        held_at: Option<Timestamp>,
        record: Box<RawValue>,
    },
    Freshness {
        collector: String,
        customer: Option<CustomerId>,
        attempt: Attempt,
        last_success: Option<Timestamp>,
        /// Time of the poll that found that the target lacks the service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unlicensed_at: Option<Timestamp>,
    },
    End {
        lines: u64,
        crc32: u32,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Store {
    /// Returns a copy of the current state.
    pub fn saved_state(&self) -> SavedState {
        SavedState(lock(&self.inner).clone())
    }

    /// Restores the contents of a state file for the customers that `filter` admits. Records keep their age. A missing
    /// or empty file counts as an empty state. Returns the number of restored customers.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is incomplete or damaged, has a newer format, or is not a state
    /// file. In that case, nothing is restored.
    pub fn restore(
        &self,
        path: &Path,
        settings: &Arc<CollectorSettings>,
        filter: &CustomerFilter,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let Some(lines) = read_lines(path)? else { return Ok(0) };
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let mut organizations: BTreeMap<CustomerId, Arc<str>> = BTreeMap::new();
        for line in lines {
            match line {
                Line::State { .. } | Line::End { .. } => {}
                Line::Customer {
                    id,
                    organization,
                    is_excluded,
                } => {
                    let organization: Arc<str> = organization.into();
                    if is_excluded || !filter.admits(&id, &organization) {
                        // If the filters admit the customer by then, the next list adds it. If that list contains no
                        // name, this name is used.
                        if !organization.is_empty() {
                            Arc::make_mut(&mut inner.excluded_names).insert(id, organization);
                        }
                    } else {
                        organizations.insert(id.clone(), Arc::clone(&organization));
                        let known = StoredCustomer::new(&id, organization, settings.attributes.as_deref());
                        inner.customers.insert(id, known);
                        inner.membership += 1;
                    }
                }
                Line::Record {
                    collector,
                    customer,
                    good_at,
                    held_at,
                    record,
                } => {
                    // Series use the id as spelled in the customer's own line.
                    let Some((customer, organization)) = organizations.get_key_value(&customer) else {
                        continue;
                    };
                    let Some(collector) = CollectorId::named(&collector) else {
                        continue;
                    };
                    let context = Context::new(now, Arc::clone(settings), Arc::clone(organization));
                    if !inner.collected.get(collector).plan.enabled {
                        continue;
                    }
                    if let Some(rendered) = collector.descriptor().restore(&record, customer, &context) {
                        let good_at = good_at.min(now);
                        let held_at = held_at.unwrap_or(good_at).min(now);
                        inner.insert(
                            collector,
                            customer,
                            StoredRecord {
                                rendered,
                                good_at,
                                held_at,
                            },
                        );
                    }
                }
                Line::Freshness {
                    collector,
                    customer,
                    attempt,
                    last_success,
                    unlicensed_at,
                } => {
                    let Some(collector) = CollectorId::named(&collector) else {
                        continue;
                    };
                    let collected = inner.collected.get_mut(collector);
                    let known = customer.as_ref().map(|id| organizations.get_key_value(id));
                    let target = match known {
                        None => Target::Partner,
                        Some(Some((id, _))) => Target::Customer(id.clone()),
                        Some(None) => continue,
                    };
                    if collected.plan.enabled {
                        let last_success = last_success.map(|success| success.min(now));
                        let mut freshness =
                            Freshness::new(collector, &target, attempt, last_success, collected.shown_metrics);
                        freshness.unlicensed_at = unlicensed_at.map(|at| at.min(now));
                        collected.freshness.insert(target, freshness);
                    }
                }
            }
        }
        inner.restored = true;
        inner.version += 1;
        Ok(organizations.len())
    }
}

impl SavedState {
    /// Writes the state atomically: even after a crash, the file contains either the old or the new state.
    ///
    /// # Errors
    /// See [`StateFile::save`].
    pub fn save(&self, file: &StateFile) -> Result<(), state_file::Error> {
        file.save(|file| {
            let mut writer = ChecksumWriter::new(BufWriter::new(file));
            self.write(&mut writer)?;
            writer.finish()
        })
    }

    fn write(&self, writer: &mut ChecksumWriter<impl Write>) -> io::Result<()> {
        writer.write_line(&Line::State {
            format: FORMAT,
            version: crate::build_info::VERSION.to_owned(),
        })?;
        let Self(inner) = self;
        let customers = inner.customers.iter();
        let customers = customers.map(|(id, known)| (id, &known.organization, false));
        let excluded = inner.excluded_names.iter();
        let excluded = excluded.map(|(id, organization)| (id, organization, true));
        for (id, organization, is_excluded) in customers.chain(excluded) {
            writer.write_line(&Line::Customer {
                id: id.clone(),
                organization: organization.to_string(),
                is_excluded,
            })?;
        }
        for collected in inner.collected.values() {
            for (customer, stored) in collected.records.iter() {
                writer.write_line(&Line::Record {
                    collector: collected.id.name().to_owned(),
                    customer: customer.clone(),
                    good_at: stored.good_at,
                    held_at: Some(stored.held_at),
                    record: stored.rendered.record.to_json()?,
                })?;
            }
        }
        for collected in inner.collected.values() {
            for (target, freshness) in collected.freshness.iter() {
                writer.write_line(&Line::Freshness {
                    collector: collected.id.name().to_owned(),
                    customer: match target {
                        Target::Partner => None,
                        Target::Customer(id) => Some(id.clone()),
                    },
                    attempt: freshness.attempt,
                    last_success: freshness.last_success,
                    unlicensed_at: freshness.unlicensed_at,
                })?;
            }
        }
        Ok(())
    }
}

/// Writes lines and updates their checksum.
struct ChecksumWriter<W: Write> {
    writer: W,
    lines: u64,
    hasher: crc32fast::Hasher,
}

impl<W: Write> ChecksumWriter<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            lines: 0,
            hasher: crc32fast::Hasher::new(),
        }
    }

    fn write_line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hasher.update(&text);
        self.lines += 1;
        self.writer.write_all(&text)
    }
}

impl<W: Write> ChecksumWriter<BufWriter<W>> {
    /// Writes the last line and returns the file.
    fn finish(mut self) -> io::Result<W> {
        let end = Line::End {
            lines: self.lines,
            crc32: self.hasher.clone().finalize(),
        };
        self.write_line(&end)?;
        self.writer.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// Reads the lines of a state file. Returns `None` if the file is missing or empty.
///
/// # Errors
/// Returns an error if the file cannot be read, is incomplete or damaged, has a newer format, or is not a state file.
fn read_lines(path: &Path) -> Result<Option<Vec<Line>>, Error> {
    let io = |source| state_file::io_error(path, "cannot be read")(source);
    let corrupt = |what| Error::Corrupt {
        path: path.to_owned(),
        what,
    };
    let Some(file) = state_file::open(path)? else {
        return Ok(None);
    };
    let mut reader = BufReader::new(file);
    // Editors may write a byte order mark.
    if reader.fill_buf().map_err(io)?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    // An empty file may have been created by `touch`.
    if reader.fill_buf().map_err(io)?.is_empty() {
        return Ok(None);
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut lines = Vec::new();
    loop {
        let mut text = Vec::new();
        let read = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut text)
            .map_err(io)?;
        if read == 0 {
            return Err(corrupt("the end of the file is missing"));
        }
        let line: Line = match serde_json::from_slice(&text) {
            Ok(line) => line,
            Err(_) if lines.is_empty() => return Err(invalid_header(&text, path)),
            Err(_) => return Err(corrupt("contains an invalid line")),
        };
        match (&line, lines.is_empty()) {
            (Line::State { format: FORMAT, .. }, true) => {}
            (Line::State { format, .. }, true) if *format > FORMAT => {
                return Err(Error::Newer {
                    path: path.to_owned(),
                    format: *format,
                });
            }
            (_, true) => return Err(corrupt("is not a state file")),
            (Line::End { lines: count, crc32 }, false) => {
                let is_complete = u64::try_from(lines.len()) == Ok(*count) && hasher.finalize() == *crc32;
                return if is_complete {
                    Ok(Some(lines))
                } else {
                    Err(corrupt("the number of lines or their checksum does not match"))
                };
            }
            _ => {}
        }
        hasher.update(&text);
        lines.push(line);
    }
}

/// Returns the error for a first line that cannot be parsed: the file has a newer format, or is not a state file.
fn invalid_header(first_line: &[u8], path: &Path) -> Error {
    #[derive(Deserialize)]
    struct Header {
        state: Format,
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    match serde_json::from_slice::<Header>(first_line) {
        Ok(Header {
            state: Format { format },
        }) if format > FORMAT => Error::Newer {
            path: path.to_owned(),
            format,
        },
        _ => Error::Corrupt {
            path: path.to_owned(),
            what: "is not a state file",
        },
    }
}

#[cfg(test)]
mod tests;
