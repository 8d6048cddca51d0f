package presence

import "testing"

// Whatever the store has, and whatever a call that failed has done, a change leaves the store with what is present, and
// reports a join or leave exactly where others know it otherwise.
func TestEveryChangeEndsInLineAndReportsOnce(t *testing.T) {
	for from, change := range changes {
		for _, stored := range []bool{false, true} {
			if !from.uncertain && stored != from.entered {
				continue // it can't be
			}
			has, answer := stored, false
			for _, c := range []call{change.undo, change.last} {
				switch c {
				case enter:
					has, answer = true, !has
				case exit:
					has, answer = false, has
				}
			}

			if has != from.present {
				t.Errorf("%+v, stored %v: ends with an entry: %v", from, stored, has)
			}
			if reported := change.differs && answer; reported != (from.present != from.entered) {
				t.Errorf("%+v, stored %v: reported %v", from, stored, reported)
			}
		}
	}
	if len(changes) != 8 {
		t.Errorf("%d states of 8 have a change", len(changes))
	}
}
