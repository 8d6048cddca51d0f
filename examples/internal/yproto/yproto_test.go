package yproto

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What the packages y-protocols 1.0.7 and yjs 13.6.33 make.
func TestMessages(t *testing.T) {
	for _, c := range []struct {
		p    string
		kind Kind
		data string
	}{
		{"\x00\x00\x01\x00", AskDocument, "\x00"},
		{"\x00\x01\x02\x00\x00", Document, Nothing},
		{"\x00\x02\x02\x00\x00", Change, Nothing},
		{"\x00\x02\x80\x01" + strings.Repeat("x", 128), Change, strings.Repeat("x", 128)},
		{"\x01\x05\x01\x07\x02\x01{", Awareness, "\x01\x07\x02\x01{"},
		{"\x03", AskAwareness, ""},
	} {
		kind, data, err := Parse([]byte(c.p))
		if kind != c.kind || data != c.data || err != nil {
			t.Errorf("%q is read as %v, %q, %v", c.p, kind, data, err)
		}
		if p := Message(c.kind, c.data); string(p) != c.p {
			t.Errorf("%q is written as %q", c.p, p)
		}
	}
}

func TestPeople(t *testing.T) {
	ada, bob := Person{7, 300, `{"user":"Ada"}`}, Person{1 << 40, 0, "null"}
	_, one, _ := Parse(ada.Message())
	_, other, _ := Parse(bob.Message())
	people, err := People("\x02" + one[1:] + other[1:])
	if err != nil || !slices.Equal(people, []Person{ada, bob}) {
		t.Errorf("%v, %v", people, err)
	}
}

func TestBadMessages(t *testing.T) {
	for _, p := range []string{
		"", "\x00", "\x00\x00", "\x00\x03\x00", "\x00\x01\x02\x00", "\x01", "\x01\x02x", "\x02\x00", "\x04", "\x80",
		"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x00\x02\xff\xff\xff\xff\xff\xff\xff\x0f",
	} {
		if kind, data, err := Parse([]byte(p)); err == nil {
			t.Errorf("%q is read as %v, %q", p, kind, data)
		}
	}
	for _, p := range []string{
		"\x01", "\x01\x07\x02", "\x01\x07\x02\x02{", "\x01\x07\x02\x01{", "\x01\x07\x02\x03\"\xff\"", "\xff\xff\xff\xff\x0f",
		"\x02\x07\x02\x04null", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x02\x04null",
	} {
		if people, err := People(p); err == nil {
			t.Errorf("%q is read as %v", p, people)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(Message(Change, Nothing))
	f.Add(Message(AskAwareness, ""))
	f.Add(Person{7, 300, `{"user":"Ada"}`}.Message())
	f.Fuzz(func(t *testing.T, p []byte) {
		kind, data, err := Parse(p)
		if err != nil {
			return
		}
		again := Message(kind, data)
		if k, d, err := Parse(again); k != kind || d != data || err != nil || len(again) > len(p) {
			t.Errorf("%q is written as %q", p, again)
		}
		if kind != Awareness {
			return
		}
		people, err := People(data)
		if err != nil {
			return
		}
		for _, person := range people {
			_, data, _ := Parse(person.Message())
			if one, err := People(data); err != nil || !reflect.DeepEqual(one, []Person{person}) {
				t.Errorf("%v is read as %v, %v", person, one, err)
			}
		}
	})
}
