package kit

import (
	"fmt"
)

func Number(i int) string { return fmt.Sprint("reply ", i) }
