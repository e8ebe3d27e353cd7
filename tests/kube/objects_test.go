// Package kube tests what operators apply: the manifests as kustomize and helm render them, and the Compose file.
// tests/kube/run renders them, and says where they lie.
package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Where the repository begins, seen from here.
const root = "../.."

// What one command rendered, by kind. A key that is not one of Kubernetes or of the operator is refused when it is
// read.
type rendering struct {
	name            string
	namespaces      []core.Namespace
	serviceAccounts []core.ServiceAccount
	services        []core.Service
	configMaps      []core.ConfigMap
	secrets         []core.Secret
	claims          []core.PersistentVolumeClaim
	policies        []networking.NetworkPolicy
	deployments     []apps.Deployment
	statefulSets    []apps.StatefulSet
	serviceMonitors []monitoring.ServiceMonitor
	podMonitors     []monitoring.PodMonitor
	rules           []monitoring.PrometheusRule
}

// The workload of a rendering: there is one, of either kind.
type workload struct {
	name     string
	replicas int32
	selector map[string]string
	template core.PodTemplateSpec
	claims   []core.PersistentVolumeClaim
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func add[T any](text string, list *[]T) error {
	var object T
	if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

func (r *rendering) take(text string) error {
	var kind meta.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		return err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		return add(text, &r.namespaces)
	case "v1 ServiceAccount":
		return add(text, &r.serviceAccounts)
	case "v1 Service":
		return add(text, &r.services)
	case "v1 ConfigMap":
		return add(text, &r.configMaps)
	case "v1 Secret":
		return add(text, &r.secrets)
	case "v1 PersistentVolumeClaim":
		return add(text, &r.claims)
	case "networking.k8s.io/v1 NetworkPolicy":
		return add(text, &r.policies)
	case "apps/v1 Deployment":
		return add(text, &r.deployments)
	case "apps/v1 StatefulSet":
		return add(text, &r.statefulSets)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return add(text, &r.serviceMonitors)
	case "monitoring.coreos.com/v1 PodMonitor":
		return add(text, &r.podMonitors)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return add(text, &r.rules)
	}
	return fmt.Errorf("nobody expects a %s %s", kind.APIVersion, kind.Kind)
}

var (
	separator = regexp.MustCompile(`(?m)^---\s*$`)
	comments  = regexp.MustCompile(`(?m)^\s*#.*$`)
)

func renderings(t *testing.T) []rendering {
	t.Helper()
	directory := os.Getenv("KUBE_RENDERED")
	if directory == "" {
		t.Skip("nothing is rendered; run tests/kube/run")
	}
	paths, err := filepath.Glob(filepath.Join(directory, "*.yml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("nothing is rendered in %s: %v", directory, err)
	}
	var all []rendering
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		one := rendering{name: strings.TrimSuffix(filepath.Base(path), ".yml")}
		for _, document := range separator.Split(string(text), -1) {
			if strings.TrimSpace(comments.ReplaceAllString(document, "")) == "" {
				continue
			}
			if err := one.take(document); err != nil {
				t.Fatalf("%s: %v in\n%s", one.name, err, document)
			}
		}
		all = append(all, one)
	}
	return all
}

// Whether the values of a rendering have the exporter serve TLS.
func (r *rendering) servesTLS() bool {
	return r.name == "helm-certificate" || r.name == "helm-tls"
}

// Runs a test for every rendering.
func each(t *testing.T, test func(t *testing.T, r rendering)) {
	for _, one := range renderings(t) {
		t.Run(one.name, func(t *testing.T) { test(t, one) })
	}
}

func (r *rendering) workload(t *testing.T) workload {
	t.Helper()
	if len(r.deployments)+len(r.statefulSets) != 1 {
		t.Fatalf("%d Deployments and %d StatefulSets", len(r.deployments), len(r.statefulSets))
	}
	for _, d := range r.deployments {
		return workload{d.Name, *d.Spec.Replicas, d.Spec.Selector.MatchLabels, d.Spec.Template, nil}
	}
	s := r.statefulSets[0]
	return workload{s.Name, *s.Spec.Replicas, s.Spec.Selector.MatchLabels, s.Spec.Template, s.Spec.VolumeClaimTemplates}
}

func (w *workload) container() core.Container {
	return w.template.Spec.Containers[0]
}

// Whether labels are all those that a selector asks for.
func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}
