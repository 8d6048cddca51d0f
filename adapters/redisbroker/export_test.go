package redisbroker

import "time"

// SetHold sets for how long a stream stays beyond its time.
func SetHold(b *Broker, d time.Duration) { b.hold = d }
