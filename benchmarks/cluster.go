package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
)

const membersOfNode = 1000

// clusters lists the scenarios of several nodes, and of one that has a broker all the same. In each some
// member of every node sends.
func clusters(quick bool) []scenario {
	all, sizes := []scenario{clusterPaced(1), clusterRooms(1)}, []int{2, 3}
	if quick {
		all, sizes = nil, []int{2}
	}
	for _, nodes := range sizes {
		all = append(all, clusterFlood(nodes), clusterPaced(nodes), clusterRooms(nodes))
	}
	if quick {
		for i := range all {
			all[i].lighten()
		}
	}
	return all
}

func clusterFlood(nodes int) scenario {
	s := flood(fmt.Sprintf("cluster %d flood", nodes), load.Plan{Members: nodes * membersOfNode, Senders: nodes, Size: 128})
	s.nodes = nodes
	return s
}

// clusterPaced leaves the processors time between two messages.
func clusterPaced(nodes int) scenario {
	s := clusterFlood(nodes)
	s.name, s.measure = fmt.Sprintf("cluster %d paced", nodes), 4*time.Second
	s.traffic = func(ctx context.Context, f *load.Fleet) error { return f.Pace(ctx, 50*time.Millisecond) }
	return s
}

// clusterRooms has rooms so small that a message's way between nodes shows, not that to many members.
func clusterRooms(nodes int) scenario {
	s := clusterPaced(nodes)
	const rooms = 100
	s.name, s.plan.Rooms, s.plan.Members = fmt.Sprintf("cluster %d rooms", nodes), rooms, nodes*membersOfNode/rooms
	s.traffic = func(ctx context.Context, f *load.Fleet) error { return f.Pace(ctx, 2*time.Millisecond) }
	return s
}

// clusterTable is the Markdown table of results with several nodes. What is added is beside the same
// library's one node without a broker, the median of the senders' own messages.
func clusterTable(results []result) string {
	rows := [][]string{{"scenario", "library", "a second", "nodes' CPU µs", "broker's", "objects",
		"own p50 ms", "own p99 ms", "added p50", "added p99", "all p50", "all p99", "lost", "doubled", "reordered", ""}}
	for _, r := range results {
		rows = append(rows, append([]string{r.scenario.name, r.library.Name}, r.clusterCells(results)...))
	}
	return markdown(rows, 2)
}

func (r result) clusterCells(results []result) []string {
	f := r.figures
	cells := []string{thousands(f.rate), number(f.cpu()), missing, number(f.objects),
		number(f.own50 * 1e3), number(f.own99 * 1e3), missing, missing, number(f.p50 * 1e3), number(f.p99 * 1e3),
		strconv.Itoa(f.lost), strconv.Itoa(f.doubled), strconv.Itoa(f.reordered), note(f)}
	if f.rate == 0 {
		blank(cells[:10])
		return cells
	}
	if f.objects == 0 {
		blank(cells[3:4])
	}
	if r.library.Broker == "" {
		return cells
	}
	cells[2] = number(f.broker)
	alone, _, _ := strings.Cut(r.library.Name, " ")
	for _, other := range results {
		if other.scenario.name == r.scenario.name && other.library.Name == alone && other.figures.rate > 0 {
			cells[6] = number((f.own50 - other.figures.own50) * 1e3)
			cells[7] = number((f.own99 - other.figures.own99) * 1e3)
		}
	}
	return cells
}
