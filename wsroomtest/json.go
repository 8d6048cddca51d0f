package wsroomtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
)

// diffJSON returns the differences, one a line, or "" if there are none.
func diffJSON(got, want []byte) string {
	g, err := decode(got)
	if err != nil {
		return fmt.Sprintf("\tit doesn't decode: %v\n", err)
	}
	w, err := decode(want)
	if err != nil {
		return fmt.Sprintf("\twhat is wanted doesn't decode: %v\n", err)
	}
	var b bytes.Buffer
	diff(&b, "", g, w)
	return b.String()
}

func decode(p []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("something follows the value")
	}
	return v, nil
}

// absent stands for a missing member.
type absent struct{}

func (absent) String() string { return "nothing" }

func diff(b *bytes.Buffer, path string, got, want any) {
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			diffObjects(b, path, g, w)
			return
		}
	case []any:
		if g, ok := got.([]any); ok {
			diffArrays(b, path, g, w)
			return
		}
	case json.Number:
		if g, ok := got.(json.Number); ok && sameNumber(g, w) {
			return
		}
	}
	if !reflect.DeepEqual(got, want) {
		fmt.Fprintf(b, "\t%s: got %s, want %s\n", orRoot(path), show(got), show(want))
	}
}

func diffObjects(b *bytes.Buffer, path string, got, want map[string]any) {
	keys := maps.Clone(got)
	maps.Copy(keys, want)
	member := func(m map[string]any, key string) any {
		if v, ok := m[key]; ok {
			return v
		}
		return absent{}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		diff(b, path+"."+key, member(got, key), member(want, key))
	}
}

func diffArrays(b *bytes.Buffer, path string, got, want []any) {
	element := func(s []any, i int) any {
		if i < len(s) {
			return s[i]
		}
		return absent{}
	}
	for i := range max(len(got), len(want)) {
		diff(b, fmt.Sprintf("%s[%d]", path, i), element(got, i), element(want, i))
	}
}

func sameNumber(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(a.String())
	y, okY := new(big.Rat).SetString(b.String())
	return okX && okY && x.Cmp(y) == 0
}

func orRoot(path string) string {
	if path == "" {
		return "the value"
	}
	return path
}

func show(v any) string {
	if s, ok := v.(absent); ok {
		return s.String()
	}
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(p) > shown {
		return string(p[:shown]) + "…"
	}
	return string(p)
}
