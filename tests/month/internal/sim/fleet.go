package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"month/internal/api"
	"month/internal/prom"
	"month/internal/score"
	"month/internal/vtime"
	"month/internal/world"
)

const (
	// overlap is how long an old exporter and its successor run concurrently.
	overlap = 2 * time.Minute
	// renewedLifetime is the lifetime of a new credential.
	renewedLifetime = 365 * 24 * time.Hour
	port            = "10027"
)

// fleet consists of the exporters and their scraper.
type fleet struct {
	options Options
	clock   *vtime.Clock
	world   *world.World
	api     string
	scraper *prom.Scraper
	shards  []*exporter
	starts  int
	failure error
	expires time.Time // expiry of the credential, if any
}

// exporter is one exporter with its targets.
type exporter struct {
	shard   int
	deploy  int // number of replacements; each successor has a separate state file
	process *vtime.Process
	targets []*prom.Target
}

func (f *fleet) start() error {
	f.expires, _ = f.world.CredentialExpiry()
	for i := range f.options.Shards {
		x := &exporter{shard: i}
		f.shards = append(f.shards, x)
		if err := f.launch(x); err != nil {
			return err
		}
		if err := f.addTargets(x, fmt.Sprintf("elements-%d", i)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) close() error {
	var err error
	for _, x := range f.shards {
		if x.process == nil {
			continue // it did not start
		}
		if killed := x.process.Signal(syscall.SIGKILL); !errors.Is(killed, os.ErrProcessDone) {
			err = errors.Join(err, killed)
		}
	}
	return err
}

func (f *fleet) launch(x *exporter) error {
	config, err := f.configure(x)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	f.starts++
	args := []string{"--config.file", config, "--web.listen-address", address}
	if f.options.Shards > 1 {
		args = append(args, fmt.Sprintf("--shard=%d/%d", x.shard, f.options.Shards))
	}
	x.process, err = f.clock.Start(vtime.Command{
		Program: f.options.Exporter, Args: args, Address: address, Shim: f.options.Shim,
		Dir: filepath.Join(f.options.Out, fmt.Sprintf("exporter-%d", f.starts)), Log: filepath.Join(f.options.Out, "exporter.log"),
	})
	return err
}

func (f *fleet) statePath(x *exporter) string {
	return filepath.Join(f.options.Out, fmt.Sprintf("state-%d-%d", x.shard, x.deploy))
}

// configure writes the configuration of an exporter.
func (f *fleet) configure(x *exporter) (string, error) {
	expires := ""
	if !f.expires.IsZero() {
		expires = fmt.Sprintf("\n  client_secret_expires: %q", f.expires.Format(time.RFC3339))
	}
	text := fmt.Sprintf(`api:
  version: %s
  base_url: http://%s
  token_url: http://%s/connect/token
auth:
  client_id: %s
  client_secret: %s%s
collectors:
  jobs:
    interval: %s
rpo:
  overrides:
    - {customer: "Weekend-off*", rpo: %dh}
state:
  file: %s
`, f.options.API, f.api, f.api, api.ClientID, api.ClientSecret, expires, f.options.Jobs, int(score.WeekendRPO.Hours()), f.statePath(x))
	path := filepath.Join(f.options.Out, fmt.Sprintf("config-%d-%d.yml", x.shard, x.deploy))
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (f *fleet) job(x *exporter) string {
	if f.options.Shards > 1 {
		return fmt.Sprintf("elements-%d", x.shard)
	}
	return "elements"
}

// addTargets adds an exporter's targets under a host name.
func (f *fleet) addTargets(x *exporter, host string) error {
	if f.options.Targets <= 1 {
		x.targets = []*prom.Target{f.scraper.Add(x.process.Address, f.job(x), host+":"+port, "")}
		return nil
	}
	groups, err := f.discover(x)
	if err != nil {
		return err
	}
	x.targets = nil
	for _, g := range groups {
		query := url.Values{}
		for label, value := range g.Labels {
			if parameter, ok := strings.CutPrefix(label, "__param_"); ok {
				query.Set(parameter, value)
			}
		}
		instance := strings.ReplaceAll(g.Labels["instance"], x.process.Address, host+":"+port)
		x.targets = append(x.targets, f.scraper.Add(x.process.Address, f.job(x), instance, "?"+query.Encode()))
	}
	return nil
}

type targetGroup struct {
	Labels map[string]string `json:"labels"`
}

// discover fetches the targets from the exporter's service discovery. The clock need not move in the meantime, because
// the response does not depend on a timer.
func (f *fleet) discover(x *exporter) ([]targetGroup, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(network, address string) (net.Conn, error) {
		conn, err := net.Dial(network, address)
		if err != nil {
			return nil, err
		}
		return f.clock.Count(conn), nil
	}}}
	response, err := client.Get(fmt.Sprintf("http://%s/sd?shards=%d", x.process.Address, f.options.Targets))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var groups []targetGroup
	return groups, json.NewDecoder(response.Body).Decode(&groups)
}
