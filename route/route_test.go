package route_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/route"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// text is a message on the wire.
func text(s string) json.RawMessage { return json.RawMessage(s) }

type sum struct{ A, B int }

// reports are what OnError gets.
type reports struct {
	mu  sync.Mutex
	all []string
	err []error
}

func (p *reports) add(_ *wsroom.Conn, typ string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.err = append(p.all, typ+": "+err.Error()), append(p.err, err)
}

// take returns what was reported since it was called last.
func (p *reports) take() (all []string, err []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, err = p.all, p.err
	p.all, p.err = nil, nil
	return all, err
}

// newRouter has some handlers.
func newRouter(opts ...route.Option) *route.Router {
	r := route.New(opts...)
	route.Handle(r, "add", func(_ *wsroom.Conn, s sum) (int, error) { return s.A + s.B, nil })
	route.Handle(r, "fail", func(_ *wsroom.Conn, how string) (any, error) {
		switch how {
		case "shown":
			return nil, fmt.Errorf("around it: %w", &route.Error{Code: "full", Message: "the room is full"})
		case "code":
			return nil, &route.Error{Code: "full"}
		case "nil":
			return nil, (*route.Error)(nil)
		case "decode":
			return nil, &wsroom.DecodeError{Err: errors.New("hunter2")}
		case "peer":
			return nil, &route.PeerError{Code: "hunter2"}
		case "reply":
			return func() {}, nil
		}
		return nil, errors.New("hunter2")
	})
	route.On(r, "note", func(c *wsroom.Conn, s string) error { return c.SendText("noted " + s) })
	route.On(r, "refuse", func(c *wsroom.Conn, _ any) error { return &route.Error{Code: "no"} })
	return r
}

func dial(t *testing.T, r *route.Router, opts ...wsroom.Option) (*wsroomtest.Client, *wsroom.Conn) {
	t.Helper()
	hub := wsroomtest.CheckHub(t, wsroom.New(append(opts, r.OnJSON())...))
	return wsroomtest.Dial(t, hub, "/a"), kit.Member(t, hub, "/a")
}

// Each message gets to the handler of its type, decoded, and its reply has its id as it was.
func TestMessagesGetToTheirHandlers(t *testing.T) {
	client, _ := dial(t, newRouter())
	for _, tc := range []struct{ send, want string }{
		{`{"type":"add","id":1,"data":{"A":2,"B":3}}`, `{"id":1,"data":5}`},
		{`{"type":"add","id":"x 1","data":{"A":2}}`, `{"id":"x 1","data":2}`},
		{`{"type":"add","id":-1.5e3}`, `{"id":-1.5e3,"data":0}`},
		{`{"type":"add","data":{"A":2,"B":3}}`, ``},
		{`{"type":"add","id":null,"data":{"A":2,"B":3}}`, ``},
		{`{"type":"note","id":2,"data":"x"}`, "noted x"},
		{``, `{"id":2}`},
		{`{"type":"note","data":"y"}`, "noted y"},
		{`{"type":"note","id":null,"data":"z"}`, "noted z"},
	} {
		if tc.send != "" {
			client.SendText(tc.send)
		}
		switch {
		case strings.HasPrefix(tc.want, "{"):
			client.ExpectJSON(text(tc.want))
		case tc.want != "":
			client.ExpectText(tc.want)
		}
	}
	client.SendText(`{"type":"note","data":"the end"}`)
	client.ExpectText("noted the end")
}

// Only an *Error is shown. Of all others the client gets a code, and OnError the error.
func TestOnlyErrorsOfThatTypeAreShown(t *testing.T) {
	var got reports
	client, _ := dial(t, newRouter(route.OnError(got.add)))
	for _, tc := range []struct{ send, told, reported string }{
		{`{"type":"fail","id":1,"data":"shown"}`, `{"id":1,"error":{"code":"full","message":"the room is full"}}`, ""},
		{`{"type":"fail","id":1,"data":"code"}`, `{"id":1,"error":{"code":"full"}}`, ""},
		{`{"type":"fail","id":1,"data":"hidden"}`, `{"id":1,"error":{"code":"internal"}}`, "fail: hunter2"},
		{`{"type":"fail","id":1,"data":"decode"}`, `{"id":1,"error":{"code":"internal"}}`, "fail: wsroom: decode JSON: hunter2"},
		{`{"type":"fail","id":1,"data":"peer"}`, `{"id":1,"error":{"code":"internal"}}`, "fail: route: the client answers: hunter2"},
		{`{"type":"fail","id":1,"data":"reply"}`, `{"id":1,"error":{"code":"internal"}}`, "fail: wsroom: encode JSON: json: unsupported type: func()"},
		{`{"type":"refuse","id":1}`, `{"id":1,"error":{"code":"no"}}`, ""},
		{`{"type":"other","id":1}`, `{"id":1,"error":{"code":"unknown_type"}}`, "other: route: type has no handler"},
		{`{"type":["add"],"id":1}`, `{"id":1,"error":{"code":"unknown_type"}}`, ": route: type has no handler"},
		{`{"type":"add","id":1,"data":"x"}`, `{"id":1,"error":{"code":"bad_data"}}`, "add: wsroom: decode JSON: json: cannot unmarshal string into Go value of type route_test.sum"},
		// without an id nobody is told
		{`{"type":"fail","data":"shown"}`, "", "fail: around it: route: full: the room is full"},
		{`{"type":"fail","data":"hidden"}`, "", "fail: hunter2"},
		{`{"type":"other"}`, "", "other: route: type has no handler"},
	} {
		client.SendText(tc.send)
		if tc.told != "" {
			client.ExpectJSON(text(tc.told))
		}
		client.SendText(`{"type":"note","data":"end"}`)
		client.ExpectText("noted end")
		all, _ := got.take()
		if strings.Join(all, "\n") != tc.reported {
			t.Errorf("%s: reported %q, want %q", tc.send, all, tc.reported)
		}
	}

	client.SendText(`{"type":"fail","id":1,"data":"nil"}`) // a nil *Error has no text, either
	client.ExpectJSON(text(`{"id":1,"error":{"code":"internal"}}`))

	got.take()
	client.SendText(`{"type":"add","id":1,"data":[` + strings.Repeat("1,", 5000) + `1]}`)
	client.ExpectJSON(text(`{"id":1,"error":{"code":"bad_data"}}`))
	_, err := got.take()
	if bad := (*wsroom.DecodeError)(nil); len(err) != 1 || !errors.As(err[0], &bad) || len(bad.Message) != 4096 {
		t.Errorf("reported %v", err)
	}
}

// What isn't a message of this form is reported. It neither ends the connection nor reaches a handler.
func TestWhatIsNoMessageIsReported(t *testing.T) {
	var got reports
	client, _ := dial(t, newRouter(route.OnError(got.add)), wsroom.WithBadJSON(wsroom.KeepOpen))
	for _, bad := range []string{
		`{}`, `null`, `{"type":3}`, `{"type":null}`, `{"type":"add","id":{}}`, `{"type":"add","id":true}`, `{"type":"add","id":[]}`,
		`{"type":"add","id":"` + strings.Repeat("x", 63) + `"}`, `[]`, `3`, `x`,
	} {
		client.SendText(bad)
		client.SendText(`{"type":"note","data":"end"}`)
		client.ExpectText("noted end")
		if all, _ := got.take(); len(all) != 1 || !strings.HasPrefix(all[0], ": ") {
			t.Errorf("%s: reported %q", bad, all)
		}
	}
	for _, late := range []string{`{"id":1}`, `{"id":"x","data":1}`, `{"id":-1}`, `{"id":1e99,"error":"x"}`} {
		client.SendText(late) // nobody has asked
		client.SendText(`{"type":"note","data":"end"}`)
		client.ExpectText("noted end")
		if all, _ := got.take(); len(all) != 0 {
			t.Errorf("%s: reported %q", late, all)
		}
	}
}

// Bad JSON is the hub's affair.
func TestBadJSONEndsTheConnection(t *testing.T) {
	client, _ := dial(t, newRouter())
	client.SendText("x")
	client.ExpectClose(websocket.StatusInvalidFramePayloadData)
}

// The application chooses the names of all fields, in both directions.
func TestFieldsHaveTheApplicationsNames(t *testing.T) {
	r := newRouter(route.WithFields(route.Fields{Type: "event", ID: "ref", Data: "payload", Error: "err", Code: "no", Message: "text"}))
	client, c := dial(t, r)
	client.SendText(`{"event":"add","ref":1,"payload":{"A":1,"B":1}}`)
	client.ExpectJSON(text(`{"ref":1,"payload":2}`))
	client.SendText(`{"event":"fail","ref":1,"payload":"shown"}`)
	client.ExpectJSON(text(`{"ref":1,"err":{"no":"full","text":"the room is full"}}`))
	c.SendJSON(r.Message("said", 3))
	client.ExpectJSON(text(`{"event":"said","payload":3}`))

	answers := make(chan error, 1)
	go func() { _, err := route.Call[int](t.Context(), r, c, "how many", nil); answers <- err }()
	client.ExpectJSON(text(`{"event":"how many","ref":1,"payload":null}`))
	client.SendText(`{"ref":1,"err":{"no":"busy","text":"later"}}`)
	if err := kit.Await(t, answers, "the answer"); !errors.Is(err, err.(*route.PeerError)) || err.Error() != "route: the client answers: busy: later" {
		t.Error(err)
	}
}

// The server asks, the client answers: each question gets its own answer, in whatever order they come.
func TestCallReturnsTheAnswer(t *testing.T) {
	r := newRouter()
	client, c := dial(t, r)
	type result struct {
		n   sum
		err error
	}
	ask := func() chan result {
		ch := make(chan result, 1)
		go func() {
			n, err := route.Call[sum](t.Context(), r, c, "give", "x")
			ch <- result{n, err}
		}()
		return ch
	}
	first := ask()
	client.ExpectJSON(text(`{"type":"give","id":1,"data":"x"}`))
	second := ask()
	client.ExpectJSON(text(`{"type":"give","id":2,"data":"x"}`))
	client.SendText(`{"id":2,"data":{"A":2}}`)
	if got := kit.Await(t, second, "the second answer"); got.err != nil || got.n.A != 2 {
		t.Error(got)
	}
	client.SendText(`{"id":2,"data":{"A":3}}`) // once more
	client.SendText(`{"id":1,"data":{"A":1}}`)
	if got := kit.Await(t, first, "the first answer"); got.err != nil || got.n.A != 1 {
		t.Error(got)
	}
	for i, tc := range []struct{ answer, want string }{
		{`"data":null`, ""},
		{`"error":null`, ""},
		{``, ""},
		{`"data":{"B":1,"A":"x"}`, "wsroom: decode JSON: json: cannot unmarshal string into Go struct field sum.A of type int"},
		{`"error":{"code":"busy"},"data":{"A":1}`, "route: the client answers: busy"},
		{`"error":"in a word"`, "route: the client answers: : in a word"},
		{`"error":{"code":3}`, "route: the client answers: "},
	} {
		id := 3 + i
		asked := ask()
		client.ExpectJSON(text(fmt.Sprintf(`{"type":"give","id":%d,"data":"x"}`, id)))
		if tc.answer != "" {
			tc.answer = "," + tc.answer
		}
		client.SendText(fmt.Sprintf(`{"id":%d%s}`, id, tc.answer))
		got := kit.Await(t, asked, "an answer")
		if problem := fmt.Sprint(got.err); got.n != (sum{}) || got.err != nil && problem != tc.want || got.err == nil && tc.want != "" {
			t.Errorf("%s: %v, %v", tc.answer, got.n, got.err)
		}
	}
}

// At most 64 questions wait for one client. When the connection ends they all end, with its cause.
func TestAnEndTakesAllQuestionsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(route.WithTimeout(time.Hour))
		client, c := dial(t, r, wsroom.WithHeartbeat(0, 0))
		errs := make(chan error, 64)
		ask := func() { _, err := route.Call[int](t.Context(), r, c, "give", nil); errs <- err }
		for range 64 {
			go ask()
		}
		synctest.Wait()
		if _, err := route.Call[int](t.Context(), r, c, "give", nil); err != route.ErrTooManyCalls {
			t.Errorf("the 65th: %v", err)
		}
		client.SendText(`{"id":17,"data":1}`)
		if err := <-errs; err != nil {
			t.Error(err)
		}
		go ask() // there is room for one more
		synctest.Wait()

		begin := time.Now()
		c.Close(4000, "enough")
		for range 64 {
			if err, closed := <-errs, (websocket.CloseError{}); !errors.As(err, &closed) || closed.Code != 4000 {
				t.Errorf("it ended with %v", err)
			}
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("they waited for %v", took)
		}
		if _, err := route.Call[int](t.Context(), r, c, "give", nil); !errors.Is(err, wsroom.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		client.ExpectClose(4000)
	})
}

// A question without an answer ends by its context or by the Router's time. Then it doesn't count any more.
func TestQuestionsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter()
		client, c := dial(t, r, wsroom.WithHeartbeat(0, 0))
		begin := time.Now()
		var asked sync.WaitGroup
		for range 64 {
			asked.Go(func() {
				if _, err := route.Call[int](t.Context(), r, c, "give", nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it ended with %v", err)
				}
			})
		}
		asked.Wait()
		kit.WantBetween(t, "ended", time.Since(begin), 10*time.Second, 10*time.Second)
		client.SendText(`{"id":1,"data":1}`) // late

		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(enough) })
		begin = time.Now()
		if _, err := route.Call[int](ctx, r, c, "give", nil); !errors.Is(err, enough) {
			t.Errorf("it ended with %v", err)
		}
		kit.WantBetween(t, "ended", time.Since(begin), 3*time.Second, 3*time.Second)
	})
}

// A handler can't wait for an answer of its own client, and is told so at once. It may ask another client,
// and a goroutine that it starts may ask its own.
func TestAskingInAHandlerFailsAtOnce(t *testing.T) {
	r := newRouter()
	var bob *wsroom.Conn
	later, asked := make(chan error, 1), make(chan struct{})
	route.Handle(r, "ask", func(c *wsroom.Conn, whom string) (string, error) {
		switch whom {
		case "bob":
			return route.Call[string](c.Context(), r, bob, "name", nil)
		case "later":
			go func() { _, err := route.Call[string](c.Context(), r, c, "name", nil); later <- err }()
			<-asked // the handler still runs
			return "", nil
		}
		_, err := route.Call[string](c.Context(), r, c, "name", nil)
		return fmt.Sprint(err == route.ErrInHandler), nil
	})
	hub := wsroomtest.CheckHub(t, wsroom.New(r.OnJSON(), wsroom.WithRoom(wsroom.ByPath)))
	ann, other := wsroomtest.Dial(t, hub, "/ann"), wsroomtest.Dial(t, hub, "/bob")
	bob = kit.Member(t, hub, "/bob")

	ann.SendText(`{"type":"ask","id":1,"data":"ann"}`)
	ann.ExpectJSON(text(`{"id":1,"data":"true"}`))
	ann.SendText(`{"type":"ask","id":2,"data":"bob"}`)
	other.ExpectJSON(text(`{"type":"name","id":1,"data":null}`))
	other.SendText(`{"id":1,"data":"Bob"}`)
	ann.ExpectJSON(text(`{"id":2,"data":"Bob"}`))
	ann.SendText(`{"type":"ask","id":3,"data":"later"}`)
	ann.ExpectJSON(text(`{"type":"name","id":1,"data":null}`))
	close(asked)
	ann.ExpectJSON(text(`{"id":3,"data":""}`))
	ann.SendText(`{"id":1,"data":"Ann"}`)
	if err := kit.Await(t, later, "the answer"); err != nil {
		t.Error(err)
	}
}

// Once a handler has returned, its goroutine is one like any other.
func TestAHandlersGoroutineMayAskAfterIt(t *testing.T) {
	r := newRouter()
	route.On(r, "join", func(c *wsroom.Conn, room string) error { return c.Join(room) })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	errs := make(chan error, 2)
	client, _ := dial(t, r, wsroom.OnJoin(func(c *wsroom.Conn, room string) {
		_, err := route.Call[int](over, r, c, "give", nil)
		errs <- err
	}))
	client.SendText(`{"type":"join","data":"b"}`)
	for range 2 {
		if err := kit.Await(t, errs, "OnJoin"); !errors.Is(err, context.Canceled) {
			t.Errorf("Call: %v", err)
		}
	}
}

// An answer that comes twice at once is one.
func TestAnswersCountOnce(t *testing.T) {
	r := newRouter()
	client, c := dial(t, r)
	for id := range 200 {
		answers := make(chan error, 1)
		go func() { _, err := route.Call[int](t.Context(), r, c, "give", nil); answers <- err }()
		client.NextText()
		answer := fmt.Sprintf(`{"id":%d,"data":1}`, id+1)
		for range 5 {
			client.SendText(answer)
		}
		if err := kit.Await(t, answers, "the answer"); err != nil {
			t.Fatal(err)
		}
	}
}

// A handler that panics ends its connection, as every callback does, and leaves no trace with the next one.
func TestAPanicEndsTheConnection(t *testing.T) {
	r := newRouter()
	route.On(r, "panic", func(*wsroom.Conn, any) error { panic("boom") })
	client, _ := dial(t, r)
	client.SendText(`{"type":"panic"}`)
	client.ExpectClose(websocket.StatusInternalError)
}

// Mistakes show when the program starts.
func TestMistakesPanic(t *testing.T) {
	ok := func(*wsroom.Conn, int) error { return nil }
	for what, f := range map[string]func(){
		"two handlers":          func() { r := route.New(); route.On(r, "x", ok); route.On(r, "x", ok) },
		"no type":               func() { route.On(route.New(), "", ok) },
		"no function":           func() { route.On[int](route.New(), "x", nil) },
		"no function of Handle": func() { route.Handle[int, int](route.New(), "x", nil) },
		"after OnJSON":          func() { r := route.New(); r.OnJSON(); route.On(r, "x", ok) },
		"one name twice":        func() { route.New(route.WithFields(route.Fields{Type: "id"})) },
		"code and message":      func() { route.New(route.WithFields(route.Fields{Code: "message"})) },
		"no time":               func() { route.New(route.WithTimeout(0)) },
		"no decoder":            func() { route.New(route.WithUnmarshal(nil)) },
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "route: ") {
					t.Errorf("%s: %v", what, v)
				}
			}()
			f()
		}()
	}
	route.New(nil, route.WithFields(route.Fields{Code: "type", Message: "id"})) // within an error they are free
}

// WithUnmarshal decodes the data, of messages and of answers.
func TestUnmarshalIsTheApplications(t *testing.T) {
	strict := func(p []byte, v any) error {
		if strings.Contains(string(p), "C") {
			return errors.New("a field too many")
		}
		return json.Unmarshal(p, v)
	}
	client, _ := dial(t, newRouter(route.WithUnmarshal(strict)))
	client.SendText(`{"type":"add","id":1,"data":{"A":1,"C":3}}`)
	client.ExpectJSON(text(`{"id":1,"error":{"code":"bad_data"}}`))
}

// Package route stands on the public API: it imports no package of wsroom's below internal but the one that
// tells goroutines apart.
func TestRouteUsesThePublicAPIAlone(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil || len(paths) < 2 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if strings.Contains(imported, "/internal/") && !strings.HasSuffix(imported, "/internal/goroutine") {
				t.Errorf("%s imports %s", path, imported)
			}
		}
	}
}

// Whatever a client sends, the next message is handled, unless it is no JSON.
func FuzzMessages(f *testing.F) {
	for _, s := range []string{`{"type":"add","id":1,"data":{"A":2,"B":3}}`, `{"id":1,"error":{"code":"x"}}`, `{"type":"note"}`, `[]`, `{"id":"\ud800"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := newRouter()
		client, _ := dial(t, r, wsroom.WithBadJSON(wsroom.KeepOpen), wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return nil }))
		client.SendText(strings.ToValidUTF8(s, ""))
		client.SendText(`{"type":"note","data":"the very end"}`)
		for client.NextText() != "noted the very end" {
		}
	})
}
