package outbound

import (
	"testing"
	"unsafe"
)

// What a push to an idle queue touches lies in one cache line.
func TestHotFieldsShareACacheLine(t *testing.T) {
	var q Queue
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("for 64 bits")
	}
	if end := unsafe.Offsetof(q.started) + unsafe.Sizeof(q.started); end > 64 {
		t.Errorf("the hot fields end after %d bytes, not 64", end)
	}
}

// What a push returns fits into a register.
func TestPushedIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Pushed{}); size > 8 {
		t.Errorf("a Pushed has %d bytes", size)
	}
}
