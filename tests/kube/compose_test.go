package kube

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// compose contains the tested parts of a Compose file.
type compose struct {
	Services map[string]struct {
		Build       map[string]any `json:"build"`
		Image       string         `json:"image"`
		Ports       []string       `json:"ports"`
		Volumes     []string       `json:"volumes"`
		Healthcheck struct {
			Test []string `json:"test"`
		} `json:"healthcheck"`
		DependsOn   map[string]any `json:"depends_on"`
		CapDrop     []string       `json:"cap_drop"`
		SecurityOpt []string       `json:"security_opt"`
	} `json:"services"`
	Volumes map[string]any `json:"volumes"`
}

func TestComposeIsCompleteAndListensLocally(t *testing.T) {
	var file compose
	if err := yaml.Unmarshal([]byte(read(t, "deploy/compose/compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`^[a-z0-9/._-]+:v?\d+\.\d+\.\d+$`)
	mounted := map[string][]string{}
	for _, name := range []string{"exporter", "prometheus", "alertmanager", "grafana"} {
		service, exists := file.Services[name]
		if !exists {
			t.Errorf("service %s is missing", name)
		}
		if service.Build == nil && (!pinned.MatchString(service.Image) || len(service.Healthcheck.Test) == 0) {
			t.Errorf("%s: image %s, health check %v", name, service.Image, service.Healthcheck.Test)
		}
		if len(service.Ports) != 1 || !strings.HasPrefix(service.Ports[0], "127.0.0.1:") {
			t.Errorf("%s: ports %v", name, service.Ports)
		}
		if !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.SecurityOpt) != 1 {
			t.Errorf("%s has unnecessary privileges", name)
		}
		for other := range service.DependsOn {
			if _, exists := file.Services[other]; !exists {
				t.Errorf("%s depends on %s, which does not exist", name, other)
			}
		}
		for _, volume := range service.Volumes {
			parts := strings.Split(volume, ":")
			if !strings.HasPrefix(parts[0], ".") {
				if _, exists := file.Volumes[parts[0]]; !exists {
					t.Errorf("%s: volume %s is not declared", name, parts[0])
				}
				continue
			}
			path := filepath.Join("deploy/compose", parts[0])
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if len(parts) != 3 || parts[2] != "ro" {
				t.Errorf("%s may write to %s", name, path)
			}
			mounted[name] = append(mounted[name], path+" "+parts[1])
		}
	}
	// Volumes that provide the configuration files of each service.
	for name, want := range map[string][]string{
		"prometheus": {
			"deploy/compose/prometheus.yml /etc/prometheus/prometheus.yml",
			"deploy/prometheus /etc/prometheus/rules",
		},
		"alertmanager": {"deploy/alertmanager /etc/alertmanager"},
		"grafana": {
			"deploy/grafana/provisioning /etc/grafana/provisioning",
			"dashboards " + find(t, "deploy/grafana/provisioning/dashboards/elements.yml", `(?m)^\s+path: (.+)$`),
		},
	} {
		if !slices.Equal(mounted[name], want) {
			t.Errorf("%s mounts %v, want %v", name, mounted[name], want)
		}
	}
}
