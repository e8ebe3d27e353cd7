package prom

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

var promqlParser = parser.NewParser(parser.Options{})

// statement is the expression of a rule, together with its text. Without the stored text, Prometheus would format the
// expression twice at every evaluation.
type statement struct {
	parser.Expr
	text string
}

// String implements parser.Expr.
func (s *statement) String() string { return s.text }

// unwrap returns the expression of a rule.
func unwrap(r rules.Rule) parser.Expr {
	if s, ok := r.Query().(*statement); ok {
		return s.Expr
	}
	return r.Query()
}

// loader implements rules.GroupLoader for rules whose expressions are statements.
type loader struct{}

// Load implements rules.GroupLoader.
func (loader) Load(file string, ignoreUnknownFields bool, names model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return rulefmt.ParseFile(file, ignoreUnknownFields, names, promqlParser)
}

// Parse implements rules.GroupLoader.
func (loader) Parse(query string) (parser.Expr, error) {
	expr, err := promqlParser.ParseExpr(query)
	if err != nil {
		return nil, err
	}
	return &statement{Expr: expr, text: expr.String()}, nil
}

// AnalyseRules implements rules.RuleDependencyController. The batches in concurrency contain the dependencies.
func (loader) AnalyseRules([]rules.Rule) {}

// queries is a promql.QueryEngine that parses each query only once. A query must have been executed before the next one
// with the same text is created.
type queries struct {
	*promql.Engine
	parsed sync.Map // of *parsedQuery, by text
}

// NewInstantQuery implements promql.QueryEngine.
func (q *queries) NewInstantQuery(ctx context.Context, source storage.Queryable, opts promql.QueryOpts, text string, at time.Time) (promql.Query, error) {
	if found, ok := q.parsed.Load(text); ok {
		parsed := found.(*parsedQuery)
		parsed.reset(at)
		return parsed, nil
	}
	query, err := q.Engine.NewInstantQuery(ctx, source, opts, text, at)
	if err != nil {
		return nil, err
	}
	parsed := &parsedQuery{Query: query}
	parser.Inspect(query.Statement().(*parser.EvalStmt).Expr, func(n parser.Node, _ []parser.Node) error {
		if selector, ok := n.(*parser.VectorSelector); ok {
			parsed.selectors = append(parsed.selectors, selector)
		}
		return nil
	})
	q.parsed.Store(text, parsed)
	return parsed, nil
}

// parsedQuery is a query that can be executed repeatedly.
type parsedQuery struct {
	promql.Query
	selectors []*parser.VectorSelector
}

// reset prepares the next execution. It drops the series of the previous execution.
func (q *parsedQuery) reset(at time.Time) {
	s := q.Statement().(*parser.EvalStmt)
	s.Start, s.End = at, at
	for _, selector := range q.selectors {
		selector.Series, selector.UnexpandedSeriesSet = nil, nil
	}
}
