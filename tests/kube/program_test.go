package kube

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
)

const (
	// timeout is for operations that usually take a second.
	timeout = 30 * time.Second
	// configDirectory and stateDirectory are the directories in the image where pods mount volumes.
	configDirectory = "/etc/elements_exporter"
	stateDirectory  = "/var/lib/elements_exporter"
)

func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("EXPORTER_TEST_PROGRAM")
	if path == "" {
		t.Skip("EXPORTER_TEST_PROGRAM is not set; run tests/kube/run")
	}
	return path
}

// start runs the program until the test ends. It returns the command and its standard output, and prints the log if the
// test fails.
func start(t *testing.T, environment []string, arguments ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, program(t), arguments...)
	command.Env = environment
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
	return command, output
}

// simulate starts a simulated partner with a few customers, and returns its URL.
func simulate(t *testing.T) string {
	t.Helper()
	_, output := start(t, []string{}, "simulate", "--simulator.listen-address=127.0.0.1:0", "--simulator.customers=3")
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`http://[0-9.:]+`).FindString(line)
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// project writes a volume's files atomically, in the same way as the kubelet: each file is a link into a directory that
// is itself a link.
func project(t *testing.T, directory string, files map[string]string) {
	t.Helper()
	version, err := os.MkdirTemp(directory, "..version")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(version, name), []byte(text), 0o440); err != nil {
			t.Fatal(err)
		}
		_ = os.Symlink("..data/"+name, filepath.Join(directory, name))
	}
	if err := os.Symlink(filepath.Base(version), filepath.Join(directory, "..next")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(directory, "..next"), filepath.Join(directory, "..data")); err != nil {
		t.Fatal(err)
	}
}

// secretFiles returns the files of a Secret that operators create.
func secretFiles(t *testing.T, volume *core.SecretVolumeSource, secret string) map[string]string {
	t.Helper()
	if len(volume.Items) == 0 {
		web := read(t, "deploy/config/web.yml")
		if volume.SecretName == "elements-tls" {
			web = "tls_server_config: {cert_file: server.pem, key_file: server-key.pem}\n"
		}
		return map[string]string{
			"web.yml":        web,
			"server.pem":     read(t, "tests/fixtures/web/server.pem"),
			"server-key.pem": read(t, "tests/fixtures/web/server-key.pem"),
		}
	}
	files := map[string]string{}
	for _, item := range volume.Items {
		switch {
		case strings.HasPrefix(item.Key, "client_secret"):
			files[item.Path] = secret + "\n"
		case item.Key == "certificate.pem":
			files[item.Path] = read(t, "tests/fixtures/simulator/client.pem")
		case item.Key == "key.pem":
			files[item.Path] = read(t, "tests/fixtures/simulator/client-key.pem")
		default:
			t.Fatalf("unexpected key %s", item.Key)
		}
	}
	return files
}

// pod runs a pod of a rendering as a local process with local files.
type pod struct {
	directory string
	address   string
	// base is the exporter's URL, including the route prefix.
	base      string
	arguments []string
	container core.Container
	volumes   map[string]*core.SecretVolumeSource
}

func (p *pod) localPaths(text string) string {
	text = strings.ReplaceAll(text, configDirectory, filepath.Join(p.directory, "etc"))
	return strings.ReplaceAll(text, stateDirectory, filepath.Join(p.directory, "state"))
}

// run creates a pod's volumes, and starts the program with the pod's arguments and environment.
func run(t *testing.T, r rendering, index int, api, secret string) *pod {
	t.Helper()
	w := r.workload(t)
	p := &pod{
		directory: t.TempDir(),
		address:   freePort(t),
		container: w.container(),
		volumes:   map[string]*core.SecretVolumeSource{},
	}
	p.base = "http://" + p.address
	if r.servesTLS() {
		p.base = "https://" + p.address
	}
	for _, argument := range p.container.Args {
		if prefix, ok := strings.CutPrefix(argument, "--web.route-prefix="); ok {
			p.base += prefix
		}
	}
	mounts := map[string]string{}
	for _, mount := range p.container.VolumeMounts {
		mounts[mount.Name] = p.localPaths(mount.MountPath)
		if err := os.MkdirAll(mounts[mount.Name], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, volume := range w.template.Spec.Volumes {
		switch {
		case volume.Secret != nil:
			p.volumes[volume.Name] = volume.Secret
			project(t, mounts[volume.Name], secretFiles(t, volume.Secret, secret))
		case volume.ConfigMap != nil:
			files := map[string]string{}
			for _, configMap := range r.configMaps {
				if configMap.Name == volume.ConfigMap.Name {
					for name, text := range configMap.Data {
						// The simulated partner has only one app registration.
						files[name] = p.localPaths(regexp.MustCompile(`client_id: demo-\d+`).ReplaceAllString(text, "client_id: demo"))
					}
				}
			}
			project(t, mounts[volume.Name], files)
		}
	}
	environment := []string{"ELEMENTS_API__BASE_URL=" + api, "ELEMENTS_API__TOKEN_URL=" + api + "/connect/token"}
	for _, variable := range p.container.Env {
		switch from := variable.ValueFrom; {
		case from == nil:
			environment = append(environment, variable.Name+"="+variable.Value)
		case from.SecretKeyRef != nil && from.SecretKeyRef.Key == "client_id":
			environment = append(environment, variable.Name+"=demo")
		}
	}
	for _, argument := range p.container.Args {
		p.arguments = append(p.arguments, p.localPaths(expand(p.container, argument, index)))
	}
	start(t, environment, append(p.arguments, "--web.listen-address="+p.address)...)
	return p
}

var client = http.Client{
	Timeout:   5 * time.Second,
	Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
}

func (p *pod) get(path string) (int, string) {
	return get(p.base + path)
}

func get(url string) (int, string) {
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// probe runs one of the container's probes as the kubelet does.
func (p *pod) probe(probe *core.Probe) error {
	switch {
	case probe.HTTPGet != nil:
		if code, text := get("http://" + p.address + probe.HTTPGet.Path); code != http.StatusOK {
			return fmt.Errorf("%s: %d %s", probe.HTTPGet.Path, code, text)
		}
	case probe.TCPSocket != nil:
		connection, err := net.Dial("tcp", p.address)
		if err != nil {
			return err
		}
		return connection.Close()
	case probe.Exec != nil:
		var arguments []string
		for _, argument := range probe.Exec.Command[1:] {
			arguments = append(arguments, p.localPaths(argument))
		}
		arguments = append(arguments, "--web.listen-address="+p.address)
		command := exec.Command(os.Getenv("EXPORTER_TEST_PROGRAM"), arguments...)
		command.Env = []string{}
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %s", err, output)
		}
	}
	return nil
}

func eventually(t *testing.T, what string, test func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = test(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestProgramStartsWithThePodConfiguration(t *testing.T) {
	program(t)
	api := simulate(t)
	eachRendering(t, func(t *testing.T, r rendering) {
		for index := range int(r.workload(t).replicas) {
			p := run(t, r, index, api, "demo-secret")
			eventually(t, "alive", func() error { return p.probe(p.container.LivenessProbe) })
			eventually(t, "ready", func() error { return p.probe(p.container.ReadinessProbe) })
		}
	})
}

func TestSecretIsRotatedWithoutARestart(t *testing.T) {
	refusal := regexp.MustCompile(`(?m)^elements_exporter_token_failures_total\{reason="invalid_client"\} [1-9]`)
	program(t)
	api := simulate(t)
	for _, r := range renderings(t) {
		if !slices.Contains([]string{"kustomize-plain", "helm-plain", "helm-tls"}, r.name) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			p := run(t, r, 0, api, "of yesterday")
			eventually(t, "the token request is rejected", func() error {
				code, text := p.get("/metrics")
				if code != http.StatusOK || !refusal.MatchString(text) {
					return fmt.Errorf("%d", code)
				}
				return nil
			})
			if err := p.probe(p.container.ReadinessProbe); err == nil {
				t.Error("the pod is ready without a token")
			}
			if err := p.probe(p.container.LivenessProbe); err != nil {
				t.Error(err)
			}
			project(t, p.localPaths(configDirectory+"/secret"), secretFiles(t, p.volumes["secret"], "demo-secret"))
			eventually(t, "ready", func() error { return p.probe(p.container.ReadinessProbe) })
			if _, text := p.get("/metrics"); !strings.Contains(text, "\nelements_up 1\n") {
				t.Error("elements_up is not 1")
			}
		})
	}
}
