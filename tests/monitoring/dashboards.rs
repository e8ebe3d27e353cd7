//! The shipped dashboards, parsed as Grafana parses them.

use std::collections::{BTreeMap, BTreeSet};

use elements_exporter::assets::DASHBOARDS;
use serde_json::Value;

/// A shipped dashboard.
pub struct Dashboard {
    pub file: &'static str,
    pub json: Value,
}

/// A query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// Location in the dashboard, for messages.
    pub place: String,
    pub expr: String,
    /// Whether this is a range query. Otherwise, it is an instant query.
    pub range: bool,
    /// Displayed time range in seconds.
    pub span: i64,
    /// Labels that the panel displays, joins on, or uses in links.
    pub labels: BTreeSet<String>,
    pub description: String,
}

/// Values of variables to insert into queries, by name.
pub type Values = BTreeMap<String, String>;

/// Returns the variable values that select everything, with the given `$__rate_interval`.
pub fn select_all(rate_interval: &str) -> Values {
    [
        ("datasource", "prometheus"),
        ("job", ".+"),
        ("instance", ".+"),
        ("tier", ".*"),
        ("region", ".*"),
        ("team", ".*"),
        ("selected", ".*"),
        ("search", ""),
        ("customer", ".*"),
        ("service", ".*"),
        ("module", ".*"),
        ("target", "0.99"),
        ("__rate_interval", rate_interval),
        ("__range", "30d"),
        ("__range_s", "2592000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

pub fn all() -> Vec<Dashboard> {
    let read = |asset: &elements_exporter::assets::Asset| Dashboard {
        file: asset.name,
        json: serde_json::from_str(asset.content).unwrap(),
    };
    DASHBOARDS.iter().map(read).collect()
}

/// Returns the elements of a list, or none if the value is not a list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns a string, which is empty if the value is not a string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Dashboard {
    /// Returns the panels with content, including panels in collapsed rows.
    pub fn panels(&self) -> Vec<&Value> {
        let outer = list(&self.json["panels"]);
        outer
            .flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])))
            .filter(|panel| panel["type"] != "row")
            .collect()
    }

    pub fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"]["list"])
    }

    /// Returns the annotations that query Prometheus.
    pub fn annotations(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["annotations"]["list"]).filter(|annotation| annotation["builtIn"] != 1)
    }

    pub fn queries(&self, panel: &Value) -> Vec<Query> {
        let columns = columns(panel);
        let from = panel["timeFrom"].as_str().or(self.json["time"]["from"].as_str());
        let query = |target: &Value| Query {
            place: format!("{} / {} {}", self.file, text(&panel["title"]), text(&target["refId"])),
            expr: text(&target["expr"]).to_owned(),
            range: target["range"] == true,
            span: span(from.unwrap().trim_start_matches("now-").trim_end_matches("/M")),
            labels: &placeholders(text(&target["legendFormat"])) | &columns,
            description: text(&panel["description"]).to_owned(),
        };
        let mut queries: Vec<Query> = list(&panel["targets"]).map(query).collect();
        // The first query that uses a column determines the rows. The results of other queries are merged into these
        // rows.
        for column in &columns {
            let uses_column = |query: &Query| query.expr.split(|c| !is_name(c)).any(|word| word == column);
            let source = queries.iter().position(uses_column).unwrap_or(0);
            for (_, query) in queries.iter_mut().enumerate().filter(|(place, _)| *place != source) {
                query.labels.remove(column);
            }
        }
        queries
    }
}

/// Returns the names in double braces.
pub fn placeholders(format: &str) -> BTreeSet<String> {
    let parts = format.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    parts.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Returns the labels that a table has as columns.
pub fn columns(panel: &Value) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for transformation in list(&panel["transformations"]) {
        let options = &transformation["options"];
        columns.extend(list(&options["include"]["names"]).map(text).map(ToOwned::to_owned));
        for map in ["indexByName", "renameByName"] {
            columns.extend(
                options[map]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.clone()),
            );
        }
    }
    columns.retain(|name| !name.starts_with("Value") && !name.starts_with("Time"));
    columns
}

fn span(duration: &str) -> i64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "M" => 30 * 86_400,
        _ => panic!("{duration}"),
    };
    number.parse::<i64>().unwrap() * seconds
}

/// Inserts values for `$name`, `${name}`, `${name:pipe}` and `${name:regex}`. Inserted values are not expanded again.
pub fn interpolate(template: &str, values: &Values) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(found) => found,
            None => after.split_at(after.find(|c: char| !is_name(c)).unwrap_or(after.len())),
        };
        let (name, format) = name.split_once(':').unwrap_or((name, ""));
        match (values.get(name), format) {
            (Some(value), "regex") => out.push_str(&escape_regex(value)),
            (Some(value), "" | "pipe") => out.push_str(value),
            // A reference to a group of a regular expression is not a Grafana variable.
            _ if name.parse::<u8>().is_ok() => out.push_str(&format!("${name}")),
            _ => panic!("${name}:{format} in {template}"),
        }
        rest = tail;
    }
    out + rest
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Escapes a value as Grafana does for the format `regex`.
pub fn escape_regex(value: &str) -> String {
    let mut out = String::new();
    for character in value.chars() {
        if "\\^$*+?.()|[]{}/".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
