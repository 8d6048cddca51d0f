//go:build !unix

package frame

const rawIO = false

func (c *Conn) rawRead(uintptr) bool  { return true }
func (c *Conn) rawWrite(uintptr) bool { return true }
