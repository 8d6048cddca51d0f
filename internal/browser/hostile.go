package browser

import (
	"strings"
	"unicode"
)

// Hostile are names and texts that must be shown as they are, and do nothing.
var Hostile = []string{
	`<img src=x onerror="harmed=1">`,
	`</script><script>harmed=1</script>`,
	`"><svg/onload=harmed=1>`,
	"\u202eevil \u05e9\u05dc\u05d5\u05dd",
	`{{constructor.constructor("harmed=1")()}}`,
}

// CheckUnharmed fails the test if one of Hostile did something in the page.
func (tab *Tab) CheckUnharmed() {
	tab.t.Helper()
	const unharmed = `typeof harmed === "undefined" &&
		!document.querySelector("body img:not(.mark), body script:not([src]), body svg[onload]") &&
		[...document.querySelectorAll(".name, .author, .people bdi")].every((e) => !/\p{Bidi_Control}/u.test(e.textContent))`
	if !Eval[bool](tab, unharmed) {
		tab.t.Error("a name or a text did more than to be shown")
	}
}

// Plain is how the pages show a name: without what turns the text around it.
func Plain(name string) string {
	return strings.TrimFunc(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, name), unicode.IsSpace)
}
