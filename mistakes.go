package wsroom

import (
	"errors"
	"fmt"
	"time"
)

// contradictions are the options that make no sense together, or alone.
func (c *config) contradictions() (mistakes []error) {
	if c.anyOrigin && len(c.origins) > 0 {
		mistakes = append(mistakes, errors.New("wsroom: WithOrigins has no effect beside WithInsecureAnyOrigin"))
	}
	if c.rateAction != SlowDown && !c.limitsRate() {
		mistakes = append(mistakes, errors.New("wsroom: WithRateLimitAction has no effect without WithRateLimit or WithByteRateLimit"))
	}
	if c.onExpire != nil && c.authorize == nil {
		mistakes = append(mistakes, errors.New("wsroom: OnExpire has no effect without WithAuthorize, whose function gives the time"))
	}
	if c.broker == nil && (c.onGap != nil || c.outage != Fail) {
		mistakes = append(mistakes, errors.New("wsroom: WithOutage and OnGap have no effect without WithBroker"))
	}
	if c.identity == nil && (c.presence != nil || c.onMemberJoin != nil || c.onMemberLeave != nil) {
		mistakes = append(mistakes, errors.New("wsroom: WithPresenceStore, OnMemberJoin and OnMemberLeave have no effect without WithIdentity"))
	}
	return mistakes
}

func notNil(option string, isNil bool) error {
	if isNil {
		return fmt.Errorf("%s: must not be nil", option)
	}
	return nil
}

func positive[N int | int64 | time.Duration](option string, n N) error {
	if n <= 0 {
		return fmt.Errorf("%s: must be positive, not %v", option, n)
	}
	return nil
}

func notNegative[N int | time.Duration](option string, n N) error {
	if n < 0 {
		return fmt.Errorf("%s: must not be negative, but is %v", option, n)
	}
	return nil
}

func within(option string, value, last int) error {
	if value < 0 || value > last {
		return fmt.Errorf("%s: unknown value %d", option, value)
	}
	return nil
}
