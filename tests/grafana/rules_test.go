// Package grafana checks the Grafana alert rules against Grafana's types for provisioned files.
package grafana

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/grafana/grafana-openapi-client-go/models"
	"gopkg.in/yaml.v3"
)

// decodeStrictly decodes JSON and rejects unknown fields, which Grafana would ignore.
func decodeStrictly(t *testing.T, content []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func loadAlerts(t *testing.T) models.AlertingFileExport {
	t.Helper()
	content, err := os.ReadFile(os.Getenv("GRAFANA_ALERTS"))
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := yaml.Unmarshal(content, &document); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	var file models.AlertingFileExport
	decodeStrictly(t, encoded, &file)
	return file
}

// Types of the three queries' models, which Grafana does not publish.
type query struct {
	RefID   string `json:"refId"`
	Expr    string `json:"expr"`
	Instant bool   `json:"instant"`
	Range   bool   `json:"range"`
}

type math struct {
	RefID      string `json:"refId"`
	Type       string `json:"type"`
	Expression string `json:"expression"`
}

type threshold struct {
	math
	Conditions []struct {
		Evaluator struct {
			Type   string    `json:"type"`
			Params []float64 `json:"params"`
		} `json:"evaluator"`
	} `json:"conditions"`
}

func decodeModel(t *testing.T, query *models.AlertQueryExport, into any) {
	t.Helper()
	encoded, err := json.Marshal(query.Model)
	if err != nil {
		t.Fatal(err)
	}
	decodeStrictly(t, encoded, into)
}

func TestFileCanBeProvisionedByGrafana(t *testing.T) {
	file := loadAlerts(t)
	if err := file.Validate(strfmt.Default); err != nil {
		t.Fatal(err)
	}
	if file.APIVersion != 1 || len(file.Groups) == 0 {
		t.Fatalf("got version %d with %d groups, want version 1 with groups", file.APIVersion, len(file.Groups))
	}
	if len(file.ContactPoints)+len(file.Policies)+len(file.MuteTimes) != 0 {
		t.Error("the file contains contact points, policies or mute timings")
	}
	uids := map[string]bool{}
	for _, group := range file.Groups {
		if _, err := time.ParseDuration(group.Interval); err != nil || group.Name == "" || group.Folder == "" || group.OrgID != 1 {
			t.Errorf("invalid group %+v", *group)
		}
		for _, rule := range group.Rules {
			if rule.UID == "" || len(rule.UID) > 40 || uids[rule.UID] {
				t.Errorf("invalid or repeated uid %q", rule.UID)
			}
			uids[rule.UID] = true
			if rule.NoDataState != "OK" || rule.ExecErrState != "Error" || rule.NotificationSettings != nil {
				t.Errorf("%s: %+v", rule.UID, *rule)
			}
			checkRule(t, rule)
		}
	}
}

func checkRule(t *testing.T, rule *models.AlertRuleExport) {
	t.Helper()
	if len(rule.Data) != 3 {
		t.Fatalf("%s: got %d queries, want 3", rule.UID, len(rule.Data))
	}
	var source query
	var exists math
	var above threshold
	for position, into := range []any{&source, &exists, &above} {
		alertQuery := rule.Data[position]
		decodeModel(t, alertQuery, into)
		if isExpression := alertQuery.DatasourceUID == "__expr__"; isExpression != (position > 0) || alertQuery.DatasourceUID == "" {
			t.Errorf("%s: data source %q", rule.UID, alertQuery.DatasourceUID)
		}
	}
	if source.RefID != "A" || source.Expr == "" || !source.Instant || source.Range {
		t.Errorf("%s: %+v", rule.UID, source)
	}
	if exists.Type != "math" || !strings.Contains(exists.Expression, "$"+source.RefID) {
		t.Errorf("%s: %+v", rule.UID, exists)
	}
	if above.Type != "threshold" || above.Expression != exists.RefID || above.RefID != rule.Condition {
		t.Errorf("%s: %+v", rule.UID, above)
	}
	if len(above.Conditions) != 1 || above.Conditions[0].Evaluator.Type != "gt" || above.Conditions[0].Evaluator.Params[0] != 0 {
		t.Errorf("%s: %+v", rule.UID, above.Conditions)
	}
	for key, text := range rule.Annotations {
		if got := expand(t, text); got == "" || strings.Contains(got, "no value") {
			t.Errorf("%s: %s is %q", rule.UID, key, got)
		}
	}
}

// expand executes a template with Grafana's variables, and with stand-ins for the functions that Grafana and Prometheus
// have in common.
func expand(t *testing.T, text string) string {
	t.Helper()
	unchanged := func(value any) any { return value }
	functions := template.FuncMap{
		"humanize":           unchanged,
		"humanizeDuration":   func(any) string { return "1h" },
		"humanizePercentage": func(any) string { return "50%" },
		"reReplaceAll":       func(_, _, text string) string { return text },
		"toTime":             func(any) time.Time { return time.Unix(0, 0) },
	}
	const variables = `{{ $labels := .Labels }}{{ $values := .Values }}{{ $value := .Value }}`
	parsed, err := template.New("").Funcs(functions).Parse(variables + text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	labels := map[string]string{}
	for _, name := range []string{
		"collector", "customer_id", "endpoint", "ends", "field", "instance", "job", "license", "module", "organization",
		"product", "profile_name", "reason", "scope", "service", "since", "tenant_id",
	} {
		labels[name] = "some"
	}
	type value struct{ Value float64 }
	var written strings.Builder
	err = parsed.Execute(&written, map[string]any{
		"Labels": labels,
		"Values": map[string]value{"A": {Value: 2}},
		"Value":  "[ var='A' labels={} value=2 ]",
	})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return written.String()
}
