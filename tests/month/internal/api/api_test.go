package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"month/internal/vtime"
	"month/internal/world"
)

type client struct {
	*Server
	t     *testing.T
	token string
}

func newClient(t *testing.T, version string) *client {
	t.Helper()
	scenario, err := world.LoadScenario("")
	if err != nil {
		t.Fatal(err)
	}
	scenario.Incidents, scenario.Noise.RequestFails = nil, 0
	start := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	w, err := world.New(scenario, world.Span{Customers: 120, Days: 2, Seed: 1, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(vtime.New(start, 0), w, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.listener.Close() })
	c := &client{Server: s, t: t}
	scopes := []string{}
	for _, r := range resources {
		scopes = append(scopes, version+"."+r)
	}
	form := url.Values{"client_id": {ClientID}, "client_secret": {ClientSecret}, "scope": {strings.Join(scopes, " ")}}
	c.token = c.request(http.MethodPost, tokenPath, form.Encode())["access_token"].(string)
	return c
}

func (c *client) request(method, path, body string) map[string]any {
	c.t.Helper()
	request := httptest.NewRequest(method, path, nil)
	request.Header.Set("Authorization", "Bearer "+c.token)
	reply := c.respond(request, []byte(body))
	if reply.status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %v", method, path, reply.status, reply.body)
	}
	text, err := json.Marshal(reply.body)
	if err != nil {
		c.t.Fatal(err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(text, &decoded); err != nil {
		c.t.Fatal(err)
	}
	return decoded
}

func TestV3PagesByNumber(t *testing.T) {
	c := newClient(t, "elements")
	ids := map[any]bool{}
	for page := 1; page <= 2; page++ {
		response := c.request(http.MethodPost, v3Base+"/customers/batch?pageSize=100&pageIndex="+string(rune('0'+page)), "{}")
		for _, row := range response["data"].([]any) {
			ids[row.(map[string]any)["id"]] = true
		}
	}
	if listed := len(c.world.CustomersAt(c.world.Start)); len(ids) != listed {
		t.Errorf("got %d customers in two pages, want %d", len(ids), listed)
	}
}

func TestVersionsListTheSameRuns(t *testing.T) {
	v1, v3 := newClient(t, "partner"), newClient(t, "elements")
	for _, x := range v3.world.CustomersAt(v3.world.Start)[:30] {
		v1Rows := v1.request(http.MethodGet, "/partner/customers/"+x.ID+"/jobs", "")["value"].([]any)
		v3Rows := v3.request(http.MethodPost, v3Base+"/customers/"+x.ID+"/avpt-products/jobs/batch?pageSize=100", "{}")["data"].([]any)
		if len(v1Rows) != len(v3Rows) || len(v1Rows) == 0 {
			t.Fatalf("%d rows in v1, %d in v3", len(v1Rows), len(v3Rows))
		}
		for i := range v1Rows {
			a, b := v1Rows[i].(map[string]any), v3Rows[i].(map[string]any)
			if a["jobId"] != b["jobId"] || a["name"] != b["name"] || a["endTime"] != b["endTime"] {
				t.Errorf("rows differ: %v in v1, %v in v3", a, b)
			}
			if _, isWord := a["status"].(string); !isWord {
				t.Errorf("status %v in v1 is not a word", a["status"])
			}
		}
	}
}

func TestValuesHaveTheFormatOfTheAPI(t *testing.T) {
	at := time.Date(2026, 12, 31, 5, 4, 3, 0, time.UTC)
	for _, x := range [][2]string{
		{date(at), "12-31-2026T12:00:00Z"},
		{instant(time.Time{}, 0), "N/A"},
		{duration(at, at), "0 S"},
		{duration(at, at.Add(3807*time.Second)), "1h3m27s"},
		{duration(at, at.Add(38*time.Second)), "38s"},
		{size(0), "0 GB"},
		{size(1178), "1.15 GB"},
	} {
		if x[0] != x[1] {
			t.Errorf("got %q, want %q", x[0], x[1])
		}
	}
}
