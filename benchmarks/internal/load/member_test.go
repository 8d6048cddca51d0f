package load

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"
)

func testMessage(seq uint64) []byte {
	message := newTemplate(128, true)
	writeStamp(message, stamp{0, seq, int64(seq) * 1000})
	return message
}

func TestMemberReadsFragmentsAndBatches(t *testing.T) {
	m := newTestMember()
	first, second := testMessage(1), testMessage(2)
	var p []byte
	p = append(p, serverFrame(0x01, first[:50])...)
	p = append(p, serverFrame(0x8A, nil)...) // a pong between fragments
	p = append(p, serverFrame(0x00, first[50:60])...)
	p = append(p, serverFrame(0x80, first[60:])...)
	p = append(p, serverFrame(0x81, second)...)
	p = append(p, 0x81)
	if err := m.parse(p); err != nil {
		t.Fatal(err)
	}
	m.publish()
	if m.delivered.Load() != 2 || m.last.Load() != 2 || len(m.rest) != 1 {
		t.Errorf("%d messages, last %d, %d bytes left", m.delivered.Load(), m.last.Load(), len(m.rest))
	}
}

func TestMemberReadsSeveralMessagesOfOneFrame(t *testing.T) {
	m := newTestMember()
	m.fleet.dialect = Centrifuge
	line := func(seq uint64) string {
		return `{"push":{"channel":"r0","pub":{"data":` + string(testMessage(seq)) + `}}}`
	}
	text := `{"id":3,"publish":{}}` + "\n" + line(1) + "\n" + line(2)
	if err := m.parse(serverFrame(0x81, []byte(text))); err != nil {
		t.Fatal(err)
	}
	if m.count != 2 {
		t.Errorf("%d messages, want 2", m.count)
	}
	if err := m.parse(serverFrame(0x81, []byte(`{"id":3,"error":{"code":103}}`))); err == nil {
		t.Error("an error of the protocol went unnoticed")
	}
}

func TestMemberInflates(t *testing.T) {
	m := newTestMember()
	for seq := range uint64(3) {
		for range 2 { // the second from memory
			packed := deflated(t, testMessage(seq+1))
			if err := m.parse(serverFrame(0xC1, packed)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if m.count != 6 || m.checkers[0].Doubled != 3 {
		t.Errorf("%d messages, %d doubled; want 6 and 3", m.count, m.checkers[0].Doubled)
	}
	if err := m.parse(serverFrame(0xC1, []byte("no deflate"))); err == nil {
		t.Error("broken deflate went unnoticed")
	}
}

func deflated(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func TestMemberNoticesWhatIsNotItsOwn(t *testing.T) {
	m := newTestMember()
	other := testMessage(1)
	writeStamp(other, stamp{7, 1, 1})
	if err := m.parse(serverFrame(0x81, other)); err != nil {
		t.Fatal(err)
	}
	if m.foreign != 1 || m.count != 0 {
		t.Errorf("foreign %d, count %d; want 1 and 0", m.foreign, m.count)
	}
	if err := m.parse(serverFrame(0x81, []byte("hello"))); err == nil {
		t.Error("a text that no scenario sends went unnoticed")
	}
	if err := newTestMember().parse([]byte{0x88, 2, 0x03, 0xF5}); !errors.Is(err, io.EOF) {
		t.Errorf("a close frame gives %v", err)
	}
}

func TestStampRoundTrip(t *testing.T) {
	want := stamp{42, 987654321, 1234567890123}
	for _, size := range []int{MinMessage, 128, 1024} {
		message := newTemplate(size, size > 128)
		if len(message) != size {
			t.Fatalf("%d bytes, want %d", len(message), size)
		}
		writeStamp(message, want)
		for _, text := range [][]byte{message, []byte(`{"push":` + string(message) + `}`)} {
			if got, ok := readStamp(text); !ok || got != want {
				t.Errorf("%s: %+v, %t", text, got, ok)
			}
		}
	}
	for _, text := range []string{"", "{}", layout, `{"r":"000x`, string(bytes.Replace(newTemplate(70, false), []byte("0"), []byte("x"), 1))} {
		if got, ok := readStamp([]byte(text)); ok {
			t.Errorf("%q gives %+v", text, got)
		}
	}
}
