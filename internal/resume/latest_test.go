package resume_test

import (
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/resume"
)

// A newest value is announced at the position that the client has. A client that has none is told no
// position, so that it doesn't present one.
func TestLatestLeavesThePosition(t *testing.T) {
	limits := &history.Limits{Messages: 1000, Bytes: 1 << 20, Age: time.Hour}
	s := resume.NewSession(resume.NewKey("", [][]byte{make([]byte, 32)}), "", nil, 0, limits)
	text := func(tag any) *frame.Message {
		m := frame.NewMessage(frame.Text, "x", false)
		m.Tag = tag
		return m
	}
	value := text(&resume.Latest{Room: 7, Key: "k"})
	for _, step := range []struct {
		m    *frame.Message
		want string // the announcement
	}{
		{&frame.Message{Tag: &resume.Enter{Room: 7, Name: "/a", Number: 1, Was: -1}}, ""},
		{value, "[[1]]"},
		{text(&history.Place{Room: 7, Number: 2, At: history.Position{Stream: 40}}), `[[1,0,"40"]]`},
		{value, `[[1,0,"40"]]`},
		{text(&history.Place{Room: 7, Number: 3, At: history.Position{Stream: 41}}), "1"}, // goes on
		{value, `[[1,0,"41"]]`},
		{text(&resume.Latest{Key: "k"}), "[[1]]"}, // to all
		{&frame.Message{Tag: &resume.Gap{Room: 7, Number: 9}}, ""},
		{value, "1"}, // goes on after the one to all
	} {
		got := string(s.Append(nil, []*frame.Message{step.m}, false))
		if announced := got[2:max(2, len(got)-3)]; step.want != "" && announced != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}
