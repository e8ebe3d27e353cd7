//! Encodes runs as bytes, newest first, and decodes them. Each end time and each id is encoded relative to the previous
//! one, which belongs to a newer run. Fields that a run lacks are omitted.
//!
//! | bytes | content |
//! |---|---|
//! | 1, only at the start | version of the format |
//! | 1 | flags for the fields that are present: id, start, end and the five counts |
//! | 1 | status number |
//! | 1 or more | seconds from the end of the run to the last encoded end; the start replaces a missing end |
//! | 1 or more | seconds from the start to the end |
//! | 1 or more each | counts |
//! | 2 or more | id: number of leading bytes shared with the last encoded id, number of other bytes, and those bytes |
//!
//! Numbers are stored with seven bits per byte, lowest bits first; the eighth bit indicates that another byte follows.
//! Numbers that can be negative are zigzag-encoded, so that the lowest bit is the sign.

use super::{PastRun, TRAIL_RUNS};
use crate::domain::status::JobStatus;
use crate::domain::time::Timestamp;

const VERSION: u8 = 1;

const HAS_ID: u8 = 1;
const HAS_START: u8 = 1 << 1;
const HAS_END: u8 = 1 << 2;

/// Flag bits of the counts, in the order in which the counts are written.
const COUNTS: [u8; 5] = [1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7];

/// Encodes runs. Returns no bytes if there are no runs.
pub(super) fn pack(runs: &[PastRun]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut previous_time, mut id) = (0_i64, "");
    for run in runs {
        if bytes.is_empty() {
            bytes.push(VERSION);
        }
        let counts = [run.processed, run.successful, run.failed, run.skipped, run.warning];
        let has = |is_present: bool, bit: u8| if is_present { bit } else { 0 };
        let count_flags = counts.iter().zip(COUNTS).map(|(count, bit)| has(count.is_some(), bit));
        let flags =
            has(run.id.is_some(), HAS_ID) | has(run.start.is_some(), HAS_START) | has(run.end.is_some(), HAS_END);
        bytes.push(count_flags.fold(flags, |flags, bit| flags | bit));
        bytes.extend(run.status.code().to_le_bytes());
        let seconds = |at: Option<Timestamp>| at.map(Timestamp::as_whole_unix_seconds);
        let (start, end) = (seconds(run.start), seconds(run.end));
        if let Some(at) = end.or(start) {
            write_signed(&mut bytes, previous_time.wrapping_sub(at));
            previous_time = at;
        }
        if let (Some(start), Some(end)) = (start, end) {
            write_signed(&mut bytes, end.wrapping_sub(start));
        }
        for count in counts.into_iter().flatten() {
            write_unsigned(&mut bytes, count);
        }
        if let Some(current_id) = &run.id {
            let common = current_id
                .bytes()
                .zip(id.bytes())
                .take_while(|(one, other)| one == other)
                .count();
            let rest = current_id.as_bytes().get(common..).unwrap_or_default();
            for length in [common, rest.len()] {
                write_unsigned(&mut bytes, u64::try_from(length).unwrap_or_default());
            }
            bytes.extend(rest);
            id = current_id;
        }
    }
    bytes
}

/// Decodes runs; returns `None` if the bytes are not in this format.
pub(super) fn unpack(mut bytes: &[u8]) -> Option<Vec<PastRun>> {
    let bytes = &mut bytes;
    let mut runs = Vec::new();
    if bytes.is_empty() {
        return Some(runs);
    }
    if read_byte(bytes)? != VERSION {
        return None;
    }
    let (mut previous_time, mut id) = (0_i64, Vec::new());
    while !bytes.is_empty() {
        if runs.len() == TRAIL_RUNS {
            return None;
        }
        let flags = read_byte(bytes)?;
        let code = i8::from_le_bytes([read_byte(bytes)?]);
        let status = JobStatus::ALL.into_iter().find(|status| status.code() == code)?;
        let has = |bit: u8| flags & bit != 0;
        if has(HAS_START) || has(HAS_END) {
            previous_time = previous_time.wrapping_sub(read_signed(bytes)?);
        }
        let start = match has(HAS_START) {
            true if has(HAS_END) => Some(previous_time.wrapping_sub(read_signed(bytes)?)),
            true => Some(previous_time),
            false => None,
        };
        let mut counts = [None; COUNTS.len()];
        for (count, bit) in counts.iter_mut().zip(COUNTS) {
            if has(bit) {
                *count = Some(read_unsigned(bytes)?);
            }
        }
        let current_id = if has(HAS_ID) {
            let [common, length] = [read_length(bytes)?, read_length(bytes)?];
            let (rest, others) = bytes.split_at_checked(length)?;
            *bytes = others;
            id = [id.get(..common)?, rest].concat();
            Some(Box::from(std::str::from_utf8(&id).ok()?))
        } else {
            None
        };
        let [processed, successful, failed, skipped, warning] = counts;
        runs.push(PastRun {
            id: current_id,
            status,
            start: start.map(Timestamp::from_unix_seconds),
            end: has(HAS_END).then(|| Timestamp::from_unix_seconds(previous_time)),
            processed,
            successful,
            failed,
            skipped,
            warning,
        });
    }
    Some(runs)
}

fn write_unsigned(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn write_signed(bytes: &mut Vec<u8>, number: i64) {
    write_unsigned(bytes, (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned());
}

fn read_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn read_unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let part = read_byte(bytes)?;
        number |= u64::from(part & 0x7f).checked_shl(shift)?;
        if part & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn read_signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = read_unsigned(bytes)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

fn read_length(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(read_unsigned(bytes)?).ok()
}
