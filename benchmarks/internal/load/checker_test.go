package load

import (
	"testing"
	"time"
)

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name                     string
		seen                     []uint64
		last                     uint64
		lost, doubled, reordered int
	}{
		{"all in order", []uint64{1, 2, 3}, 3, 0, 0, 0},
		{"joined late", []uint64{7, 8, 9}, 9, 0, 0, 0},
		{"one lost", []uint64{1, 3}, 3, 1, 0, 0},
		{"the end lost", []uint64{1, 2}, 5, 3, 0, 0},
		{"nothing came", nil, 4, 4, 0, 0},
		{"nothing sent", nil, 0, 0, 0, 0},
		{"doubled", []uint64{1, 2, 2, 1, 3}, 3, 0, 2, 0},
		{"swapped", []uint64{1, 3, 2, 4}, 4, 0, 0, 1},
		{"lost, late and twice", []uint64{1, 5, 3, 3, 5}, 6, 3, 2, 1},
		{"a gap too long to remember", []uint64{1, maxMissing + 100}, maxMissing + 100, maxMissing + 98, 0, 0},
	} {
		var k Checker
		for _, seq := range c.seen {
			k.Saw(seq)
		}
		if k.Lost(c.last) != c.lost || k.Doubled != c.doubled || k.Reordered != c.reordered {
			t.Errorf("%s: lost %d, doubled %d, reordered %d; want %d, %d, %d",
				c.name, k.Lost(c.last), k.Doubled, k.Reordered, c.lost, c.doubled, c.reordered)
		}
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var a, b Histogram
	for i := 1; i <= 500; i++ {
		a.Record(time.Duration(2*i) * time.Microsecond)
		b.Record(time.Duration(2*i-1) * time.Microsecond)
	}
	a.Merge(&b)
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := a.Quantile(q); got < want || float64(got) > 1.07*float64(want) {
			t.Errorf("quantile %v is %v, want %v or up to 7 %% more", q, got, want)
		}
	}
	if a.Max() != time.Millisecond {
		t.Errorf("max %v", a.Max())
	}
	var none Histogram
	if none.Quantile(0.5) != 0 {
		t.Error("the quantile of nothing isn't 0")
	}
}

func TestHistogramBuckets(t *testing.T) {
	for d := time.Duration(0); d < 100*time.Second; d += 1 + d/7 {
		bucket := bucketOf(d)
		if edge := upperEdge(bucket); edge <= d {
			t.Fatalf("%v is in a bucket that ends at %v", d, edge)
		}
		if bucket > 0 && upperEdge(bucket-1) > d {
			t.Fatalf("%v fits the bucket before, which ends at %v", d, upperEdge(bucket-1))
		}
	}
}
