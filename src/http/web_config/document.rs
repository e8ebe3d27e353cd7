//! A YAML document as a tree whose every node knows its line, which the typed readers of YAML do not keep.

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

/// How deep a document may nest. The format needs four levels; the tree is built and dropped by recursion.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// Why a text is no document.
#[derive(Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads the one document of a text; an empty text is null.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    // Windows editors begin a file with a byte order mark, which the parser would take for part of the first key.
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = Reader(Parser::new_from_str(text));
    let mut root = None;
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart, mark) if root.is_some() => {
                return Err(syntax(&mark, "holds more than one YAML document; expected one"));
            }
            (Event::DocumentStart, _) => {
                let (event, mark) = reader.next()?;
                root = Some(reader.node(event, &mark, 0)?);
            }
            (_, mark) => return Err(syntax(&mark, "is not YAML")),
        }
    }
    Ok(root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

struct Reader<'a>(Parser<std::str::Chars<'a>>);

impl Reader<'_> {
    fn next(&mut self) -> Result<(Event, Marker), SyntaxError> {
        self.0
            .next_token()
            .map_err(|error: ScanError| syntax(error.marker(), error.info()))
    }

    fn node(&mut self, event: Event, mark: &Marker, depth: usize) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(syntax(mark, "nests too deep"));
        }
        let value = match event {
            Event::Scalar(text, TScalarStyle::Plain, ..) if is_null(&text) => Value::Null,
            Event::Scalar(text, ..) => Value::Scalar(text),
            Event::SequenceStart(..) => self.sequence(depth)?,
            Event::MappingStart(..) => self.mapping(depth)?,
            Event::Alias(_) => return Err(syntax(mark, "is an alias; write the value out")),
            _ => return Err(syntax(mark, "is not YAML")),
        };
        Ok(Node {
            line: mark.line(),
            value,
        })
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, mark) => items.push(self.node(event, &mark, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (key, mark) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Mapping(entries)),
                (Event::Scalar(key, ..), mark) => (key, mark),
                (_, mark) => return Err(syntax(&mark, "has a key that is not text")),
            };
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("duplicate key \"{key}\", which also stands on line {}", first.line);
                return Err(syntax(&mark, message));
            }
            let (event, at) = self.next()?;
            let node = self.node(event, &at, depth + 1)?;
            entries.push(Entry {
                key,
                line: mark.line(),
                node,
            });
        }
    }
}

fn syntax(mark: &Marker, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        line: mark.line(),
        message: message.into(),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn error(text: &str) -> (usize, String) {
        let error = parse(text).unwrap_err();
        (error.line, error.message)
    }

    #[test]
    fn every_key_knows_its_line() {
        let node = parse("# c\na:\n  b: 1\n\n  c: [x, \"\"]\nd:\n").unwrap();
        let Value::Mapping(root) = node.value else { panic!() };
        let lines: Vec<_> = root.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(lines, [("a", 2), ("d", 6)]);
        assert_eq!(root.last().unwrap().node.value, Value::Null);
        let Value::Mapping(below) = &root.first().unwrap().node.value else {
            panic!()
        };
        let last = below.last().unwrap();
        assert_eq!((last.key.as_str(), last.line), ("c", 5));
        let items = ["x", ""].map(|text| Node {
            line: 5,
            value: Value::Scalar(text.to_owned()),
        });
        assert_eq!(last.node.value, Value::Sequence(items.into()));
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "\u{feff}", "# only a comment\n", "---\n", "~"] {
            assert_eq!(parse(text).unwrap().value, Value::Null, "{text:?}");
        }
    }

    #[test]
    fn refuses_what_it_would_have_to_guess_at() {
        let (line, message) = error("a: 1\nb: 2\na: 3\n");
        assert_eq!((line, message.contains("line 1")), (3, true), "{message}");
        assert_eq!(error("a: &x 1\nb: *x\n").0, 2);
        assert_eq!(error("a: 1\n---\nb: 2\n").0, 2);
        assert_eq!(error("a:\n  - [1\nb: 2\n").0, 3);
        assert_eq!(error("? [a]\n: b\n").1, "has a key that is not text");
        assert_eq!(error(&"[".repeat(MAX_DEPTH + 2)).1, "nests too deep");
        assert_eq!(error(&"[".repeat(100_000)).0, 1);
    }
}
