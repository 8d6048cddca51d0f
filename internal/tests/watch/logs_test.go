package watch_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// logLine is a row of docs/logs.md, or what was logged under its message.
type logLine struct {
	level      string
	attributes []string // sorted
}

// documentedLogs are the rows of docs/logs.md by message.
func documentedLogs(t *testing.T) map[string]logLine {
	t.Helper()
	page, err := os.ReadFile("../../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]logLine{}
	row := regexp.MustCompile("(?m)^\\| `(wsroom: [^`]+)` \\| (\\w+) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		lines[m[1]] = logLine{m[2], slices.Sorted(slices.Values(strings.Split(m[3], ", ")))}
	}
	return lines
}

// sources are the Go files of the root and of the packages below internal that are of its module, without tests.
func sources(t *testing.T) []string {
	t.Helper()
	var sources []string
	for _, dir := range []string{"../../..", "../../*"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, files...)
	}
	return slices.DeleteFunc(sources, func(file string) bool {
		dir := filepath.Dir(file)
		_, err := os.Stat(dir + "/go.mod")
		return strings.HasSuffix(file, "_test.go") || err == nil && dir != "../../.."
	})
}

// Every message that the source logs is in docs/logs.md, with its level, and no other.
func TestEveryLogMessageIsDocumented(t *testing.T) {
	levels := map[string]string{}
	for _, file := range sources(t) {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if message, level := logCall(n); message != "" {
				levels[message] = level
			}
			return true
		})
	}
	documented := documentedLogs(t)
	for message, level := range levels {
		if documented[message].level != level {
			t.Errorf("%q is logged as %s, and documented as %q", message, level, documented[message].level)
		}
	}
	if len(levels) != len(documented) {
		t.Errorf("%d messages are logged, %d documented", len(levels), len(documented))
	}
}

// logCall returns what a call of a slog.Logger says, "" if it is none.
func logCall(n ast.Node) (message, level string) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", ""
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name) {
		return "", ""
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		return "", ""
	}
	message, _ = strconv.Unquote(literal.Value)
	return message, strings.ToLower(method.Sel.Name)
}

// failingStore is a PresenceStore that is away.
type failingStore struct{ wsroom.PresenceStore }

func (failingStore) Renew(context.Context, string, time.Duration) (bool, map[string][]string, error) {
	return false, nil, errors.New("away")
}

// faults are triggers of what only the log can report.
func faults() []trigger {
	someone := wsroom.WithIdentity(func(*http.Request) string { return "ann" })
	stays := func(c *kit.RawConn, _ *wsroom.Hub) { time.Sleep(time.Second) }
	stubborn := kit.NewWire()
	stubborn.Set(func(_ string, data []byte) (int, error) {
		if data != nil {
			return 0, kit.ErrDown
		}
		return 1, nil
	})
	return []trigger{
		onConn("", stays, wsroom.OnText(kit.DiscardText), wsroom.OnJSON(func(*wsroom.Conn, int, error) {})),
		onRequest("", kit.UpgradeRequest("/a?token=SECRET"), noSetup, kit.Deny(500)),
		onConn("", stays, someone, wsroom.OnMemberJoin(func(string, wsroom.Member) { panic("boom") })),
		onConn("", stays, someone, wsroom.WithPresenceStore(failingStore{})),
		onConn("", func(c *kit.RawConn, hub *wsroom.Hub) {
			go c.CloseFrame()
			hub.SendTextToAll("SECRET")
			ctx, cancel := context.WithTimeout(c.T.Context(), time.Second)
			defer cancel()
			hub.Shutdown(ctx)
		}, wsroom.WithBroker(stubborn)),
		onConn("", func(_ *kit.RawConn, hub *wsroom.Hub) { hub.To("/a").Join("b") }, wsroom.WithMaxRooms(1)),
		{"", nil, func(s *kit.PipeServer, hub *wsroom.Hub) {
			defer func() { _ = recover() }() // hangs up
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(kit.UpgradeRequest("/a?token=SECRET"))))
			if err != nil {
				s.T.Fatal(err)
			}
			hub.ServeHTTP(&kit.NoHijack{ResponseWriter: httptest.NewRecorder()}, r)
		}},
	}
}

// Every logged line is in docs/logs.md, with the attributes that are listed there; each row is logged; and what a
// callback or a return value reports isn't logged.
func TestOnlyFaultsAreLogged(t *testing.T) {
	documented := documentedLogs(t)
	logged := map[string]map[string]bool{} // attributes by message
	for _, h := range slices.Concat(endings(), drops(), refusalsOfRequests(), limitsOfHub(), brokerFaults(), faults()) {
		var b kit.LockedBuffer
		newHub := func() *wsroom.Hub {
			return wsroom.New(append(h.opts, wsroom.WithLogger(slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))))...)
		}
		kit.InBubble(t, newHub, func(_ *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			h.do(s, hub)
			synctest.Wait()
		})
		seen, refusals := map[string]bool{}, 0
		for line := range strings.Lines(b.String()) {
			what := note(t, documented, logged, line)
			if strings.HasPrefix(what, "wsroom: request refused ") {
				refusals++
				continue
			}
			if seen[what] {
				t.Errorf("%s: logged again: %s", h.counts, what)
			}
			seen[what] = true
		}
		if strings.HasPrefix(h.counts, "refused ") != (refusals > 0) && h.counts != "" {
			t.Errorf("%s: %d lines tell of a refusal", h.counts, refusals)
		}
		fault := regexp.MustCompile("^$|panic|hijack|broker|refused identity").MatchString(h.counts) && h.counts != "refused panic"
		if (len(seen) > 0) != fault || strings.Contains(b.String(), "SECRET") {
			t.Errorf("%s: logged %q", h.counts, b.String())
		}
	}
	for message, row := range documented {
		if got := slices.Sorted(maps.Keys(logged[message])); !slices.Equal(got, row.attributes) {
			t.Errorf("%q has the attributes %q, documented are %q", message, got, row.attributes)
		}
	}
}

// note adds a line's attributes to those of its message, and returns its message and room.
func note(t *testing.T, documented map[string]logLine, logged map[string]map[string]bool, line string) string {
	t.Helper()
	var attributes map[string]any
	if err := json.Unmarshal([]byte(line), &attributes); err != nil {
		t.Fatal(err)
	}
	message := attributes["msg"].(string)
	if want := strings.ToUpper(documented[message].level); attributes["level"] != want {
		t.Errorf("%q is logged as %v, not %s", message, attributes["level"], want)
	}
	if logged[message] == nil {
		logged[message] = map[string]bool{}
	}
	for name := range attributes {
		if name != "msg" && name != "level" && name != "time" {
			logged[message][name] = true
		}
	}
	return fmt.Sprint(message, " ", attributes["room"])
}
