//! Labels of query results, derived from the catalogue and the rules. An unknown metric or label is an error.

use std::collections::{BTreeMap, BTreeSet};

use elements_exporter::catalogue;
use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::token::{T_BOTTOMK, T_COUNT_VALUES, T_LAND, T_LOR, T_LUNLESS, T_TOPK};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

use super::rules;

type Names = BTreeSet<String>;

/// Labels that Prometheus adds to every scraped series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Series that Prometheus adds for every scrape. Other such series are not used.
const SCRAPE_SERIES: [&str; 2] = ["up", "scrape_duration_seconds"];

/// Series that dashboards select by labels that the series lack. The selectors match only while the variables for these
/// labels select everything. In all other cases, the query reads the series of modules, or the panel shows no trend.
const MATCHED_BY_ALL: [(&str, &[&str]); 9] = [
    ("customer:elements_job_rpo_seconds:min", &["service", "module"]),
    (
        "fleet:elements_customers_with_rpo:count",
        &["customer_id", "service", "module"],
    ),
    (
        "fleet:elements_customers_within_rpo:ratio",
        &["customer_id", "service", "module"],
    ),
    ("fleet:elements_jobs_fresh:count", &["customer_id"]),
    ("fleet:elements_jobs_fresh:sum", &["customer_id"]),
    ("module:elements_protected_objects:sum_enabled", &["customer_id"]),
    (
        "module:elements_protected_scanned_objects:sum_enabled",
        &["customer_id"],
    ),
    ("module:elements_protected_unprotected_objects:sum", &["customer_id"]),
    ("module_storage:elements_protected_size_bytes:sum", &["customer_id"]),
];

/// The label that contains the name of a metric.
const NAME: &str = "__name__";

/// Labels of every existing metric.
pub struct LabelCatalogue(BTreeMap<String, Names>);

fn names<T: AsRef<str>>(labels: impl IntoIterator<Item = T>) -> Names {
    labels.into_iter().map(|label| label.as_ref().to_owned()).collect()
}

impl LabelCatalogue {
    /// Reads the catalogue and the shipped rules, and checks each rule.
    pub fn read() -> Result<Self, String> {
        let mut catalogue = BTreeMap::new();
        for entry in catalogue::metrics() {
            let labels = &names(entry.labels) | &names(TARGET_LABELS);
            let name = entry.metric.name;
            if entry.metric.kind.as_str() == "histogram" {
                catalogue.insert(format!("{name}_bucket"), &labels | &names(["le"]));
                catalogue.insert(format!("{name}_sum"), labels.clone());
                catalogue.insert(format!("{name}_count"), labels);
            } else {
                catalogue.insert(name.to_owned(), labels);
            }
        }
        for name in SCRAPE_SERIES {
            catalogue.insert(name.to_owned(), names(TARGET_LABELS));
        }
        let mut catalogue = Self(catalogue);
        let mut alert_labels = names(["alertname", "alertstate"]);
        // Rules may query alerts that are defined after them.
        let subject = [
            "job",
            "customer_id",
            "service",
            "module",
            "scope",
            "since",
            "extent",
            "instance",
            "severity",
            "area",
        ];
        catalogue.0.insert("ALERTS".to_owned(), &alert_labels | &names(subject));
        let rules = rules::all();
        let recorded = rules::recorded_names(&rules);
        // Operands that read recorded history do not change a rule's labels, and may read rules that follow it.
        for rule in rules.iter().filter(|rule| !rule.is_alert) {
            let labels = catalogue.of(&rules::without_history(rule, &recorded));
            let labels = labels.map_err(|error| format!("{}: {error}", rule.name))?;
            catalogue.0.insert(rule.name.clone(), labels);
        }
        for rule in &rules {
            let expr_labels = catalogue
                .of(&rule.expr)
                .map_err(|error| format!("{}: {error}", rule.name))?;
            let labels = &expr_labels | &names(rule.labels.iter().map(|(label, _)| label));
            if rule.is_alert {
                alert_labels.extend(labels);
            } else {
                catalogue.0.insert(rule.name.clone(), labels);
            }
        }
        catalogue.0.insert("ALERTS".to_owned(), alert_labels);
        Ok(catalogue)
    }

    pub fn metric(&self, name: &str) -> Result<&Names, String> {
        self.0.get(name).ok_or_else(|| format!("metric {name} does not exist"))
    }

    /// Returns the labels that a query's results may have.
    pub fn of(&self, query: &str) -> Result<Names, String> {
        self.expr(&parser::parse(query)?)
    }

    fn expr(&self, expr: &Expr) -> Result<Names, String> {
        match expr {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Unary(unary) => self.expr(&unary.expr),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Paren(paren) => self.expr(&paren.expr),
            Expr::Subquery(subquery) => self.expr(&subquery.expr),
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(selector) => self.selector(&selector.vs),
            Expr::Call(call) => self.call(call),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Ok(Names::new()),
        }
    }

    fn selector(&self, selector: &VectorSelector) -> Result<Names, String> {
        let name = metric_name(selector).ok_or("a selector without a metric")?;
        let labels = self.metric(name)?;
        let mut expected = matcher_labels(&selector.matchers);
        for (_, exempt) in MATCHED_BY_ALL.iter().filter(|(series, _)| *series == name) {
            expected.retain(|label| !exempt.contains(&label.as_str()));
        }
        require(expected, labels, name)?;
        Ok(labels.clone())
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Names, String> {
        if let Some(parameter) = &aggregate.param {
            self.expr(parameter)?;
        }
        let inner = self.expr(&aggregate.expr)?;
        let labels = match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                let by = names(&by.labels);
                require(by.clone(), &inner, "the aggregated expression")?;
                by
            }
            Some(LabelModifier::Exclude(without)) => &inner - &names(&without.labels),
            None => Names::new(),
        };
        let op = aggregate.op.id();
        if op == T_TOPK || op == T_BOTTOMK {
            return Ok(inner);
        }
        match aggregate.param.as_deref() {
            Some(Expr::StringLiteral(label)) if op == T_COUNT_VALUES => Ok(&labels | &names([&label.val])),
            _ => Ok(labels),
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Names, String> {
        let (left, right) = (self.expr(&binary.lhs)?, self.expr(&binary.rhs)?);
        let Some(modifier) = &binary.modifier else {
            return Ok(&left | &right);
        };
        let matching = modifier.matching.as_ref();
        if let Some(on) = matching {
            require(names(&on.labels().labels), &left, "the left side")?;
            require(names(&on.labels().labels), &right, "the right side")?;
        }
        let op = binary.op.id();
        if op == T_LOR {
            return Ok(&left | &right);
        }
        if op == T_LAND || op == T_LUNLESS {
            return Ok(left);
        }
        let scalar = |side: &Expr| side.value_type() == parser::value::ValueType::Scalar;
        if scalar(&binary.lhs) || scalar(&binary.rhs) {
            return Ok(&left | &right);
        }
        match (&modifier.card, matching) {
            (VectorMatchCardinality::ManyToOne(group), _) => {
                require(names(&group.labels), &right, "the right side")?;
                Ok(&left | &names(&group.labels))
            }
            (VectorMatchCardinality::OneToMany(group), _) => {
                require(names(&group.labels), &left, "the left side")?;
                Ok(&right | &names(&group.labels))
            }
            (_, Some(LabelModifier::Include(on))) => Ok(names(&on.labels)),
            (_, Some(LabelModifier::Exclude(ignored))) => Ok(&left - &names(&ignored.labels)),
            (_, None) => Ok(left),
        }
    }

    fn call(&self, call: &Call) -> Result<Names, String> {
        let mut labels = Names::new();
        for argument in &call.args.args {
            labels.extend(self.expr(argument)?);
        }
        match (call.func.name, call.args.args.first().map(AsRef::as_ref)) {
            ("histogram_quantile", _) => {
                labels.remove("le");
                Ok(labels)
            }
            ("label_replace" | "label_join", _) => {
                if let Some(Expr::StringLiteral(label)) = call.args.args.get(1).map(AsRef::as_ref) {
                    labels.insert(label.val.clone());
                }
                Ok(labels)
            }
            ("absent", Some(Expr::VectorSelector(selector))) => Ok(matcher_labels(&selector.matchers)),
            ("scalar", _) => Ok(Names::new()),
            _ => Ok(labels),
        }
    }
}

/// Returns the metric name before the braces, or else the name that a matcher requires.
fn metric_name(selector: &VectorSelector) -> Option<&str> {
    let mut matchers = selector.matchers.matchers.iter();
    let required = matchers.find(|matcher| matcher.name == NAME && matcher.op == MatchOp::Equal);
    selector
        .name
        .as_deref()
        .or(required.map(|matcher| matcher.value.as_str()))
}

fn matcher_labels(matchers: &Matchers) -> Names {
    let labels = matchers.matchers.iter().map(|matcher| &matcher.name);
    names(labels.filter(|label| *label != NAME))
}

fn require(expected: Names, available: &Names, place: &str) -> Result<(), String> {
    let missing = &expected - available;
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("{place} has no {missing:?}"))
}

#[test]
fn missing_metric_or_label_is_rejected() {
    let catalogue = LabelCatalogue::read().unwrap();
    for (query, expected) in [
        ("elements_job_state", "does not exist"),
        ("elements_job_status{customer=\"x\"}", "customer"),
        ("sum by (modul) (elements_job_status)", "modul"),
        ("elements_job_status * on (tenant) elements_job_rpo_seconds", "tenant"),
        (
            "elements_job_status * on (job, customer_id) group_left (org) customer:elements_customer_info:max",
            "org",
        ),
        ("sum by (module) (sum by (service) (elements_job_status))", "module"),
        ("customer:elements_job_rpo_breached:sum{instance=\"x\"}", "instance"),
    ] {
        let error = catalogue.of(query).unwrap_err();
        assert!(error.contains(expected), "{query}: {error}");
    }
    let joined =
        "elements_job_status * on (job, customer_id) group_left (organization) customer:elements_customer_info:max";
    let labels = catalogue.of(joined).unwrap();
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [
            "customer_id",
            "instance",
            "job",
            "module",
            "organization",
            "scope",
            "service"
        ]
    );
}
