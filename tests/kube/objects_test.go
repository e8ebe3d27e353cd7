// Package kube tests the files that operators apply: the manifests as rendered by kustomize and helm, and the Compose
// file. tests/kube/run renders the manifests and passes their paths.
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

// root is the path of the repository, relative to this package.
const root = "../.."

// rendering contains the objects of one rendering, by kind. Parsing rejects keys that neither Kubernetes nor the
// operator defines.
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

// workload is the Deployment or StatefulSet of a rendering.
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

func appendObject[T any](text string, list *[]T) error {
	var object T
	if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

func (r *rendering) add(text string) error {
	var kind meta.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		return err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		return appendObject(text, &r.namespaces)
	case "v1 ServiceAccount":
		return appendObject(text, &r.serviceAccounts)
	case "v1 Service":
		return appendObject(text, &r.services)
	case "v1 ConfigMap":
		return appendObject(text, &r.configMaps)
	case "v1 Secret":
		return appendObject(text, &r.secrets)
	case "v1 PersistentVolumeClaim":
		return appendObject(text, &r.claims)
	case "networking.k8s.io/v1 NetworkPolicy":
		return appendObject(text, &r.policies)
	case "apps/v1 Deployment":
		return appendObject(text, &r.deployments)
	case "apps/v1 StatefulSet":
		return appendObject(text, &r.statefulSets)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return appendObject(text, &r.serviceMonitors)
	case "monitoring.coreos.com/v1 PodMonitor":
		return appendObject(text, &r.podMonitors)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return appendObject(text, &r.rules)
	}
	return fmt.Errorf("unexpected %s %s", kind.APIVersion, kind.Kind)
}

var (
	separator = regexp.MustCompile(`(?m)^---\s*$`)
	comments  = regexp.MustCompile(`(?m)^\s*#.*$`)
)

// accountsOf returns the name suffixes of a rendering's accounts. Each account is tested as if it were rendered alone.
func accountsOf(name string) []string {
	if name == "helm-accounts" {
		return []string{"-north", "-south"}
	}
	return []string{""}
}

// belongsToOtherAccount returns whether an object belongs only to another account. Shared objects belong to all
// accounts.
func belongsToOtherAccount(document, account string) bool {
	for _, other := range accountsOf("helm-accounts") {
		if account != "" && other != account && strings.Contains(document, "\n  name: elements-exporter"+other+"\n") {
			return true
		}
	}
	return false
}

func renderings(t *testing.T) []rendering {
	t.Helper()
	directory := os.Getenv("KUBE_RENDERED")
	if directory == "" {
		t.Skip("KUBE_RENDERED is not set; run tests/kube/run")
	}
	paths, err := filepath.Glob(filepath.Join(directory, "*.yml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no manifests in %s: %v", directory, err)
	}
	var all []rendering
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".yml")
		for _, account := range accountsOf(name) {
			one := rendering{name: name + account}
			for _, document := range separator.Split(string(text), -1) {
				if strings.TrimSpace(comments.ReplaceAllString(document, "")) == "" || belongsToOtherAccount(document, account) {
					continue
				}
				if err := one.add(document); err != nil {
					t.Fatalf("%s: %v in\n%s", one.name, err, document)
				}
			}
			all = append(all, one)
		}
	}
	return all
}

// servesTLS returns whether the exporter serves TLS in this rendering.
func (r *rendering) servesTLS() bool {
	return r.name == "helm-certificate" || r.name == "helm-tls"
}

// eachRendering runs a test for every rendering.
func eachRendering(t *testing.T, test func(t *testing.T, r rendering)) {
	for _, one := range renderings(t) {
		t.Run(one.name, func(t *testing.T) { test(t, one) })
	}
}

func (r *rendering) workload(t *testing.T) workload {
	t.Helper()
	if len(r.deployments)+len(r.statefulSets) != 1 {
		t.Fatalf("got %d Deployments and %d StatefulSets, want one object", len(r.deployments), len(r.statefulSets))
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

// selects returns whether labels match a selector.
func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}
