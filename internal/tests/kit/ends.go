package kit

import (
	"fmt"
)

// Number returns the i-th of several different texts.
func Number(i int) string { return fmt.Sprint("reply ", i) }
