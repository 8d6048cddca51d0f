package wsroom

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
