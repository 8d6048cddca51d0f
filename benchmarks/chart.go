package main

import (
	"bytes"
	"fmt"
	"html"
	"slices"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// The chart's measures, in SVG units. It is a grid of panels, one for each scenario.
const (
	columns    = 2
	panelWidth = 440
	barX       = 96  // of the bars in their panel
	barWidth   = 260 // of the longest
	rowHeight  = 21
	titleSpace = 40
)

const chartStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.own { font-weight: 600 }
rect { fill: #8c959f }
rect.own { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
rect { fill: #7d8590 }
rect.own { fill: #58a6ff }
}
</style>
`

// charted are the scenarios in the chart: those where all do the same without trouble.
var charted = []string{"flood128", "flood1k", "paced", "rooms", "echo", "deflate"}

// chart draws the processor time of a delivered message, a panel for each scenario that has it,
// readable on a light and on a dark page.
func chart(results []result, libraries []server.Library) []byte {
	var panels [][]result
	for i := 0; i+len(libraries) <= len(results); i += len(libraries) {
		if slices.Contains(charted, results[i].scenario.name) {
			panels = append(panels, results[i:i+len(libraries)])
		}
	}
	panelHeight := titleSpace + rowHeight*len(libraries) + 14
	rows := (len(panels) + columns - 1) / columns
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">`+"\n", columns*panelWidth, rows*panelHeight)
	b.WriteString("<title>Server processor time of one delivered message, in µs; shorter is better</title>\n" + chartStyle)
	for i, panel := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, i/columns*panelHeight)
		drawPanel(&b, panel)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func drawPanel(b *bytes.Buffer, panel []result) {
	longest := 0.0
	for _, r := range panel {
		longest = max(longest, r.figures.cpu())
	}
	text(b, barX, 24, "title", panel[0].scenario.name+", µs a message")
	for i, r := range panel {
		y, class := titleSpace+i*rowHeight, ""
		if i == 0 {
			class = "own"
		}
		text(b, 8, y+14, class, r.library.Name)
		if r.figures.cpu() == 0 {
			text(b, barX, y+14, class, missing)
			continue
		}
		width := r.figures.cpu() / longest * barWidth
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" class="%s"/>`+"\n", barX, y+2, width, rowHeight-6, class)
		text(b, barX+int(width)+6, y+14, class, number(r.figures.cpu()))
	}
}

func text(b *bytes.Buffer, x, y int, class, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" class="%s">%s</text>`+"\n", x, y, class, html.EscapeString(s))
}
