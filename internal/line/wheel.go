package line

import "math"

// wheel holds lines, each with the tick at which it is to be visited. A line that is visited at another tick
// costs nothing then, however many lines there are.
//
// The seats have no gaps, so that a wheel takes the memory of the lines that it has. A line knows its seat. What a
// bucket has for a seat may be out of date, since the line in that seat was to be visited earlier, or is another
// line now: the seat's own tick decides.
type wheel struct {
	chunks  []*[chunkSize]seat
	lines   int        // seats that are taken, the first ones
	buckets [][]uint32 // which seats are to be visited, by tick modulo the number of buckets
	visited int64      // the last tick whose bucket was taken
}

// chunkSize is how many seats are allocated together. So a full wheel grows without a copy of all seats.
const chunkSize = 64

// seat is a line in a wheel.
type seat struct {
	line *Line
	tick int64 // when the line is to be visited, or never
}

// never is the tick of a line that isn't in a bucket.
const never = math.MaxInt64

func (w *wheel) seat(index int) *seat { return &w.chunks[index/chunkSize][index%chunkSize] }

// add gives a line a seat. It is visited once it is scheduled.
func (w *wheel) add(l *Line) {
	if w.lines == len(w.chunks)*chunkSize {
		w.chunks = append(w.chunks, new([chunkSize]seat))
	}
	*w.seat(w.lines) = seat{l, never}
	w.lines++
	l.seat = uint32(w.lines)
}

// remove takes a line out, if it is there. The line of the last seat moves to the seat that is free.
func (w *wheel) remove(l *Line) {
	if l.seat == 0 {
		return
	}
	free, last := w.seat(int(l.seat-1)), w.seat(w.lines-1)
	if free != last {
		*free = *last
		free.line.seat = l.seat
		if free.tick != never {
			w.enter(max(free.tick, w.visited+1), l.seat) // what it was due by may be taken already
		}
	}
	*last, l.seat = seat{}, 0
	w.lines--

	if spare := len(w.chunks) - w.lines/chunkSize; spare > 2 {
		w.chunks[len(w.chunks)-1] = nil
		w.chunks = w.chunks[:len(w.chunks)-1]
	}
	if cap(w.chunks) > 4*len(w.chunks)+chunkSize {
		w.chunks = append(make([]*[chunkSize]seat, 0, 2*len(w.chunks)), w.chunks...)
	}
}

// schedule sets when a line is visited next, unless it has been removed. A tick that is further ahead than there
// are buckets comes sooner.
func (w *wheel) schedule(l *Line, tick int64) {
	if l.seat == 0 {
		return
	}
	tick = min(max(tick, w.visited+1), w.visited+int64(len(w.buckets)))
	w.seat(int(l.seat - 1)).tick = tick
	w.enter(tick, l.seat)
}

func (w *wheel) enter(tick int64, seat uint32) {
	b := &w.buckets[tick%int64(len(w.buckets))]
	*b = append(*b, seat)
}

// advance moves the wheel to the next tick that is to be visited, up to now, and returns its bucket. more is false
// if all of them have been visited.
func (w *wheel) advance(now int64) (bucket []uint32, more bool) {
	if w.visited >= now {
		return nil, false
	}
	w.visited = max(w.visited+1, now-int64(len(w.buckets))+1) // each bucket once is enough
	b := &w.buckets[w.visited%int64(len(w.buckets))]
	bucket, *b = *b, nil // so that a bucket that was large once doesn't stay so
	return bucket, true
}

// due appends the lines of the bucket that are to be visited now. They are visited next when they are scheduled
// again.
func (w *wheel) due(lines []*Line, bucket []uint32) []*Line {
	for _, index := range bucket {
		if int(index) > w.lines {
			continue
		}
		if s := w.seat(int(index - 1)); s.tick <= w.visited {
			s.tick = never
			lines = append(lines, s.line)
		}
	}
	return lines
}
