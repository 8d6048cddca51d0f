package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

func TestEveryClusterDeliversEveryMessage(t *testing.T) {
	for _, sc := range []scenario{clusterFlood(2), clusterRooms(2)} {
		sc.warm, sc.measure = 50*time.Millisecond, 150*time.Millisecond
		sc.plan.Rooms, sc.plan.Members = min(sc.plan.Rooms, 5), min(sc.plan.Members, 10)
		for _, lib := range server.Clustered {
			t.Run(sc.name+"/"+lib.Name, func(t *testing.T) {
				t.Parallel()
				f := runOnce(t.Context(), sc, lib, "")
				if strings.HasSuffix(f.note, server.NotInstalled) && os.Getenv("WSROOM_INTEROP") != "all" {
					t.Skip(f.note)
				}
				if lib.Name == "socket.io redis" {
					f.reordered = 0 // its nodes don't promise one order
				}
				if f.note != "" || f.rate == 0 || f.cpu() == 0 || f.lost+f.doubled+f.reordered+f.ended > 0 {
					t.Error(f.summary())
				}
				if f.own50 == 0 || lib.Broker != "" && f.broker == 0 {
					t.Errorf("own messages or the broker weren't measured: %s", f.summary())
				}
			})
		}
	}
}

func TestClusterTable(t *testing.T) {
	sc := clusterPaced(2)
	alone, together := figures{rate: 10, user: 1, objects: 3, own50: 0.001, own99: 0.002}, figures{rate: 20, user: 2, broker: 0.5, p50: 0.007, p99: 0.009, own50: 0.0015, own99: 0.005, lost: 1}
	table := clusterTable([]result{
		{sc, server.Library{Name: "a redis", Broker: server.Redis}, together},
		{sc, server.Library{Name: "b redis", Broker: server.Redis}, figures{note: errNoRedis.Error()}},
		{sc, server.Library{Name: "a"}, alone},
	})
	for _, want := range []string{
		"| cluster 2 paced | a redis | 20 | 2.00 | 0.500 | – | 1.50 | 5.00 | 0.500 | 3.00 | 7.00 | 9.00 | 1 | 0 | 0 |  |\n",
		"| cluster 2 paced | b redis | – | – | – | – | – | – | – | – | – | – | 0 | 0 | 0 | redis-server isn't installed |\n",
		"| cluster 2 paced | a | 10 | 1.00 | – | 3.00 | 1.00 | 2.00 | – | – | 0.000 | 0.000 | 0 | 0 | 0 |  |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no row %s in\n%s", want, table)
		}
	}
}
