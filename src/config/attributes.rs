//! Parses `customers.attributes_file`, a CSV or YAML file with customer attributes.

use std::path::Path;

use crate::domain::{AttributeTable, Attributes, PerAttribute, counted, is_misleading, nearest};
use crate::settings::{self, Field, parse, reject_unknown_keys};
use crate::text_file;

/// Maximum size of a CSV file, in bytes. A file with ten thousand customers and the names of all their modules takes
/// only a few megabytes.
pub(crate) const MAX_CSV_BYTES: u64 = 16 << 20;

/// Maximum number of rows in a CSV file: twice as many as a partner with 50,000 customers needs.
const MAX_ROWS: usize = 100_000;

/// Maximum number of globs. A limit is necessary, because a customer is compared with one glob after another. Ids and
/// plain names need no such limit, because they are looked up in a map.
const MAX_GLOBS: usize = 1_000;

/// Maximum length of a value, in characters. Each value appears as a label value in every alert about the
/// customers that have it.
const MAX_VALUE_CHARS: usize = 100;

/// Maximum number of invalid rows in an error message. Further rows usually have the same problem.
const MAX_REPORTED: usize = 20;

/// The columns, in the order in which errors list them. `customer` and `id` are synonyms. [`IGNORED_COLUMNS`] are
/// accepted because `elements_exporter customers` prints them.
const COLUMNS: [&str; 8] = [
    "customer",
    "id",
    "organization",
    "country",
    "tier",
    "region",
    "team",
    "modules",
];

const IGNORED_COLUMNS: [&str; 2] = ["country", "modules"];

/// Reason for rejecting the file.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] text_file::Error),
    /// The file is not valid YAML.
    #[error(transparent)]
    Yaml(#[from] settings::Error),
    /// The header or some rows are invalid. Each problem begins with the file and the line.
    #[error("{}{}", problems.join("; "), omitted_text(*omitted))]
    Rows {
        /// The first problems.
        problems: Vec<String>,
        /// Number of further problems.
        omitted: usize,
    },
}

fn omitted_text(omitted: usize) -> String {
    match u64::try_from(omitted) {
        Ok(omitted @ 1..) => format!("; and {}", counted(omitted, "more invalid row", "more invalid rows")),
        _ => String::new(),
    }
}

/// Reads customer attributes. A file whose name ends in `.yml`, `.yaml` or `.json` is parsed as YAML, and any other
/// file as CSV.
///
/// # Errors
/// Returns an error if the file cannot be read, is not valid YAML, or has an invalid header or invalid rows. The error
/// lists the first invalid rows.
pub fn read_attributes(path: &Path) -> Result<AttributeTable, AttributesError> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let mut rows = Rows::default();
    if ["yml", "yaml", "json"].iter().any(|yaml| extension == *yaml) {
        let text = text_file::read_regular(path, settings::FILE_LIMIT)?;
        rows.read_yaml(&parse(path, &text)?);
    } else {
        let text = text_file::read_regular(path, MAX_CSV_BYTES)?;
        rows.read_csv(&path.display().to_string(), &text);
    }
    match rows.problems.is_empty() {
        true => Ok(rows.table),
        false => Err(AttributesError::Rows {
            problems: rows.problems,
            omitted: rows.omitted,
        }),
    }
}

/// The rows read so far.
#[derive(Default)]
struct Rows {
    table: AttributeTable,
    problems: Vec<String>,
    omitted: usize,
}

/// The cells of a row, without ignored columns.
#[derive(Default)]
struct Cells<'a> {
    customer: &'a str,
    organization: &'a str,
    attributes: PerAttribute<&'a str>,
}

impl<'a> Cells<'a> {
    fn set(&mut self, column: &str, text: &'a str) {
        let text = text.trim();
        match column {
            "customer" | "id" => self.customer = text,
            "organization" => self.organization = text,
            column => {
                if let Some(cell) = self.attributes.get_mut(column) {
                    *cell = text;
                }
            }
        }
    }

    /// Adds the row to the table.
    ///
    /// # Errors
    /// Returns a description of the problem if the row is invalid, or if the table contains too many globs.
    fn push(&self, table: &mut AttributeTable) -> Result<(), String> {
        let pattern = match self.customer {
            "" => self.organization,
            customer => customer,
        };
        if pattern.is_empty() {
            return Err("does not name a customer; expected an id or a glob that matches the organization".to_owned());
        }
        let attributes = Attributes::NAMES.try_map(|name| {
            let text = self.attributes.get(name).copied().unwrap_or_default();
            parse_value(text).map_err(|problem| format!("{name}: {problem}"))
        })?;
        table.push(pattern, attributes).map_err(|problem| {
            format!("{pattern:?} is not a glob ({problem}); expected a name or a glob, in which * matches any text")
        })?;
        match table.globs() > MAX_GLOBS {
            true => Err(format!(
                "exceeds the maximum of {MAX_GLOBS} globs; list customers by id"
            )),
            false => Ok(()),
        }
    }
}

fn parse_value(text: &str) -> Result<Option<Box<str>>, String> {
    if text.chars().nth(MAX_VALUE_CHARS).is_some() {
        return Err(format!("is longer than {MAX_VALUE_CHARS} characters"));
    }
    if text.contains(is_misleading) {
        return Err(format!(
            "{text:?} contains a control or bidirectional formatting character"
        ));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

impl Rows {
    fn report(&mut self, problem: impl FnOnce() -> String) {
        match self.problems.len() < MAX_REPORTED {
            true => self.problems.push(problem()),
            false => self.omitted += 1,
        }
    }

    fn read_yaml(&mut self, document: &::config::Value) {
        let root = Field::root(document);
        if root.is_empty() {
            return;
        }
        let items = match root.items() {
            Ok(items) => items,
            Err(error) => return self.report(|| error.to_string()),
        };
        // The size limit of the file also limits the number of rows.
        for item in &items {
            let read = reject_unknown_keys(item, &COLUMNS).and_then(|()| self.read_item(item));
            if let Err(error) = read {
                self.report(|| error.to_string());
            }
        }
    }

    fn read_item(&mut self, item: &Field<'_>) -> Result<(), settings::Error> {
        let mut cells = Cells::default();
        // Ignored columns may have values of any type, such as a list of modules.
        for column in COLUMNS.iter().filter(|column| !IGNORED_COLUMNS.contains(column)) {
            if let Some(text) = item.read(column, Field::raw_text)? {
                cells.set(column, text);
            }
        }
        cells.push(&mut self.table).map_err(|problem| item.error(problem))
    }

    fn read_csv(&mut self, file: &str, text: &str) {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut record = csv::StringRecord::new();
        let mut columns: Vec<&'static str> = Vec::new();
        let mut count = 0;
        // Reading a row cannot fail, because the text is UTF-8 and rows may have any number of cells.
        while reader.read_record(&mut record).unwrap_or(false) {
            let line = || line_of(text, record.position());
            if columns.is_empty() {
                match read_header(&record) {
                    Ok(read) => columns = read,
                    Err(problem) => return self.report(|| format!("{file}:{}: {problem}", line())),
                }
                continue;
            }
            if record.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            count += 1;
            if count > MAX_ROWS {
                return self.report(|| format!("{file}:{}: has more than {MAX_ROWS} rows", line()));
            }
            if let Err(problem) = read_row(&record, &columns).and_then(|cells| cells.push(&mut self.table)) {
                self.report(|| format!("{file}:{}: {problem}", line()));
            }
        }
        // An unclosed quotation mark, for example in a truncated file, turns the rest of the file into one cell.
        if text.matches('"').count() % 2 == 1 {
            let at = text.rfind('"').unwrap_or_default();
            let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
            self.report(|| format!("{file}:{line}: has an unclosed quotation mark"));
        }
        if columns.is_empty() {
            self.report(|| format!("{file}:1: has no header; expected one such as customer,tier,region,team"));
        }
    }
}

/// Returns the line number of a row. Skips blank lines, because the reader's position is before them.
fn line_of(text: &str, position: Option<&csv::Position>) -> usize {
    let start = position
        .and_then(|position| usize::try_from(position.byte()).ok())
        .unwrap_or_default();
    let rest = text.get(start..).unwrap_or_default();
    let start = start + (rest.len() - rest.trim_start_matches(['\r', '\n']).len());
    let before = text.get(..start).unwrap_or_default();
    before.matches('\n').count() + 1
}

fn read_header(header: &csv::StringRecord) -> Result<Vec<&'static str>, String> {
    let mut columns = Vec::with_capacity(header.len());
    for written in header {
        let written = written.trim();
        let known = COLUMNS.iter().find(|column| column.eq_ignore_ascii_case(written));
        let Some(known) = known else {
            return Err(unknown_column(written));
        };
        if columns.contains(known) {
            return Err(format!("duplicate column {known:?}"));
        }
        columns.push(*known);
    }
    let has = |column| columns.contains(&column);
    if has("customer") && has("id") {
        return Err("columns \"customer\" and \"id\" are synonyms; expected only one of them".to_owned());
    }
    if !has("customer") && !has("id") && !has("organization") {
        return Err("lacks a column that identifies customers; expected customer, id or organization".to_owned());
    }
    if !Attributes::NAMES.iter().any(|name| columns.contains(name)) {
        return Err("lacks a column for attributes; expected at least one of tier, region and team".to_owned());
    }
    Ok(columns)
}

fn unknown_column(written: &str) -> String {
    let hint = match nearest(written, COLUMNS.iter().copied()) {
        _ if written.contains([';', '\t']) => "separate cells with commas".to_owned(),
        Some(column) => format!("did you mean {column:?}?"),
        None => format!("expected a header with some of the columns {}", COLUMNS.join(", ")),
    };
    format!("unknown column {written:?}; {hint}")
}

fn read_row<'a>(record: &'a csv::StringRecord, columns: &[&str]) -> Result<Cells<'a>, String> {
    let cell = |count: usize| counted(count, "cell", "cells");
    if record.len() != columns.len() {
        return Err(format!(
            "has {}; expected {}, as in the header",
            cell(record.len()),
            cell(columns.len())
        ));
    }
    let mut cells = Cells::default();
    for (column, text) in columns.iter().zip(record) {
        if text.contains(['\n', '\r']) {
            return Err(format!(
                "{column}: has a line break; is there an unclosed quotation mark?"
            ));
        }
        cells.set(column, text);
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CustomerId;

    fn read(name: &str, text: &str) -> Result<AttributeTable, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", directory.path().display());
        read_attributes(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn of(table: &AttributeTable, id: &str, organization: &str) -> Option<Attributes> {
        let found = table.of(&CustomerId::parse(id).unwrap(), organization)?;
        Some(Attributes::clone(found))
    }

    fn attributes([tier, region, team]: [&str; 3]) -> Option<Attributes> {
        let values = PerAttribute { tier, region, team };
        Some(values.map(|value| (!value.is_empty()).then(|| value.into())))
    }

    const CSV: &str = "\u{feff}Customer, tier ,team\r\n\r\nc-1,gold,\"North, \"\"A\"\"\"\r\n\"Contoso, *\",silver,\r\n,,\r\n*,,night\r\n";

    #[test]
    fn truncated_file_is_rejected() {
        let error = read("a.csv", "customer,tier\nContoso*,gold\nFabrikam*,\"sil").unwrap_err();
        assert!(error.ends_with("a.csv:3: has an unclosed quotation mark"), "{error}");
    }

    #[test]
    fn csv_may_have_a_byte_order_mark_quotes_and_crlf() {
        let table = read("a.csv", CSV).unwrap();
        assert_eq!(of(&table, "C-1", "Fabrikam"), attributes(["gold", "", "North, \"A\""]));
        assert_eq!(of(&table, "x", "Contoso, Ltd"), attributes(["silver", "", ""]));
        assert_eq!(of(&table, "x", "Fabrikam"), attributes(["", "", "night"]));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn columns_of_the_customers_command_are_accepted() {
        let table = read(
            "a.csv",
            "id,organization,country,tier,region,team,modules\nc-1,Contoso,DE,gold,,,OneDrive\n,Fab*,,,emea,,\nc-2,Fabrikam,,,,,\n",
        )
        .unwrap();
        assert_eq!(of(&table, "c-1", "other"), attributes(["gold", "", ""]));
        assert_eq!(
            of(&table, "x", "Contoso"),
            None,
            "the id takes precedence over the organization"
        );
        assert_eq!(of(&table, "c-2", "Fabrikam"), attributes(["", "emea", ""]));
    }

    #[test]
    fn yaml_is_parsed() {
        let text = "- {customer: c-1, tier: gold, modules: [OneDrive]}\n- customer: 'Contoso *'\n  region: emea\n  team: ~\n- {id: c-2, team: a}\n- {organization: Fab*, team: b}\n";
        for name in ["a.yml", "a.YAML"] {
            let table = read(name, text).unwrap();
            assert_eq!(of(&table, "c-1", ""), attributes(["gold", "", ""]));
            assert_eq!(of(&table, "x", "contoso ltd"), attributes(["", "emea", ""]));
            assert_eq!(of(&table, "c-2", ""), attributes(["", "", "a"]));
            assert_eq!(of(&table, "x", "Fabrikam"), attributes(["", "", "b"]));
        }
        assert!(read("a.yml", "# nobody yet\n").unwrap().is_empty());
    }

    #[test]
    fn invalid_rows_are_reported_by_line() {
        assert_eq!(
            read(
                "a.csv",
                "customer,tier\n\n\n,gold\nContoso,gold,extra\n\"a\n[b\",x\n[c,x\nd,ok\n"
            )
            .unwrap_err(),
            "a.csv:4: does not name a customer; expected an id or a glob that matches the organization; \
             a.csv:5: has 3 cells; expected 2 cells, as in the header; \
             a.csv:6: customer: has a line break; is there an unclosed quotation mark?; \
             a.csv:8: \"[c\" is not a glob (unclosed character class; missing ']'); expected a name or a glob, in which * matches any text"
        );
        assert_eq!(
            read(
                "a.yml",
                "- {customer: a, tier: x}\n- {customer: b, teer: x}\n- {tier: x}\n- x\n"
            )
            .unwrap_err(),
            "a.yml:2: unknown key \"[1].teer\"; did you mean \"tier\"?; \
             a.yml:3: [2]: does not name a customer; expected an id or a glob that matches the organization; \
             a.yml:4: [3]: must be a mapping, not text; expected customer, id, organization, country, tier, region, team, modules"
        );
        let long = "x".repeat(MAX_VALUE_CHARS + 1);
        let many = format!("customer,tier\n{}", format!("a,{long}\n").repeat(MAX_REPORTED + 2));
        let error = read("a.csv", &many).unwrap_err();
        assert!(
            error.starts_with("a.csv:2: tier: is longer than 100 characters; a.csv:3: "),
            "{error}"
        );
        assert!(error.ends_with("; and 2 more invalid rows"), "{error}");
    }

    #[test]
    fn invalid_headers_are_rejected() {
        for (header, problem) in [
            ("", "has no header; expected one such as customer,tier,region,team"),
            ("customer,teir", "unknown column \"teir\"; did you mean \"tier\"?"),
            (
                "customer;tier",
                "unknown column \"customer;tier\"; separate cells with commas",
            ),
            (
                "Contoso,gold",
                "unknown column \"Contoso\"; expected a header with some of the columns customer, id, organization, country, tier, region, team, modules",
            ),
            ("customer,tier,Tier", "duplicate column \"tier\""),
            (
                "customer,id,tier",
                "columns \"customer\" and \"id\" are synonyms; expected only one of them",
            ),
            (
                "tier,team",
                "lacks a column that identifies customers; expected customer, id or organization",
            ),
            (
                "customer,modules",
                "lacks a column for attributes; expected at least one of tier, region and team",
            ),
        ] {
            assert_eq!(read("a.csv", header).unwrap_err(), format!("a.csv:1: {problem}"));
        }
        assert!(read("a.csv", "customer,tier\n").unwrap().is_empty());
    }

    #[test]
    fn numbers_of_rows_and_globs_are_limited() {
        let rows: String = (0..=MAX_GLOBS).map(|row| format!("a{row}*,x\n")).collect();
        let error = read("a.csv", &format!("customer,tier\n{rows}")).unwrap_err();
        assert_eq!(
            error,
            "a.csv:1002: exceeds the maximum of 1000 globs; list customers by id"
        );
        let rows: String = (0..=MAX_ROWS).map(|row| format!("a{row},x\n")).collect();
        let error = read("a.csv", &format!("customer,tier\n{rows}")).unwrap_err();
        assert_eq!(error, "a.csv:100002: has more than 100000 rows");
        let absent = tempfile::tempdir().unwrap().path().join("absent.csv");
        assert!(matches!(read_attributes(&absent), Err(AttributesError::File(_))));
    }
}
