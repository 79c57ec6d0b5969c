package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// examples are one of each command, with all fields set.
func examples() []Command {
	priority := int32(-3)
	return []Command{
		Noop{},
		ClusterInit{id(1), [32]byte{2}},
		NodePut{"n0", "n0:7000", "https://n0:8443", "nats://n0:4222", 3},
		NodeDelete{"n0"},
		FeatureLevel{2},
		TokenPut{Token{"ci", digest(4), Join, "ada", "moons*", noon, 7}},
		TokenRevoke{"ci"},
		QuotaPut{Quota{"ada", 1, 2, 3}},
		TokenCreate{Token{"ci", digest(4), Join, "ada", "moons*", noon, Spent}},
		TokenUse{"ci", digest(4), 6},
		ExpCreate{"moons", "ada", []byte("name: moons"), "/data", 900, 12, 5, 2, -7, time.Minute},
		ExpSet{9, Pause, ptr(4), &priority},
		ExpPhase{Waiting, "2 of 5 replicas: want 3 more"},
		ExpDelete{11},
		Register{"r0", math.MaxUint64, "H100", "xla:cuda", true},
		LeaseEnd{"r0", 17, true},
		GenerationOpen{3, []string{"r0", "r1", "r0"}, 300},
		CutCommit{3, 400, digest(5), []Part{{"a", digest(6), 7}, {"b", digest(8), 9}}, Conservation{1, 2, 3, 4, 5, 6}, true},
		ExpRespec{13, []byte("name: moons"), 8, 400, digest(5), []Part{{"a", digest(6), 7}}, Conservation{1, 2, 3, 4, 5, 6}},
		CutReplace{13, 400, digest(5), []Part{{"a", digest(6), 7}}, Conservation{1, 2, 3, 4, 5, 6}},
	}
}

// entryOf is an entry with a command, about an experiment if the command is.
func entryOf(cmd Command) Entry {
	e := Entry{At: noon, Command: cmd}
	if cmd.kind() >= kindExpCreate {
		e.Exp = id(1)
	}
	return e
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	for _, cmd := range examples() {
		v := reflect.ValueOf(cmd)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%T: field %d is zero: a codec that forgets it would go unseen", cmd, i)
			}
		}
		zero := reflect.Zero(v.Type()).Interface().(Command)
		for i, e := range []Entry{entryOf(cmd), {entryOf(cmd).Exp, time.Time{}, zero}} {
			data, err := Encode(e)
			if i == 1 && errors.Is(err, ErrInvalid) {
				continue // names and the like have to be there
			}
			if err != nil {
				t.Fatalf("%T: %v", cmd, err)
			}
			got, err := Decode(data)
			if err != nil {
				t.Fatalf("%T: %v", cmd, err)
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("%+v comes back as %+v", e, got)
			}
		}
	}
}

func TestTimeIsCutToTheMillisecond(t *testing.T) {
	zone := time.FixedZone("elsewhere", 3600)
	data := encoded(t, Entry{At: noon.Add(1234567 * time.Nanosecond).In(zone), Command: Noop{}})
	if e, err := Decode(data); err != nil || e.At != noon.Add(time.Millisecond) {
		t.Errorf("%v, %v, want %v", e.At, err, noon.Add(time.Millisecond))
	}
}

func TestEnvelope(t *testing.T) {
	good := encoded(t, entryOf(ExpDelete{11}))
	if len(good) != headBytes+8+tailBytes || good[0] != version || good[1] != byte(kindExpDelete) {
		t.Fatalf("%x", good)
	}
	for _, tc := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  error
	}{
		{"version 0", func(b []byte) []byte { b[0] = 0; return b }, ErrInvalid},
		{"a later version", func(b []byte) []byte { b[0]++; return b }, ErrUnsupported},
		{"a later version with a body of another size", func(b []byte) []byte { b[0]++; return append(b, 1, 2, 3) }, ErrUnsupported},
		{"kind 0", func(b []byte) []byte { b[1] = 0; return b }, ErrUnsupported},
		{"a later kind", func(b []byte) []byte { b[1] = 200; return b }, ErrUnsupported},
		{"flags", func(b []byte) []byte { b[2] = 1; return b }, ErrUnsupported},
		{"no experiment", func(b []byte) []byte { clear(b[4:20]); return b }, ErrInvalid},
		{"an experiment for the cluster's command", func(b []byte) []byte { b[1] = byte(kindNoop); return b[:headBytes] }, ErrInvalid},
		{"a year that JSON cannot write", func(b []byte) []byte { b[27] = 0x7f; return b }, ErrInvalid},
		{"a byte too many", func(b []byte) []byte { return append(b, 0) }, ErrInvalid},
		{"a byte too few", func(b []byte) []byte { return b[:len(b)-1] }, ErrInvalid},
		{"nothing but a head", func(b []byte) []byte { return b[:headBytes] }, ErrInvalid},
		{"less than a head", func(b []byte) []byte { return b[:headBytes-1] }, ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := seal(tc.spoil(bytes.Clone(good[:len(good)-tailBytes])))
			if _, err := Decode(data); !errors.Is(err, tc.want) {
				t.Errorf("decode: %v, want %v", err, tc.want)
			}
			j := newJournal(t)
			j.do(id(1), moons("moons"))
			before := contents(j.s)
			out := j.s.Apply(j.s.Index()+1, data)
			if !errors.Is(out.Err, tc.want) || !bytes.Equal(contents(j.s), before) {
				t.Errorf("apply: %v, want %v and the same state", out.Err, tc.want)
			}
		})
	}
	good[len(good)-1]++
	if _, err := Decode(good); !errors.Is(err, ErrInvalid) {
		t.Errorf("wrong checksum: %v", err)
	}
	if _, err := Decode(make([]byte, MaxEntry+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	create := func(change func(*ExpCreate)) Command {
		c := moons("moons")
		change(&c)
		return c
	}
	cut := func(change func(*CutCommit)) Command {
		c := commit(1, 10)
		change(&c)
		return c
	}
	var many []Part
	for i := range MaxParts + 1 {
		many = append(many, Part{Name: fmt.Sprintf("%05d", i)})
	}
	for name, cmd := range map[string]Command{
		"no command":                       nil,
		"a pointer":                        &Noop{},
		"a cluster without an ID":          ClusterInit{},
		"a name that is empty":             NodeDelete{},
		"a name that is too long":          NodeDelete{long},
		"a name with a slash":              TokenRevoke{"a/b"},
		"a name with a star":               Register{Replica: "a*"},
		"a text that is too long":          NodePut{Name: "n", Peer: strings.Repeat("x", MaxText+1)},
		"a text that is not UTF-8":         ExpPhase{Running, "\xff"},
		"a token without a scope":          TokenPut{Token{Name: "t"}},
		"a scope that does not exist":      TokenPut{Token{Name: "t", Scope: Join + 1}},
		"a star within":                    TokenPut{Token{Name: "t", Scope: Read, Experiments: "a*b"}},
		"uses of a token that reads":       TokenPut{Token{Name: "t", Scope: Read, Uses: 1}},
		"a token until the year 10000":     TokenPut{Token{Name: "t", Scope: Read, Expires: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"an experiment without shards":     create(func(c *ExpCreate) { c.Shards = 0 }),
		"too many shards":                  create(func(c *ExpCreate) { c.Shards = maxShards + 1 }),
		"a spec that is too long":          create(func(c *ExpCreate) { c.Spec = make([]byte, MaxSpec+1) }),
		"more to begin with than at most":  create(func(c *ExpCreate) { c.Want, c.Min = 2, 3 }),
		"more to begin with than shards":   create(func(c *ExpCreate) { c.Min = 4 }),
		"a negative interval":              create(func(c *ExpCreate) { c.CutEvery = -1 }),
		"a desire that does not exist":     ExpSet{Desired: Cancel + 1},
		"phase 0":                          ExpPhase{},
		"a phase that does not exist":      ExpPhase{Phase: Degraded + 1},
		"generation 0":                     GenerationOpen{From: Start},
		"a start before the beginning":     GenerationOpen{Number: 1, From: Start - 1},
		"a holder without a name":          GenerationOpen{Number: 1, Holders: []string{""}},
		"too many holders":                 GenerationOpen{Number: 1, Holders: make([]string, maxShards+1)},
		"a step that no generation can be": cut(func(c *CutCommit) { c.Step = math.MaxInt64 + 1 }),
		"no parts":                         cut(func(c *CutCommit) { c.Parts = nil }),
		"a part twice":                     cut(func(c *CutCommit) { c.Parts[1] = c.Parts[0] }),
		"parts out of order":               cut(func(c *CutCommit) { c.Parts[0], c.Parts[1] = c.Parts[1], c.Parts[0] }),
		"too many parts":                   cut(func(c *CutCommit) { c.Parts = many }),
		"a part that no disk holds":        cut(func(c *CutCommit) { c.Parts[0].Bytes = maxBytes + 1 }),
		"more uses left than can be":       TokenUse{Name: "t", Left: Spent - 1},
		"a manifest without parts":         CutReplace{Step: 10, Manifest: digest(1)},
		"laws without parts":               CutReplace{Step: 10, Conservation: whole(2)},
		"a cut that was at no step":        CutReplace{Step: math.MaxInt64 + 1},
		"more than an entry holds": GenerationOpen{Number: 1, From: Start, Holders: func() (ids []string) {
			for range maxShards {
				ids = append(ids, strings.Repeat("x", maxName))
			}
			return ids
		}()},
	} {
		e := Entry{Exp: id(1), At: noon, Command: cmd}
		if cmd != nil {
			e = entryOf(cmd)
		}
		if _, err := Encode(e); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := Encode(Entry{Command: ExpDelete{}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a command about no experiment: %v", err)
	}
	if _, err := Encode(Entry{Exp: id(1), Command: Noop{}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a command of the cluster about an experiment: %v", err)
	}
}

// TestDecodeAllocatesNoMoreThanItIsGiven gives it counts that promise more than there is, and lists of the smallest elements.
func TestDecodeAllocatesNoMoreThanItIsGiven(t *testing.T) {
	parts := commit(1, 10)
	parts.Parts = nil
	for i := range 4000 {
		parts.Parts = append(parts.Parts, Part{Name: fmt.Sprintf("%04d", i)})
	}
	open := GenerationOpen{Number: 1, From: Start}
	for range maxShards {
		open.Holders = append(open.Holders, "r")
	}
	rng := rand.New(rand.NewPCG(4, 4))
	for _, cmd := range append(examples(), parts, open) {
		data := encoded(t, entryOf(cmd))
		inputs := [][]byte{data}
		for range 30 {
			mutant := bytes.Clone(data[:len(data)-tailBytes])
			for i := range min(4, len(mutant)-headBytes) {
				mutant[headBytes+rng.IntN(len(mutant)-headBytes)] = []byte{0xff, 0xff, 0x3f, 0}[i]
			}
			inputs = append(inputs, seal(mutant))
		}
		for _, in := range inputs {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = Decode(in)
			runtime.ReadMemStats(&after)
			// A string of a byte is 5 bytes in the entry, and 16 and one or two in memory.
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(6*len(in)+64<<10); got > most {
				t.Errorf("%T: %d bytes allocated for %d, want at most %d", cmd, got, len(in), most)
			}
		}
	}
}
