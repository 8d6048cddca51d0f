package main

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/redistest"
	"github.com/wsroom/wsroom/wsroomtest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// manifests are those of the page on Kubernetes.
type manifests struct {
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
	ingress    networkingv1.Ingress
}

// readManifests reads the page's YAML as strictly as the API server does: no field may be unknown.
func readManifests(t *testing.T) (m manifests) {
	t.Helper()
	page, err := os.ReadFile("../kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	documents := strings.Split(text, "---\n")
	into := []any{&m.deployment, &m.service, &m.budget, &m.ingress}
	if len(documents) != len(into) {
		t.Fatalf("%d documents", len(documents))
	}
	for i, document := range documents {
		if err := yaml.UnmarshalStrict([]byte(document), into[i]); err != nil {
			t.Fatalf("document %d: %v", i, err)
		}
	}
	return m
}

// The manifests belong together, and their times fit those of the program.
func TestManifests(t *testing.T) {
	m := readManifests(t)
	pod := m.deployment.Spec.Template
	c := pod.Spec.Containers[0]
	for what, selector := range map[string]map[string]string{
		"deployment": m.deployment.Spec.Selector.MatchLabels, "service": m.service.Spec.Selector, "budget": m.budget.Spec.Selector.MatchLabels,
	} {
		for key, value := range selector {
			if pod.Labels[key] != value {
				t.Errorf("the %s selects %s=%s, and pods have %q", what, key, value, pod.Labels[key])
			}
		}
	}
	backend := m.ingress.Spec.Rules[0].HTTP.Paths[0].Backend.Service
	if backend.Name != m.service.Name || backend.Port.Name != m.service.Spec.Ports[0].Name {
		t.Errorf("the ingress leads to %s:%s", backend.Name, backend.Port.Name)
	}
	if target := m.service.Spec.Ports[0].TargetPort.StrVal; target != c.Ports[0].Name {
		t.Errorf("the service leads to port %s", target)
	}
	for what, probe := range map[string]*corev1.Probe{"readiness": c.ReadinessProbe, "startup": c.StartupProbe} {
		if probe.HTTPGet.Port.StrVal != c.Ports[0].Name {
			t.Errorf("the %s probe asks port %s", what, probe.HTTPGet.Port.String())
		}
	}

	const rest = 10 * time.Second // the program's own
	lag, drain := argument(t, c, "lag"), argument(t, c, "drain")
	if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= lag+drain+rest {
		t.Errorf("killed after %v, and the program needs up to %v", grace, lag+drain+rest)
	}
	probe := c.ReadinessProbe
	if notices := time.Duration(probe.PeriodSeconds*probe.FailureThreshold) * time.Second; notices > lag || c.Lifecycle != nil {
		t.Errorf("the probe notices within %v, the lag is %v, and the hooks are %v", notices, lag, c.Lifecycle)
	}
	if c.LivenessProbe != nil || time.Duration(m.deployment.Spec.MinReadySeconds)*time.Second < drain {
		t.Error("a busy hub is restarted, or the next pod goes while clients still move")
	}
}

// argument returns the value of a flag that the manifest gives to the program.
func argument(t *testing.T, c corev1.Container, name string) time.Duration {
	t.Helper()
	for _, arg := range c.Args {
		if value, ok := strings.CutPrefix(arg, "-"+name+"="); ok {
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatalf("no -%s among %q", name, c.Args)
	return 0
}

// The program takes the manifest's arguments, and answers its probes as the page says: 200 while it runs, and 503 from
// SIGTERM on, while clients are still served. All times are a tenth of the manifest's. A second pod has the same rooms.
func TestProgramRunsAsTheManifestSays(t *testing.T) {
	c := readManifests(t).deployment.Spec.Template.Spec.Containers[0]
	redis := redistest.Start(t)
	var args []string
	for _, arg := range c.Args {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		switch name {
		case "lag", "drain":
			args = append(args, "-"+name+"="+(argument(t, c, name)/10).String())
		case "redis":
			args = append(args, "-redis="+redis.Addr)
		case "addr": // start has its own
			if arg != "-addr=:8080" || c.Ports[0].ContainerPort != 8080 {
				t.Errorf("the port is %d, and the argument %s", c.Ports[0].ContainerPort, arg)
			}
		default:
			args = append(args, arg)
		}
	}
	cmd, url := start(t, args...)
	for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.StartupProbe} {
		if got := status(t, url+probe.HTTPGet.Path); got != http.StatusOK {
			t.Errorf("%s: %d", probe.HTTPGet.Path, got)
		}
	}
	_, second := start(t, args...)
	client := wsroomtest.Dial(t, nil, url+"/chat/general", wsroomtest.WithTimeout(patience))
	other := wsroomtest.Dial(t, nil, second+"/chat/general", wsroomtest.WithTimeout(patience))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); status(t, url+c.ReadinessProbe.HTTPGet.Path) != http.StatusServiceUnavailable; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it stays ready")
		}
	}
	client.SendText("still here")
	client.ExpectText("still here")
	other.ExpectText("still here")
	client.ExpectClose(websocket.StatusServiceRestart)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended by %v", err)
	}
}
