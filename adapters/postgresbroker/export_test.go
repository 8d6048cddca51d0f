package postgresbroker

import "time"

// SetHold sets for how long a topic stays beyond its time, and how often somebody cleans up.
func SetHold(b *Broker, hold, every time.Duration) { b.hold, b.every = hold, every }
