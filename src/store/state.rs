//! The state file: what is known, across restarts.
//!
//! A file written whole beside the old one and put in its place by a rename, rather than an embedded database: the
//! state is a few megabytes that are learned again from the API within a round, so it is worth a file that people can
//! read and that is either the old one or the new one whenever the process is killed. Lines of JSON, first what it is,
//! last how many lines there are and their checksum.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Attempt, Cell, Freshness, Known, Store};
use crate::collector::{self, Context, Record, Settings, Target};
use crate::domain::{CustomerId, Timestamp};

/// The version of the format. A file with a higher one is left alone.
const FORMAT: u32 = 1;

/// The longest line that is read: the record of one customer, whose answer was capped well below it.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Why the state could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system.
    #[error("{}: {doing}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file is no state file, or not all of one.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file is of a version to come.
    #[error("{}: written by a newer version, in format {format} where this one knows {FORMAT}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

/// A record, whose it is, and the moments of the polls that its rows and those held stand on.
type SavedRecord = (&'static str, CustomerId, [Timestamp; 2], Arc<dyn Record>);

/// What is known at one moment, to be written while the store goes on.
pub struct Snapshot {
    customers: Vec<(CustomerId, Arc<str>)>,
    records: Vec<SavedRecord>,
    freshness: Vec<(&'static str, Target, Attempt, Option<Timestamp>)>,
}

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
    },
    Record {
        collector: String,
        customer: CustomerId,
        good_at: Timestamp,
        /// The same for the rows that are held; files of the first version lack it.
        #[serde(default)]
        held_at: Option<Timestamp>,
        record: Box<RawValue>,
    },
    Freshness {
        collector: String,
        customer: Option<CustomerId>,
        attempt: Attempt,
        last_success: Option<Timestamp>,
    },
    End {
        lines: u64,
        crc32: u32,
    },
}

impl Store {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let mut snapshot = Snapshot {
            customers: Vec::with_capacity(inner.customers.len()),
            records: Vec::new(),
            freshness: Vec::new(),
        };
        for (id, known) in inner.customers.iter() {
            snapshot.customers.push((id.clone(), Arc::clone(&known.organization)));
        }
        for collected in &inner.collected {
            for (id, cell) in collected.cells.iter() {
                let record = Arc::clone(&cell.kept.record);
                snapshot
                    .records
                    .push((collected.name, id.clone(), [cell.good_at, cell.held_at], record));
            }
            for (target, freshness) in collected.freshness.iter() {
                let line = (
                    collected.name,
                    target.clone(),
                    freshness.attempt,
                    freshness.last_success,
                );
                snapshot.freshness.push(line);
            }
        }
        snapshot
    }

    /// Takes in what a state file holds, for customers that `admits` lets in. Records come back with the moments of
    /// the polls they stand on, so they are as old as they are. Returns how many customers came back.
    ///
    /// # Errors
    /// Where the file cannot be read whole; then nothing of it is taken in. A file that is not there is an empty state.
    pub fn restore(
        &self,
        path: &Path,
        settings: &Arc<Settings>,
        admits: impl Fn(&CustomerId, &str) -> bool,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let Some(lines) = read(path)? else { return Ok(0) };
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut organizations: BTreeMap<CustomerId, Arc<str>> = BTreeMap::new();
        for line in lines {
            match line {
                Line::State { .. } | Line::End { .. } => {}
                Line::Customer { id, organization } => {
                    if admits(&id, &organization) {
                        let organization: Arc<str> = organization.into();
                        organizations.insert(id.clone(), Arc::clone(&organization));
                        inner.customers.insert(id, Known { organization });
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
                    // Its series carry the id as the customer is known by, in whichever case the line has it.
                    let Some((customer, organization)) = organizations.get_key_value(&customer) else {
                        continue;
                    };
                    let place = collector::index_of(&collector);
                    let entry = place.and_then(|place| collector::ALL.get(place));
                    let collected = place.and_then(|place| inner.collected.get_mut(place));
                    let (Some(entry), Some(collected)) = (entry, collected) else {
                        continue;
                    };
                    let context = Context {
                        now,
                        settings: Arc::clone(settings),
                        organization: Arc::clone(organization),
                    };
                    if !collected.plan.enabled {
                        continue;
                    }
                    if let Some(kept) = entry.restore(&record, customer, &context) {
                        let good_at = good_at.min(now);
                        let held_at = held_at.unwrap_or(good_at).min(now);
                        let cell = Cell { kept, good_at, held_at };
                        inner.series += cell.samples();
                        collected.cells.insert(customer.clone(), cell);
                    }
                }
                Line::Freshness {
                    collector,
                    customer,
                    attempt,
                    last_success,
                } => {
                    let place = collector::index_of(&collector);
                    let Some(collected) = place.and_then(|place| inner.collected.get_mut(place)) else {
                        continue;
                    };
                    let known = customer.as_ref().map(|id| organizations.get_key_value(id));
                    let target = match known {
                        None => Target::Partner,
                        Some(Some((id, _))) => Target::Customer(id.clone()),
                        Some(None) => continue,
                    };
                    if collected.plan.enabled {
                        let last_success = last_success.map(|success| success.min(now));
                        let freshness = Freshness::new(collected.name, &target, attempt, last_success);
                        collected.freshness.insert(target, freshness);
                    }
                }
            }
        }
        inner.restored = true;
        inner.generation += 1;
        Ok(organizations.len())
    }
}

impl Snapshot {
    /// Writes the state so that `path` holds the old or the new one, whatever happens meanwhile.
    ///
    /// # Errors
    /// Where the file system does not let it.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let io = |doing| {
            move |source| Error::Io {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let file = private_file(&temporary).map_err(io("cannot be written beside it"))?;
        let mut writer = Checked::new(BufWriter::new(file));
        self.write(&mut writer).map_err(io("cannot be written"))?;
        let file = writer.finish().map_err(io("cannot be written"))?;
        file.sync_all().map_err(io("cannot be brought to disk"))?;
        fs::rename(&temporary, path).map_err(io("cannot be replaced"))?;
        // The rename itself is on disk only when the directory is; where that cannot be said, the old state is the
        // worst that a power cut leaves.
        if let Some(directory) = path.parent().and_then(|directory| File::open(directory).ok()) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    fn write(&self, writer: &mut Checked<impl Write>) -> io::Result<()> {
        writer.line(&Line::State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })?;
        for (id, organization) in &self.customers {
            writer.line(&Line::Customer {
                id: id.clone(),
                organization: organization.to_string(),
            })?;
        }
        for (collector, customer, [good_at, held_at], record) in &self.records {
            writer.line(&Line::Record {
                collector: (*collector).to_owned(),
                customer: customer.clone(),
                good_at: *good_at,
                held_at: Some(*held_at),
                record: record.to_json()?,
            })?;
        }
        for (collector, target, attempt, last_success) in &self.freshness {
            writer.line(&Line::Freshness {
                collector: (*collector).to_owned(),
                customer: match target {
                    Target::Partner => None,
                    Target::Customer(id) => Some(id.clone()),
                },
                attempt: *attempt,
                last_success: *last_success,
            })?;
        }
        Ok(())
    }
}

/// Puts a state file that cannot be used aside, so that the next save does not destroy it. Returns its new place.
///
/// # Errors
/// Where the file system does not let it.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unusable");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// A new file that only its owner may read: it tells the names of all customers. What a killed process left in its
/// place goes first, so that neither its rights nor what it points to count.
fn private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

/// Writes lines and keeps their checksum.
struct Checked<W: Write> {
    writer: W,
    lines: u64,
    hasher: crc32fast::Hasher,
}

impl<W: Write> Checked<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            lines: 0,
            hasher: crc32fast::Hasher::new(),
        }
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hasher.update(&text);
        self.lines += 1;
        self.writer.write_all(&text)
    }
}

impl<W: Write> Checked<BufWriter<W>> {
    /// Writes the last line and gives the file back.
    fn finish(mut self) -> io::Result<W> {
        let end = Line::End {
            lines: self.lines,
            crc32: self.hasher.clone().finalize(),
        };
        self.line(&end)?;
        self.writer.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// The lines of a state file, `None` where there is no file. They are given only when the file is whole.
fn read(path: &Path) -> Result<Option<Vec<Line>>, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        doing: "cannot be read",
        source,
    };
    let corrupt = |what| Error::Corrupt {
        path: path.to_owned(),
        what,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut reader = BufReader::new(file);
    let mut hasher = crc32fast::Hasher::new();
    let mut lines = Vec::new();
    loop {
        let mut text = Vec::new();
        let read = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut text)
            .map_err(io)?;
        if read == 0 {
            return Err(corrupt("it ends before its end"));
        }
        let line: Line = match serde_json::from_slice(&text) {
            Ok(line) => line,
            Err(_) if lines.is_empty() => return Err(not_ours(&text, path)),
            Err(_) => return Err(corrupt("it holds a line that is none of its kind")),
        };
        match (&line, lines.is_empty()) {
            (Line::State { format: FORMAT, .. }, true) => {}
            (Line::State { format, .. }, true) => {
                return Err(Error::Newer {
                    path: path.to_owned(),
                    format: *format,
                });
            }
            (_, true) => return Err(corrupt("it is no state file")),
            (Line::End { lines: count, crc32 }, false) => {
                let whole = u64::try_from(lines.len()) == Ok(*count) && hasher.finalize() == *crc32;
                return if whole {
                    Ok(Some(lines))
                } else {
                    Err(corrupt("its checksum does not fit"))
                };
            }
            _ => {}
        }
        hasher.update(&text);
        lines.push(line);
    }
}

/// Tells a file of a version to come from one that is no state file at all.
fn not_ours(first_line: &[u8], path: &Path) -> Error {
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
            what: "it is no state file",
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::store::Plan;

    /// All collectors, run every minute.
    fn plans() -> Vec<Plan> {
        let plan = Plan {
            enabled: true,
            interval: Duration::from_secs(60),
            stale_after: Duration::from_secs(180),
        };
        vec![plan; collector::ALL.len()]
    }

    #[test]
    fn a_customer_comes_back_under_one_spelling_of_its_id() {
        const ID: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";
        let plans = plans();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let customer = CustomerId::parse(&ID.to_uppercase()).unwrap();
        let record = serde_json::json!([{"service": "Microsoft 365", "module": "OneDrive", "scanned": 1, "protected": 1,
            "avepoint_bytes": null, "byos_bytes": null}]);
        let protected = collector::index_of("protected").unwrap();
        let text = [
            serde_json::json!({"state": {"format": FORMAT, "version": "0"}}),
            serde_json::json!({"customer": {"id": ID, "organization": "Contoso"}}),
            serde_json::json!({"record": {"collector": "protected", "customer": customer, "good_at": now, "record": record}}),
            serde_json::json!({"freshness": {"collector": "protected", "customer": customer, "attempt": "succeeded",
                "last_success": now}}),
        ];
        let mut text: String = text.iter().map(|line| line.to_string() + "\n").collect();
        let end = Line::End {
            lines: 4,
            crc32: crc32fast::hash(text.as_bytes()),
        };
        text.push_str(&serde_json::to_string(&end).unwrap());
        text.push('\n');
        fs::write(&path, text).unwrap();
        let store = Store::new(&plans, None);
        assert_eq!(store.restore(&path, &Arc::default(), |_, _| true, now).unwrap(), 1);
        let families = crate::exposition::families(crate::store::columns());
        let mut renderer = crate::exposition::Renderer::new(
            families.into(),
            store.picture(None, now),
            crate::exposition::Filter::default(),
            crate::exposition::Format::Text,
        );
        let mut shown = Vec::new();
        while renderer.append_frame(&mut shown) {}
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("elements_protected_objects{"), "{shown}");
        assert!(shown.contains(ID) && !shown.contains(customer.as_str()), "{shown}");
        assert!(store.succeeded(protected, &Target::Customer(customer)));
    }

    #[test]
    fn a_clock_that_went_back_over_a_restart_leaves_nothing_in_the_future() {
        let plans = plans();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let then = Timestamp::from_unix_seconds(1_790_000_000);
        let before = Store::new(&plans, None);
        before.expect(0, &Target::Partner);
        before.commit(0, &Target::Partner, BTreeMap::new(), true, then).unwrap();
        before.snapshot().save(&path).unwrap();
        for (now, expected) in [
            (then.plus(Duration::from_secs(3600)), then),
            (
                then.minus(Duration::from_secs(3600)),
                then.minus(Duration::from_secs(3600)),
            ),
        ] {
            let after = Store::new(&plans, None);
            after.restore(&path, &Arc::default(), |_, _| true, now).unwrap();
            assert_eq!(after.last_success(0, &Target::Partner), Some(expected));
        }
    }

    proptest::proptest! {
        /// Sizes past 2^53 too: a gauge that moves over a restart by a byte is a change that nobody made.
        #[test]
        fn a_size_comes_back_as_it_was(bytes in 0.0..9e18_f64) {
            let json = serde_json::value::to_raw_value(&bytes).unwrap();
            let back: f64 = serde_json::from_str(json.get()).unwrap();
            proptest::prop_assert_eq!(back.to_bits(), bytes.to_bits());
        }
    }
}
