package kube

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	security "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// maxApplied is the maximum size in bytes of the annotation in which `kubectl apply` stores the last applied
// configuration. A ConfigMap may be four times as large.
const maxApplied = 256 << 10

// find returns the first capture group of a pattern's first match in a file of the repository.
func find(t *testing.T, path, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(read(t, path))
	if match == nil {
		t.Fatalf("%s does not match %s", path, pattern)
	}
	return match[1]
}

func TestPodsMeetTheRestrictedStandard(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
	user := find(t, "Dockerfile", `(?m)^USER (\d+):\d+$`)
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		spec := w.template.Spec
		verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &w.template.ObjectMeta, &spec))
		if !verdict.Allowed {
			t.Errorf("forbidden by the restricted standard: %s", verdict.ForbiddenDetail())
		}
		context := spec.SecurityContext
		if r.name == "helm-openshift" {
			// A fixed user would be outside the namespace's range, so the pod would be rejected.
			if context.RunAsUser != nil || context.RunAsGroup != nil || context.FSGroup != nil {
				t.Errorf("the cluster cannot assign the user: %v", context)
			}
		} else {
			if got := fmt.Sprint(*context.RunAsUser); got != user {
				t.Errorf("the pod runs as user %s, the image as user %s", got, user)
			}
			if *context.FSGroup != *context.RunAsGroup {
				t.Error("the volumes do not belong to the group of the process")
			}
		}
		if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
			t.Fatal("the pod does not have exactly one container")
		}
		container := w.container()
		if readOnly := container.SecurityContext.ReadOnlyRootFilesystem; readOnly == nil || !*readOnly {
			t.Error("the root file system is writable")
		}
		if token := spec.AutomountServiceAccountToken; token == nil || *token {
			t.Error("the pod mounts a service account token")
		}
		for _, account := range r.serviceAccounts {
			if token := account.AutomountServiceAccountToken; token == nil || *token {
				t.Error("the service account mounts its token in pods")
			}
			if account.Name != spec.ServiceAccountName {
				t.Errorf("the pod has service account %s, want %s", spec.ServiceAccountName, account.Name)
			}
		}
		if links := spec.EnableServiceLinks; links == nil || *links {
			t.Error("the environment contains service links")
		}
		resources := container.Resources
		if resources.Requests.Cpu().IsZero() || resources.Requests.Memory().IsZero() || resources.Limits.Memory().IsZero() {
			t.Error("a request or the memory limit is missing")
		}
	})
}

// The termination grace period must equal the systemd service's stop timeout.
func TestGracePeriodMatchesSystemd(t *testing.T) {
	text := find(t, "deploy/systemd/elements_exporter.service", `(?m)^TimeoutStopSec=(\d+)s$`)
	stop, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	eachRendering(t, func(t *testing.T, r rendering) {
		if got := *r.workload(t).template.Spec.TerminationGracePeriodSeconds; got != stop {
			t.Errorf("got %d seconds, systemd has %d", got, stop)
		}
	})
}

func TestNoCustomerIsPolledTwice(t *testing.T) {
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		for _, deployment := range r.deployments {
			if w.replicas != 1 || deployment.Spec.Strategy.Type != apps.RecreateDeploymentStrategyType {
				t.Error("a rollout of the Deployment would run two pods in parallel")
			}
		}
		for _, set := range r.statefulSets {
			if set.Spec.ServiceName != r.services[0].Name {
				t.Error("the StatefulSet does not use the service")
			}
			container := w.container()
			index := slices.IndexFunc(container.Args, isShardFlag)
			if index < 0 {
				t.Fatal("no --shard flag")
			}
			if got, want := expand(container, container.Args[index], 0), fmt.Sprintf("--shard=0/%d", w.replicas); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

func isShardFlag(argument string) bool {
	return strings.HasPrefix(argument, "--shard=")
}

// expand returns an argument as the kubelet passes it to the pod with this ordinal.
func expand(container core.Container, argument string, index int) string {
	for _, variable := range container.Env {
		value := variable.Value
		if variable.ValueFrom != nil && variable.ValueFrom.FieldRef != nil {
			value = strconv.Itoa(index)
		}
		argument = strings.ReplaceAll(argument, "$("+variable.Name+")", value)
	}
	return argument
}

func TestSecretsAreFilesThatCanBeRotated(t *testing.T) {
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		container := w.container()
		volumes := map[string]core.Volume{}
		for _, volume := range w.template.Spec.Volumes {
			volumes[volume.Name] = volume
		}
		for _, claim := range w.claims {
			volumes[claim.Name] = core.Volume{}
		}
		secret := false
		for _, mount := range container.VolumeMounts {
			volume, declared := volumes[mount.Name]
			if !declared {
				t.Errorf("volume %s is not declared", mount.Name)
			}
			delete(volumes, mount.Name)
			if mount.SubPath != "" || mount.SubPathExpr != "" {
				t.Errorf("%s has a subPath, so changes to its volume do not reach the pod", mount.Name)
			}
			if volume.Secret == nil && volume.ConfigMap == nil {
				continue
			}
			if !mount.ReadOnly {
				t.Errorf("%s is writable", mount.Name)
			}
			if volume.Secret != nil {
				secret = true
				if *volume.Secret.DefaultMode != 0o440 {
					t.Errorf("%s has mode %o", mount.Name, *volume.Secret.DefaultMode)
				}
			}
		}
		if !secret || len(volumes) != 0 {
			t.Errorf("no secret is mounted, or a volume is not mounted: %v", volumes)
		}
		for _, variable := range container.Env {
			from := variable.ValueFrom
			if from != nil && from.SecretKeyRef != nil && from.SecretKeyRef.Key != "client_id" {
				t.Errorf("%s is a secret in the environment", variable.Name)
			}
		}
		for _, configMap := range r.configMaps {
			for name, text := range configMap.Data {
				if strings.Contains(text, "demo-secret") || strings.Contains(text, "client_secret:") {
					t.Errorf("%s of %s contains a secret", name, configMap.Name)
				}
			}
		}
	})
}

func TestServiceIncludesPodsThatAreNotReady(t *testing.T) {
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		if len(r.services) != 1 {
			t.Fatalf("got %d services, want 1: a ServiceMonitor would scrape each pod once per service", len(r.services))
		}
		service := r.services[0]
		if !service.Spec.PublishNotReadyAddresses {
			t.Error("pods that are not ready would not be scraped")
		}
		if service.Spec.ClusterIP != core.ClusterIPNone {
			t.Error("the service is not headless")
		}
		if !selects(service.Spec.Selector, w.template.Labels) || !selects(w.selector, w.template.Labels) {
			t.Error("the service does not select the pods")
		}
		port, servicePort := w.container().Ports[0], service.Spec.Ports[0]
		if servicePort.TargetPort.StrVal != port.Name || servicePort.Port != port.ContainerPort {
			t.Errorf("the service has port %v, the pod has %v", servicePort, port)
		}
		if want := find(t, "Dockerfile", `(?m)^EXPOSE (\d+)$`); fmt.Sprint(port.ContainerPort) != want {
			t.Errorf("the pod has port %d, the image has %s", port.ContainerPort, want)
		}
		if want := find(t, "src/args.rs", `DEFAULT_PORT: u16 = (\d+)`); fmt.Sprint(port.ContainerPort) != want {
			t.Errorf("the pod has port %d, the program listens on %s", port.ContainerPort, want)
		}
	})
}

func TestNetworkPolicyAllowsOnlyUsedPorts(t *testing.T) {
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		if len(r.policies) == 0 && r.name == "helm-certificate" {
			t.Skip("no network policy")
		}
		if len(r.policies) != 1 {
			t.Fatalf("got %d network policies, want 1", len(r.policies))
		}
		spec := r.policies[0].Spec
		if !selects(spec.PodSelector.MatchLabels, w.template.Labels) {
			t.Error("the policy selects other pods")
		}
		if len(spec.PolicyTypes) != 2 || len(spec.Ingress) != 1 {
			t.Fatalf("ingress and egress are not both restricted: %v", spec)
		}
		ingress := spec.Ingress[0]
		if len(ingress.From) == 0 || len(ingress.Ports) != 1 {
			t.Fatalf("ingress is not limited to scrapers: %v", ingress)
		}
		port := w.container().Ports[0]
		if allowed := ingress.Ports[0].Port; allowed.StrVal != port.Name && allowed.IntVal != port.ContainerPort {
			t.Errorf("%v is not served", allowed)
		}
		var allowedEgress []string
		for _, rule := range spec.Egress {
			for _, port := range rule.Ports {
				allowedEgress = append(allowedEgress, fmt.Sprintf("%s %s", *port.Protocol, port.Port))
				if port.Port.IntVal == 443 && (len(rule.To) == 0 || len(rule.To[0].IPBlock.Except) == 0) {
					t.Error("the API's port is also open to the cluster")
				}
			}
		}
		for _, need := range []string{"UDP 53", "TCP 53", "TCP 443"} {
			if !slices.Contains(allowedEgress, need) {
				t.Errorf("%s is blocked", need)
			}
		}
	})
}

// removeEmptyLines removes the line breaks that kustomize adds before indented lines when it folds text.
func removeEmptyLines(rules any) {
	for _, group := range rules.(map[string]any)["groups"].([]any) {
		for _, rule := range group.(map[string]any)["rules"].([]any) {
			rule := rule.(map[string]any)
			rule["expr"] = strings.ReplaceAll(rule["expr"].(string), "\n\n", "\n")
		}
	}
}

func TestRulesMatchTheRepository(t *testing.T) {
	want := map[string]any{}
	files, err := filepath.Glob(filepath.Join(root, "deploy/prometheus/elements-*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		var content any
		if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/"+name)), &content); err != nil {
			t.Fatal(err)
		}
		want[strings.TrimSuffix(strings.TrimPrefix(name, "elements-"), ".yml")] = content
	}
	count := 0
	eachRendering(t, func(t *testing.T, r rendering) {
		if len(r.rules) == 0 {
			t.Skip("no rules")
		}
		count++
		got := map[string]any{}
		for _, rule := range r.rules {
			text, err := json.Marshal(rule.Spec)
			if err != nil {
				t.Fatal(err)
			}
			var content any
			if err := json.Unmarshal(text, &content); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(r.name, "kustomize-") {
				removeEmptyLines(content)
			}
			got[rule.Name[strings.LastIndex(rule.Name, "-")+1:]] = content
		}
		if !reflect.DeepEqual(got, want) {
			t.Error("the rules differ from deploy/prometheus")
		}
	})
	if count < 3 {
		t.Errorf("only %d renderings have rules", count)
	}
}

func TestDashboardsMatchTheRepository(t *testing.T) {
	want := map[string]string{}
	files, err := filepath.Glob(filepath.Join(root, "dashboards/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		want[filepath.Base(file)] = read(t, "dashboards/"+filepath.Base(file))
	}
	count := 0
	eachRendering(t, func(t *testing.T, r rendering) {
		got := map[string]string{}
		for _, configMap := range r.configMaps {
			if configMap.Labels["grafana_dashboard"] == "" {
				continue
			}
			size := 0
			for name, text := range configMap.Data {
				got[name] = text
				size += len(text)
			}
			if len(configMap.Data) != 1 || size >= maxApplied*9/10 {
				t.Errorf("%s contains %d files with a total of %d bytes", configMap.Name, len(configMap.Data), size)
			}
		}
		if len(got) == 0 {
			t.Skip("no dashboards")
		}
		count++
		if !reflect.DeepEqual(got, want) {
			t.Error("the dashboards differ from the repository")
		}
	})
	if count < 2 {
		t.Errorf("only %d renderings have dashboards", count)
	}
}

// metricLabels returns the labels of the exporter's metrics, according to the reference in docs/metrics.
func metricLabels(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(root, "docs/metrics/*.md"))
	if err != nil || len(pages) < 2 {
		t.Fatalf("no metrics reference: %v, %v", pages, err)
	}
	var reference string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		reference += string(text)
	}
	labels := map[string]bool{}
	word := regexp.MustCompile("`([a-z_]+)`")
	for _, row := range strings.Split(reference, "\n") {
		if columns := strings.Split(row, "|"); len(columns) > 4 && strings.Contains(columns[1], "`elements_") {
			for _, label := range word.FindAllStringSubmatch(columns[3], -1) {
				labels[label[1]] = true
			}
		}
	}
	var all []string
	for label := range labels {
		all = append(all, label)
	}
	sort.Strings(all)
	if len(all) < 10 {
		t.Fatalf("too few labels in the reference: %v", all)
	}
	return all
}

// The Prometheus Operator adds labels to targets, and Prometheus renames metric labels that collide with them.
func TestMonitorsDoNotRenameMetricLabels(t *testing.T) {
	operatorLabels := []string{"job", "instance", "namespace", "service", "pod", "container", "endpoint", "node"}
	labels := metricLabels(t)
	count := 0
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		var selector map[string]string
		var relabelings []monitoring.RelabelConfig
		var port, scheme string
		var targetLabels map[string]string
		switch {
		case len(r.serviceMonitors)+len(r.podMonitors) > 1:
			t.Fatal("targets are scraped more than once")
		case len(r.serviceMonitors) == 1:
			spec := r.serviceMonitors[0].Spec
			selector, targetLabels = spec.Selector.MatchLabels, r.services[0].Labels
			relabelings, port = spec.Endpoints[0].RelabelConfigs, spec.Endpoints[0].Port
			scheme = spec.Endpoints[0].Scheme.String()
		case len(r.podMonitors) == 1:
			spec := r.podMonitors[0].Spec
			selector, targetLabels = spec.Selector.MatchLabels, w.template.Labels
			relabelings, port = spec.PodMetricsEndpoints[0].RelabelConfigs, *spec.PodMetricsEndpoints[0].Port
			scheme = spec.PodMetricsEndpoints[0].Scheme.String()
		default:
			t.Skip("no monitor")
		}
		count++
		if !selects(selector, targetLabels) {
			t.Error("the monitor does not select the pods or the service")
		}
		if port != w.container().Ports[0].Name {
			t.Errorf("port %s does not exist", port)
		}
		if tls := r.servesTLS(); tls != (scheme == "https") {
			t.Errorf("scheme %q does not match the exporter", scheme)
		}
		dropped := func(label string) bool {
			return slices.ContainsFunc(relabelings, func(r monitoring.RelabelConfig) bool {
				return r.Action == "labeldrop" && regexp.MustCompile("^(?:"+r.Regex+")$").MatchString(label)
			})
		}
		instance := slices.ContainsFunc(relabelings, func(r monitoring.RelabelConfig) bool {
			return r.TargetLabel == "instance"
		})
		if !instance {
			t.Error("series would change with each pod")
		}
		for _, label := range operatorLabels {
			if slices.Contains(labels, label) && !dropped(label) {
				t.Errorf("the metric label %s would become exported_%s", label, label)
			}
		}
	})
	if count < 4 {
		t.Errorf("only %d renderings have monitors", count)
	}
}

func TestProbesUseTheServedPaths(t *testing.T) {
	program := find(t, "Dockerfile", `(?m)^ENTRYPOINT \["(.+)"\]$`)
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		container := w.container()
		prefix := ""
		for _, argument := range container.Args {
			if value, ok := strings.CutPrefix(argument, "--web.route-prefix="); ok {
				prefix = value
			}
		}
		live, ready := container.LivenessProbe, container.ReadinessProbe
		if r.servesTLS() {
			flags := []string{"--web.config.file=" + configDirectory + "/web/web.yml"}
			if prefix != "" {
				flags = append(flags, "--web.route-prefix="+prefix)
			}
			want := append([]string{program, "healthcheck"}, flags...)
			if live.Exec == nil || !slices.Equal(live.Exec.Command, want) {
				t.Errorf("liveness: the kubelet has no password, so it must run healthcheck, but it runs %v", live.Exec)
			}
			want = append([]string{program, "healthcheck", "--ready"}, flags...)
			if ready.Exec == nil || !slices.Equal(ready.Exec.Command, want) {
				t.Errorf("readiness: the kubelet has no password, so it must run healthcheck, but it runs %v", ready.Exec)
			}
			return
		}
		if live.HTTPGet == nil || live.HTTPGet.Path != prefix+"/-/healthy" {
			t.Errorf("liveness: %v", live)
		}
		if ready.HTTPGet == nil || ready.HTTPGet.Path != prefix+"/-/ready" {
			t.Errorf("readiness: %v", ready)
		}
	})
}

// Except for sharding and the state volume, the pods of plain and sharded must be equal.
func TestPlainAndShardedDifferOnlyInSharding(t *testing.T) {
	pods := map[string]core.PodTemplateSpec{}
	for _, r := range renderings(t) {
		if strings.HasPrefix(r.name, "kustomize-") {
			pods[r.name] = r.workload(t).template
		}
	}
	plain, sharded := pods["kustomize-plain"], pods["kustomize-sharded"]
	container := &sharded.Spec.Containers[0]
	container.Args = slices.DeleteFunc(container.Args, isShardFlag)
	container.Env = slices.DeleteFunc(container.Env, func(variable core.EnvVar) bool {
		return variable.Name == "SHARDS" || variable.Name == "POD_INDEX"
	})
	plain.Spec.Volumes = slices.DeleteFunc(plain.Spec.Volumes, func(volume core.Volume) bool {
		return volume.PersistentVolumeClaim != nil
	})
	if !reflect.DeepEqual(plain, sharded) {
		a, _ := yaml.Marshal(plain)
		b, _ := yaml.Marshal(sharded)
		t.Errorf("plain:\n%s\nsharded without sharding:\n%s", a, b)
	}
}

func TestVersionsMatchTheProgram(t *testing.T) {
	version := find(t, "Cargo.toml", `(?m)^version = "(.+)"$`)
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/helm/elements-exporter/Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	if chart.AppVersion != version {
		t.Errorf("the chart has appVersion %s, the program has version %s", chart.AppVersion, version)
	}
	eachRendering(t, func(t *testing.T, r rendering) {
		w := r.workload(t)
		image := w.container().Image
		if !strings.HasSuffix(image, ":"+version) && !strings.Contains(image, "@sha256:") {
			t.Errorf("the image is %s, the program has version %s", image, version)
		}
	})
}

// The schema must describe exactly the values in values.yaml.
func TestSchemaDescribesEveryValue(t *testing.T) {
	var values, schema map[string]any
	chart := "deploy/helm/elements-exporter/"
	if err := yaml.Unmarshal([]byte(read(t, chart+"values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(read(t, chart+"values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	// A parent chart passes global values to all of its charts, so the schema allows them.
	properties := schema["properties"].(map[string]any)
	delete(properties, "global")
	// The exporter checks its own configuration, so the schema contains only the keys that the chart sets.
	delete(properties["config"].(map[string]any), "properties")
	compareKeys(t, "", values, schema)
}

func compareKeys(t *testing.T, path string, values, schema map[string]any) {
	properties, closed := schema["properties"].(map[string]any)
	if !closed {
		return
	}
	if schema["additionalProperties"] != false {
		t.Errorf("%s: typos are not rejected", path)
	}
	for key, value := range values {
		property, declared := properties[key].(map[string]any)
		if !declared {
			t.Errorf("%s.%s is not in the schema", path, key)
			continue
		}
		if inner, ok := value.(map[string]any); ok {
			compareKeys(t, path+"."+key, inner, property)
		}
	}
	for key := range properties {
		if _, declared := values[key]; !declared {
			t.Errorf("%s.%s is not in values.yaml", path, key)
		}
	}
}
