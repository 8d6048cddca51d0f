// Package load_test runs the k6 script against hubs, right ones and wrong ones.
package load_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

type message struct {
	From string `json:"from"`
	N    int    `json:"n"`
	At   int64  `json:"at"`
	More bool   `json:"more"`
}

// The script passes a hub that does what it should, and fails one that loses or doubles messages, keeps members
// apart, or ends connections, each by its own threshold.
func TestK6FindsWhatIsWrong(t *testing.T) {
	k6, err := exec.LookPath("k6")
	if err != nil {
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal("k6 isn't installed: go install go.k6.io/k6@v1.8.1")
		}
		t.Skip("k6 isn't installed: go install go.k6.io/k6@v1.8.1")
	}
	relay := func(c *wsroom.Conn, m message, err error) {
		if err == nil {
			c.SendJSONToThisRoom(m)
		}
	}
	for name, hub := range map[string]*wsroom.Hub{
		"": wsroom.New(wsroom.OnJSON(relay)),
		"wsroom_heard": wsroom.New(wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err == nil {
				c.SendJSON(m) // to nobody else, as if each were on a node of its own
			}
		})),
		"wsroom_lost/the end": wsroom.New(wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err == nil && m.N > 3 {
				c.SendJSON(m)
				return
			}
			relay(c, m, err)
		})),
		"wsroom_lost": wsroom.New(wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if m.N != 3 {
				relay(c, m, err)
			}
		})),
		"wsroom_out_of_order": wsroom.New(wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if relay(c, m, err); m.N == 3 {
				relay(c, m, err)
			}
		})),
		"wsroom_failed": wsroom.New(wsroom.WithMaxConnsPer(wsroom.ByAddr, 3), wsroom.OnJSON(relay)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			threshold, _, _ := strings.Cut(name, "/")
			wsroomtest.CheckHub(t, hub)
			mux := http.NewServeMux()
			mux.Handle("GET /chat/{room}", hub)
			srv := httptest.NewServer(mux)
			t.Cleanup(srv.Close)

			cmd := exec.CommandContext(t.Context(), k6, "run", "--no-usage-report", "--summary-mode", "disabled", "--log-format", "json",
				"--vus", "6", "--iterations", "6", "-e", "URL="+"ws"+strings.TrimPrefix(srv.URL, "http")+"/chat/",
				"-e", "ROOMS=2", "-e", "SLOW=2000", "k6.js")
			cmd.WaitDelay = 5 * time.Second
			out, err := cmd.CombinedOutput()
			if threshold == "" && err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			crossed := ""
			for line := range strings.Lines(string(out)) {
				var entry struct{ Msg string }
				if json.Unmarshal([]byte(line), &entry) == nil && strings.Contains(entry.Msg, "thresholds on metrics") {
					crossed = entry.Msg
				}
			}
			if threshold != "" && !strings.Contains(crossed, threshold) {
				t.Errorf("%v; crossed: %s\n%s", err, crossed, out)
			}
		})
	}
}
