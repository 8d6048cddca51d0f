package server

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func TestResidentOf(t *testing.T) {
	const status = "Name:\tbench\nVmRSS:\t   20000 kB\nRssAnon:\t   12345 kB\nRssFile:\t    7655 kB\n"
	if got, err := ResidentOf(status); err != nil || got != 12345<<10 {
		t.Errorf("%d, %v", got, err)
	}
	for _, status := range []string{"", "VmRSS:\t20000 kB\n", "RssAnon:\tmuch kB\n"} {
		if got, err := ResidentOf(status); err == nil {
			t.Errorf("%q gives %d", status, got)
		}
	}
}

func TestReadBare(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ in, want string }{
		{"\x81\x82\x01\x02\x03\x04ij", "\x81\x02hh"},
		{"\x81\xfe\x01\x2c\x00\x00\x00\x00" + long, "\x81\x7e\x01\x2c" + long},
		{"\x81\x82\x01\x02\x03\x04i", ""},
		{"\x88\x80\x01\x02\x03\x04", ""},
		{"", ""},
	} {
		got, err := readBare(bufio.NewReader(strings.NewReader(c.in)))
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestMainAnswersEveryCommand(t *testing.T) {
	in := strings.NewReader("begin\nfree\nend\njoins 1 1\n")
	var out strings.Builder
	if err := Main([]string{"-lib", "bare loop"}, in, &out); err != nil {
		t.Fatal(err)
	}
	address, answers, _ := strings.Cut(out.String(), "\n")
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("address %q", address)
	}
	d := json.NewDecoder(strings.NewReader(answers))
	for _, wantErr := range []bool{false, false, false, true} {
		var u Usage
		if err := d.Decode(&u); err != nil {
			t.Fatal(err)
		}
		if u.Resident == 0 || u.Objects == 0 || (u.Err != "") != wantErr {
			t.Errorf("%+v", u)
		}
	}
	if d.Decode(&Usage{}) != io.EOF {
		t.Error("an answer too many")
	}
	if Main([]string{"-lib", "nobody's"}, in, &out) == nil {
		t.Error("a library that isn't there was started")
	}
}
