package natsbroker

import "testing"

// TestStopsBeforeHandle: what is left to the goroutine that receives isn't delivered if the subscriber is stopped
// meanwhile.
func TestStopsBeforeHandle(t *testing.T) {
	delivered := 0
	i := &inbox{direct: true, deliver: func(uint64, []byte) { delivered++ }}
	if !i.hear(item{}, true) {
		t.Fatal("the caller isn't to handle it")
	}
	i.stop()
	if i.handle(item{}); delivered > 0 {
		t.Error("it is delivered after stop")
	}
}
