package browser

import (
	_ "embed"
	"fmt"
)

// faults is a JavaScript expression: what is wrong with the look of a page as it is now.
//
//go:embed look.js
var faults string

// CheckLook fails the test where the page, wide or on a phone, light or dark, has text that is too faint to read, a field
// or a button whose outline can't be seen, something that can be pressed and has no name, or more than fits the width.
func (tab *Tab) CheckLook() {
	tab.t.Helper()
	if tab.browser.Name != Chromium { // the only one that changes its look
		return
	}
	for _, width := range []int{390, 1280} {
		tab.Resize(width, 844)
		for _, dark := range []bool{false, true} {
			tab.Dark(dark)
			tab.Wait("document.getAnimations().every((a) => a.effect.getComputedTiming().iterations === Infinity)")
			for _, fault := range Eval[[]string](tab, faults) {
				tab.t.Error(fmt.Sprintf("%d pixels wide, dark %t: ", width, dark) + fault)
			}
		}
	}
	tab.Dark(false)
	tab.Resize(1200, 760)
}
