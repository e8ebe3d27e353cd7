//! Parses a YAML document into a tree of values with line numbers, which typed YAML parsers discard.
//!
//! Every scalar that is not null is stored as text, so that `007` and `1.10` stay as written.

use std::collections::HashMap;
use std::path::Path;

use ::config::{Map, Value, ValueKind};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::Error;

/// Maximum size of a settings file, in bytes. Even a configuration with ten thousand customers is smaller.
pub(crate) const FILE_LIMIT: u64 = 1 << 20;

/// Maximum nesting depth of a document. A limit is necessary, because trees are traversed and dropped recursively. The
/// configuration has five levels.
const MAX_DEPTH: usize = 16;

/// Maximum size of a document in bytes after its aliases are expanded. Without a limit, a few hundred bytes of nested
/// aliases could exhaust memory.
const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// Number of bytes counted for each value, in addition to its text.
const VALUE_OVERHEAD_BYTES: usize = 16;

/// Parses a file that contains one document. An empty file is parsed as null.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Value, Error> {
    DocumentReader::new(text, DocumentSource::File(path.display().to_string())).document()
}

/// Parses the text of an environment variable.
pub(crate) fn parse_variable(name: &str, text: &str) -> Result<Value, Error> {
    DocumentReader::new(text, DocumentSource::Variable(name.to_owned())).document()
}

enum DocumentSource {
    File(String),
    Variable(String),
}

impl DocumentSource {
    fn location(&self, line: usize) -> String {
        match self {
            Self::File(path) => format!("{path}:{line}"),
            Self::Variable(name) => name.clone(),
        }
    }
}

struct DocumentReader<'a> {
    parser: Parser<std::str::Chars<'a>>,
    source: DocumentSource,
    anchors: HashMap<usize, AnchoredValue>,
    size: usize,
}

/// A value that aliases can refer to.
struct AnchoredValue {
    kind: ValueKind,
    size: usize,
    height: usize,
}

/// A parsed node: its kind, the number of levels below it, and its anchor, which is 0 if there is none.
type Node = (ValueKind, usize, usize);

impl<'a> DocumentReader<'a> {
    fn new(text: &'a str, source: DocumentSource) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            source,
            anchors: HashMap::new(),
            size: 0,
        }
    }

    fn document(mut self) -> Result<Value, Error> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => break,
                (Event::DocumentStart, mark) if root.is_some() => {
                    return Err(self.error(&mark, "contains more than one YAML document; expected one"));
                }
                (Event::DocumentStart, _) => {
                    let (event, mark) = self.next()?;
                    root = Some(self.value(event, &mark, mark.line(), 0)?.0);
                }
                (_, mark) => return Err(self.error(&mark, "is not YAML")),
            }
        }
        Ok(root.unwrap_or_else(|| Value::new(Some(&self.source.location(1)), ValueKind::Nil)))
    }

    fn next(&mut self) -> Result<(Event, Marker), Error> {
        self.parser
            .next_token()
            .map_err(|error| self.error(error.marker(), format!("is not YAML ({})", error.info())))
    }

    /// Parses the value that starts with this event. Returns the value and the number of levels below it.
    fn value(&mut self, event: Event, mark: &Marker, line: usize, depth: usize) -> Result<(Value, usize), Error> {
        let before = self.size;
        let (kind, height, anchor) = match event {
            Event::Alias(anchor) => self.alias(anchor, mark)?,
            event => self.node(event, mark, depth)?,
        };
        if depth.saturating_add(height) > MAX_DEPTH {
            return Err(self.error(
                mark,
                format!("is nested too deeply; expected at most {MAX_DEPTH} levels"),
            ));
        }
        if anchor > 0 {
            let size = self.size.saturating_sub(before);
            self.add_size(size, mark)?;
            let kind = kind.clone();
            self.anchors.insert(anchor, AnchoredValue { kind, size, height });
        }
        Ok((Value::new(Some(&self.source.location(line)), kind), height))
    }

    fn node(&mut self, event: Event, mark: &Marker, depth: usize) -> Result<Node, Error> {
        if depth > MAX_DEPTH {
            return Err(self.error(
                mark,
                format!("is nested too deeply; expected at most {MAX_DEPTH} levels"),
            ));
        }
        self.add_size(VALUE_OVERHEAD_BYTES, mark)?;
        Ok(match event {
            Event::Scalar(text, TScalarStyle::Plain, anchor, _) if is_null(&text) => (ValueKind::Nil, 0, anchor),
            Event::Scalar(text, _, anchor, _) => {
                self.add_size(text.len(), mark)?;
                (ValueKind::String(text), 0, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let (items, height) = self.sequence(depth)?;
                (ValueKind::Array(items), height, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, height) = self.mapping(depth)?;
                (ValueKind::Table(entries), height, anchor)
            }
            _ => return Err(self.error(mark, "is not YAML")),
        })
    }

    /// Copies the value to which an alias refers, after checking its size.
    fn alias(&mut self, anchor: usize, mark: &Marker) -> Result<Node, Error> {
        let size = self.anchors.get(&anchor).map(|anchored| anchored.size);
        self.add_size(size.unwrap_or_default(), mark)?;
        match self.anchors.get(&anchor) {
            Some(anchored) => Ok((anchored.kind.clone(), anchored.height, 0)),
            None => Err(self.error(mark, "is an alias of a node that contains it; write out the value")),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<(Vec<Value>, usize), Error> {
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            let (event, mark) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((items, height));
            }
            let (item, below) = self.value(event, &mark, mark.line(), depth.saturating_add(1))?;
            height = height.max(below.saturating_add(1));
            items.push(item);
        }
    }

    /// Parses the entries of a mapping. The origin of each value is the line of its key.
    fn mapping(&mut self, depth: usize) -> Result<(Map<String, Value>, usize), Error> {
        let (mut entries, mut height) = (Map::<String, Value>::new(), 0);
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok((entries, height)),
                (Event::Scalar(key, ..), mark) => {
                    self.add_size(key.len(), &mark)?;
                    if let Some(first) = entries.get(&key) {
                        let first = first.origin().unwrap_or_default();
                        return Err(self.error(&mark, format!("duplicate key \"{key}\", already set at {first}")));
                    }
                    (key, mark.line())
                }
                (_, mark) => return Err(self.error(&mark, "has a key that is not text; put it in quotes")),
            };
            let (event, mark) = self.next()?;
            let (value, below) = self.value(event, &mark, line, depth.saturating_add(1))?;
            height = height.max(below.saturating_add(1));
            entries.insert(key, value);
        }
    }

    fn add_size(&mut self, size: usize, mark: &Marker) -> Result<(), Error> {
        self.size = self.size.saturating_add(size);
        if self.size > MAX_EXPANDED_BYTES {
            return Err(self.error(mark, "is too large after expanding its aliases; write out their values"));
        }
        Ok(())
    }

    fn error(&self, mark: &Marker, problem: impl Into<String>) -> Error {
        Error::Document {
            location: self.source.location(mark.line()),
            problem: problem.into(),
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn parsed(text: &str) -> Result<Value, Error> {
        parse(Path::new("a.yml"), text)
    }

    fn error(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    fn table(value: &Value) -> &Map<String, Value> {
        let ValueKind::Table(entries) = &value.kind else {
            panic!()
        };
        entries
    }

    #[test]
    fn every_value_has_its_line() {
        let root = parsed("# c\na:\n  b: 1\n\n  c: [x,\n    \"\"]\nd:\n").unwrap();
        assert_eq!(table(&root)["a"].origin(), Some("a.yml:2"));
        assert_eq!(table(&root)["d"].origin(), Some("a.yml:7"));
        let c = &table(&table(&root)["a"])["c"];
        assert_eq!(c.origin(), Some("a.yml:5"));
        let ValueKind::Array(items) = &c.kind else { panic!() };
        let items: Vec<_> = items
            .iter()
            .map(|item| (item.origin().unwrap(), item.kind.clone()))
            .collect();
        assert_eq!(items, [("a.yml:5", "x".into()), ("a.yml:6", "".into())]);
    }

    #[test]
    fn scalar_is_text_as_written_or_null() {
        for text in ["007", "1.10", "0x1F", "true", "no", "1e3"] {
            assert_eq!(parsed(text).unwrap().kind, ValueKind::from(text));
        }
        for text in ["", "# only a comment\n", "---\n", "~", "null"] {
            assert_eq!(parsed(text).unwrap().kind, ValueKind::Nil, "{text:?}");
        }
        assert_eq!(parsed("'~'").unwrap().kind, ValueKind::from("~"));
    }

    #[test]
    fn ambiguous_documents_are_rejected() {
        for (text, expected) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "a.yml:3: duplicate key \"a\", already set at a.yml:1",
            ),
            ("a: 1\n---\nb: 2\n", "a.yml:2: contains more than one YAML document"),
            ("a:\n  - [1\nb: 2\n", "a.yml:3: is not YAML ("),
            ("? [a]\n: b\n", "a.yml:1: has a key that is not text"),
            ("a: *x\n", "a.yml:1: is not YAML ("),
            ("a: &x\n  - *x\n", "a.yml:2: is an alias of a node that contains it"),
        ] {
            let error = error(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn aliases_are_replaced_by_their_anchors() {
        let root = parsed("a: &x {b: [1, 2]}\nc: *x\nd: [&y 5m, *y]\n").unwrap();
        assert_eq!(table(&root)["a"].kind, table(&root)["c"].kind);
        assert_eq!(table(&root)["c"].origin(), Some("a.yml:2"));
        let ValueKind::Array(items) = &table(&root)["d"].kind else {
            panic!()
        };
        assert_eq!(items.first().unwrap().kind, items.last().unwrap().kind);
    }

    /// Returns a document whose first level contains `text`. Each further level contains the previous level `times`
    /// times.
    fn nested_aliases(levels: usize, times: usize, text: &str) -> String {
        let mut yaml = format!("a0: &a0 [{text}]\n");
        for level in 1..levels {
            let aliases = vec![format!("*a{}", level - 1); times].join(", ");
            writeln!(yaml, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        yaml
    }

    #[test]
    fn nested_aliases_do_not_exhaust_memory() {
        let bomb = nested_aliases(9, 9, "lol, lol, lol, lol, lol, lol, lol, lol, lol");
        let bomb_error = error(&bomb);
        assert!(
            bomb.len() < 600 && bomb_error.contains(": is too large after expanding its aliases; "),
            "{bomb_error}"
        );
        // The limits also apply to a few large values, and to many levels with one value each.
        let text = "x".repeat(100_000);
        assert!(error(&nested_aliases(4, 9, &text)).contains(": is too large after expanding its aliases; "));
        assert!(error(&nested_aliases(10_000, 1, "x")).contains(": is nested too deeply"));
        assert!(error(&format!("a: &a [x]\nb: {}*a{}", "[".repeat(15), "]".repeat(15))).contains("nested too deeply"));
    }

    #[test]
    fn deep_and_wide_documents_are_rejected() {
        for open in ["{a: ", "- ", "[", "? "] {
            assert!(parsed(&open.repeat(100_000)).is_err(), "{open}");
        }
        assert!(error(&"- ".repeat(100)).contains(": is nested too deeply"));
        assert!(parsed(&format!("{}x{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
        assert!(error(&format!("[{}]", "a,".repeat(500_000))).contains(": is too large after expanding its aliases"));
        let keys: String = (0..60_000).map(|key| format!("{key}: x\n")).collect();
        assert_eq!(table(&parsed(&keys).unwrap()).len(), 60_000);
    }
}
