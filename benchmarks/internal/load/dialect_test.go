package load

import "testing"

func TestWelcomeKeepsWhatComesBehindIt(t *testing.T) {
	f := &Fleet{dialect: SocketIO}
	open, connected := serverFrame(0x81, []byte(`0{"sid":"x"}`)), serverFrame(0x81, []byte(`40{"sid":"y"}`))
	for _, c := range []struct {
		name string
		in   []byte
		rest int
		ok   bool
	}{
		{"nothing yet", nil, 0, false},
		{"another packet", open, 0, false},
		{"a part of the answer", append(open[:len(open):len(open)], connected[:5]...), 5, false},
		{"the answer", append(open[:len(open):len(open)], connected...), 0, true},
		{"more behind it", append(connected[:len(connected):len(connected)], open[:3]...), 3, true},
	} {
		rest, ok, err := f.welcome(c.in)
		if len(rest) != c.rest || ok != c.ok || err != nil {
			t.Errorf("%s: %d bytes left, %t, %v; want %d, %t", c.name, len(rest), ok, err, c.rest, c.ok)
		}
	}
	if _, _, err := f.welcome([]byte{0x81, 0x80}); err == nil {
		t.Error("a masked frame went unnoticed")
	}
}
