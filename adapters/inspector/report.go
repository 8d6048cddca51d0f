package inspector

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wsroom/wsroom"
)

const pageSize = 20 // rows of rooms and of members

// view is what a page or a script wants to see.
type view struct {
	Search      string `json:"search"`      // in rooms' names and, if no room is chosen, in IDs, labels and addresses
	Page        int    `json:"page"`        // of rooms, from 1; 0 counts as 1
	Room        string `json:"room"`        // its members are shown; "": none
	MembersPage int    `json:"membersPage"` // from 1
}

func viewOf(q url.Values) view {
	number := func(name string) int {
		n, _ := strconv.Atoi(q.Get(name)) // anything but a number means the first page
		return n
	}
	return view{q.Get("search"), number("page"), q.Get("room"), number("membersPage")}
}

// report is what a page or a script gets of a sample.
type report struct {
	At      time.Time        `json:"at"`
	View    view             `json:"view"`
	Actions bool             `json:"actions"` // actions are allowed
	Conns   int              `json:"conns"`
	Rooms   int              `json:"rooms"`
	Totals  totals           `json:"totals"`  // since the hub was made
	Rates   *rates           `json:"rates"`   // null if there was no sample a moment before
	Queued  load             `json:"queued"`  // for all connections
	Ended   map[string]int   `json:"ended"`   // by cause
	Refused map[string]int   `json:"refused"` // by cause
	History map[string][]int `json:"history"` // conns, received, sent, queued: one value a sample
	Slowest []memberRow      `json:"slowest"`
	Found   page[roomRow]    `json:"found"`   // rooms
	Members page[memberRow]  `json:"members"` // of the room, or all that are found
	Events  []event          `json:"events"`
}

type totals struct {
	Opened        int   `json:"opened"`
	Closed        int   `json:"closed"`
	Received      int   `json:"received"`
	Sent          int   `json:"sent"`
	Dropped       int   `json:"dropped"`
	ReceivedBytes int64 `json:"receivedBytes"`
	SentBytes     int64 `json:"sentBytes"`
}

// page is one page of a list.
type page[Row any] struct {
	Total int   `json:"total"` // rows on all pages
	Page  int   `json:"page"`
	Pages int   `json:"pages"` // at least 1
	Rows  []Row `json:"rows"`
}

type roomRow struct {
	Name    string `json:"name"`
	Members int    `json:"members"`
	Queued  load   `json:"queued"`
}

type memberRow struct {
	ID      string `json:"id"`
	Label   string `json:"label,omitempty"`
	Address string `json:"address"`
	Room    string `json:"room"` // the room that its route named
	Queued  load   `json:"queued"`
}

func (s *sample) report(v view, label func(*wsroom.Conn) string) *report {
	search := strings.ToLower(v.Search)
	member := func(c *wsroom.Conn) memberRow {
		return memberRow{c.ID(), label(c), c.RemoteAddr(), c.Room(), s.conns[c]}
	}
	n := s.stats
	r := &report{
		At: s.at, View: v, Conns: n.Conns, Rooms: n.Rooms, Rates: s.rates, Queued: s.queued,
		Totals: totals{n.Opened, n.Closed, n.Received, n.Sent, n.Dropped, n.ReceivedBytes, n.SentBytes},
		Ended:  s.causes.Ended, Refused: s.causes.Refused, History: s.history, Events: s.events,
		Slowest: make([]memberRow, 0, len(s.slowest)),
		Found: cut(s.roomsWith(search), v.Page, func(r *room) roomRow {
			return roomRow{r.name, len(r.members), r.queued}
		}),
		Members: cut(s.members(v.Room, search, label), v.MembersPage, member),
	}
	for _, c := range s.slowest {
		r.Slowest = append(r.Slowest, member(c))
	}
	return r
}

func (s *sample) roomsWith(search string) []*room {
	if search == "" {
		return s.rooms
	}
	var found []*room
	for _, r := range s.rooms {
		if strings.Contains(strings.ToLower(r.name), search) {
			found = append(found, r)
		}
	}
	return found
}

// members returns the members of the room. Without a room it returns all connections that the search finds,
// and none without a search.
func (s *sample) members(name, search string, label func(*wsroom.Conn) string) (found []*wsroom.Conn) {
	switch r := s.byName[name]; {
	case r != nil:
		found = slices.Clone(r.members)
	case name == "" && search != "":
		for c := range s.conns {
			for _, text := range []string{c.ID(), c.RemoteAddr(), label(c)} {
				if strings.Contains(strings.ToLower(text), search) {
					found = append(found, c)
					break
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b *wsroom.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
	return found
}

// cut returns one page of the items. A number past the end returns the last page.
func cut[Item, Row any](items []Item, number int, row func(Item) Row) page[Row] {
	p := page[Row]{Total: len(items), Pages: max(1, (len(items)+pageSize-1)/pageSize), Rows: []Row{}}
	p.Page = min(max(1, number), p.Pages)
	begin := (p.Page - 1) * pageSize
	for _, item := range items[begin:min(begin+pageSize, len(items))] {
		p.Rows = append(p.Rows, row(item))
	}
	return p
}
