package wsroom

import "slices"

// memberships are the rooms of one connection, by name. Most connections are in one room, which
// takes no map. A member stays where it is for as long as it is one.
type memberships struct {
	first member
	more  map[string]*member
}

// get returns the membership of that name, nil if there is none.
func (ms *memberships) get(name string) *member {
	if ms.first.room != nil && ms.first.room.name == name {
		return &ms.first
	}
	return ms.more[name]
}

// add returns a new membership, for a room to take.
func (ms *memberships) add(name string) *member {
	if ms.first.room == nil {
		return &ms.first
	}
	if ms.more == nil {
		ms.more = map[string]*member{}
	}
	m := new(member)
	ms.more[name] = m
	return m
}

// remove forgets a membership that its room has ended.
func (ms *memberships) remove(name string) {
	if delete(ms.more, name); len(ms.more) == 0 {
		ms.more = nil
	}
}

// within reports whether one of the rooms is among the first n of the names.
func (ms *memberships) within(names *lookup[string], n int) bool {
	if n <= len(ms.more) {
		return slices.ContainsFunc(names.values[:n], func(name string) bool { return ms.get(name) != nil })
	}
	among := func(name string) bool { i := names.index(name); return 0 <= i && i < n }
	if ms.first.room != nil && among(ms.first.room.name) {
		return true
	}
	for name := range ms.more {
		if among(name) {
			return true
		}
	}
	return false
}

// names returns the rooms' names in no order.
func (ms *memberships) names() []string {
	names := make([]string, 0, len(ms.more)+1)
	if ms.first.room != nil {
		names = append(names, ms.first.room.name)
	}
	for name := range ms.more {
		names = append(names, name)
	}
	return names
}
