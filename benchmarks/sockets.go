package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// runSockets lets more and more sockets be idle in a server process, as many as the machine's limits allow, and
// prints what each costs. If a limit stops it, it says which, and how it is raised.
func runSockets(ctx context.Context, m million) error {
	most := m.sockets[len(m.sockets)-1]
	stop := socketLimit(most)
	fmt.Fprintf(os.Stderr, "million: sockets: %s\n", stop)

	rows := [][]string{{"sockets", "KB a connection", "CPU µs a connection and second", "of a processor", "CPU µs a connect", ""}}
	for _, n := range m.sockets {
		last := n >= stop.sockets
		row, err := runIdle(ctx, min(n, stop.sockets)/socketRoom, m.idle)
		if err != nil {
			return err
		}
		if rows = append(rows, row); last {
			break
		}
	}
	fmt.Println(markdown(rows, 0))
	fmt.Println(stop)
	return nil
}

// socketRoom is how many members a room has.
const socketRoom = 100

// runIdle lets that many rooms of sockets in, and returns a row of the table.
func runIdle(ctx context.Context, rooms int, idle time.Duration) ([]string, error) {
	n := max(1, rooms) * socketRoom
	row := []string{thousands(float64(n))}
	r := run{scenario: scenario{name: millionName, idle: true, plan: load.Plan{Rooms: max(1, rooms), Members: socketRoom, Size: 128}}}
	defer r.stop()
	if err := r.start(ctx, server.Libraries[0], ""); err != nil {
		return row, err
	}
	empty, err := r.ask("free")
	if err != nil {
		return row, err
	}
	if r.fleet, err = load.Connect(ctx, []string{r.servers[0].addr}, load.Plain, r.plan); err != nil {
		return row, err
	}
	defer r.fleet.Close()
	full, err := r.ask("free")
	if err != nil {
		return row, err
	}

	if err := pause(ctx, idle/2); err != nil { // all have been pinged, with a minute for idle
		return row, err
	}
	before, err := r.mark("begin", func() uint64 { return 0 })
	if err != nil {
		return row, err
	}
	if err := pause(ctx, idle); err != nil {
		return row, err
	}
	after, err := r.mark("end", func() uint64 { return 0 })
	if err != nil {
		return row, err
	}
	settled, err := r.ask("free")
	if err != nil {
		return row, err
	}
	if t := r.fleet.Totals(); t.Ended > 0 || t.Err != nil {
		return row, fmt.Errorf("%d connections have ended: %w", t.Ended, t.Err)
	}

	cpu := after.usage.User + after.usage.System - before.usage.User - before.usage.System
	seconds := after.at.Sub(before.at).Seconds()
	connect := full.User + full.System - empty.User - empty.System
	row = append(row, number(float64(settled.Resident-empty.Resident)/float64(n)/1e3), number(micros(cpu)/float64(n)/seconds),
		percent(cpu, seconds), number(micros(connect)/float64(n)), "")
	fmt.Fprintf(os.Stderr, "million: sockets: %s\n", strings.Join(row, ", "))
	return row, nil
}

// A limit is how many sockets the machine lets two processes connect, and what is in the way of more.
type limit struct {
	sockets int
	by      string // "" if there is none in the way
	raise   string
}

func (l limit) String() string {
	if l.by == "" {
		return fmt.Sprintf("No limit stops %s sockets.", thousands(float64(l.sockets)))
	}
	return fmt.Sprintf("The limit is %s: %s sockets. %s", l.by, thousands(float64(l.sockets)), l.raise)
}

const (
	spareFiles  = 500      // descriptors for what else a process has open, and for connects that are under way
	socketBytes = 20 << 10 // of memory that a connection takes, in both processes and in the kernel
	perSource   = 250      // source addresses, see load
)

// socketLimit returns the limit that stops at least, if there are to be so many sockets.
func socketLimit(want int) limit {
	least := limit{sockets: want}
	for _, l := range []limit{filesLimit(want), portsLimit(), memoryLimit(), systemFilesLimit()} {
		if l.sockets < least.sockets {
			least = l
		}
	}
	return least
}

// filesLimit is that on open files of a process, which it raises if it may.
func filesLimit(want int) limit {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return limit{sockets: want}
	}
	if need := uint64(want + spareFiles); r.Cur < need {
		raised := syscall.Rlimit{Cur: need, Max: max(r.Max, need)}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		} else if raised = (syscall.Rlimit{Cur: r.Max, Max: r.Max}); syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		}
	}
	return limit{int(min(r.Cur, 1<<30)) - spareFiles, "on a process's open files",
		fmt.Sprintf("Raise it by `ulimit -n %d` as root, or LimitNOFILE of the unit; fs.nr_open, now %d, must be as high.",
			want+spareFiles, sysctl("fs/nr_open", 0))}
}

// systemFilesLimit is that on open files of the machine. Both ends of each connection are here.
func systemFilesLimit() limit {
	return limit{sysctl("fs/file-max", 0)/2 - 10*spareFiles, "on the machine's open files", "Raise it by `sysctl fs.file-max`."}
}

// portsLimit is that on connections to one port from the addresses of package load.
func portsLimit() limit {
	first, last := sysctl("net/ipv4/ip_local_port_range", 0), sysctl("net/ipv4/ip_local_port_range", 1)
	return limit{(last - first) * perSource * 9 / 10, "on ports of the clients", "Raise it by `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"`."}
}

// memoryLimit is what memory is free. TCP's own bound, tcp_mem, counts only data that is under way.
func memoryLimit() limit {
	free := 0
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
				free, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			}
		}
	}
	return limit{free << 10 / socketBytes, "of memory", fmt.Sprintf("A connection takes some %d KB in both processes and the kernel; "+
		"data that is under way is bounded by net.ipv4.tcp_mem, now %d pages.", socketBytes>>10, sysctl("net/ipv4/tcp_mem", 2))}
}

// sysctl is a number of the kernel's settings. It is large if there is none.
func sysctl(name string, field int) int {
	const none = 1 << 40
	text, err := os.ReadFile("/proc/sys/" + name)
	fields := strings.Fields(string(text))
	if err != nil || field >= len(fields) {
		return none
	}
	n, err := strconv.Atoi(fields[field])
	if err != nil {
		return none
	}
	return min(n, none)
}
