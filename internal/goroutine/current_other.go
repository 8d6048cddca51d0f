//go:build !gc || !(amd64 || arm64)

package goroutine

// Current returns the running goroutine's [ID].
func Current() ID { return fromStack() }
