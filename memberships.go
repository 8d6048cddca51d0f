package wsroom

// memberships are the rooms of one connection, by name. Most connections are in one room, which
// takes no map.
type memberships struct {
	first *member
	more  map[string]*member
}

func (ms *memberships) get(name string) *member {
	if ms.first != nil && ms.first.room.name == name {
		return ms.first
	}
	return ms.more[name]
}

func (ms *memberships) add(m *member) {
	switch {
	case ms.first == nil:
		ms.first = m
	case ms.more == nil:
		ms.more = map[string]*member{m.room.name: m}
	default:
		ms.more[m.room.name] = m
	}
}

func (ms *memberships) remove(m *member) {
	if ms.first == m {
		ms.first = nil
		return
	}
	if delete(ms.more, m.room.name); len(ms.more) == 0 {
		ms.more = nil
	}
}

// names returns the rooms' names in no order.
func (ms *memberships) names() []string {
	names := make([]string, 0, len(ms.more)+1)
	if ms.first != nil {
		names = append(names, ms.first.room.name)
	}
	for name := range ms.more {
		names = append(names, name)
	}
	return names
}
