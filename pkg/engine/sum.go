package engine

// summation adds up vectors that the shards of a group have, one each, in a binary tree over the shards which the layout alone
// fixes: whoever holds which of them, the sum has the same bits. The root is the lead shard, and the others follow it in the order of
// their numbers: in round r = 0, 1, … the shard at place p + 2^r gives its sum to the one at place p, for every multiple p of
// 2^(r+1). So the lead's replica receives one vector a round, and no replica more.
type summation struct {
	places []Place
	lead   int // index among places
	mesh   Mesh
}

// add returns the sum where the lead shard is held, and nil elsewhere. parts has the vector of each shard that is held here, and
// nil for the others; it changes them.
func (s summation) add(call uint64, parts [][]float32) ([]float32, error) {
	n := len(s.places)
	at := func(place int) int { return (s.lead + place) % n }
	for width := 1; width < n; width *= 2 {
		for place := width; place < n; place += 2 * width {
			if from, to := at(place), at(place-width); parts[from] != nil && parts[to] == nil {
				s.mesh.Post(s.key(call, from, to), numberBytes(parts[from]))
			}
		}
		for place := width; place < n; place += 2 * width {
			from, to := at(place), at(place-width)
			if parts[to] == nil {
				continue
			}
			other := parts[from]
			if other == nil {
				var err error
				if other, err = pull[float32](s.mesh, s.key(call, from, to), len(parts[to])); err != nil {
					return nil, err
				}
			}
			for i, v := range other {
				parts[to][i] += v
			}
		}
	}
	return parts[s.lead], nil
}

func (s summation) key(call uint64, from, to int) Key {
	return Key{Shard: s.places[from].ID, Kind: PartBlob, Scan: call, To: s.places[to].ID}
}
