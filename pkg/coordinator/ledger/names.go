package ledger

// Names are the blobs that the state comes to name if it accepts a command: those must be durable on a quorum before it is
// proposed, and every node gets them once it is applied. Repeated ones are repeated.
func Names(cmd Command) []Digest {
	switch c := cmd.(type) {
	case CutCommit:
		return blobs(c.Manifest, c.Parts)
	case CutReplace:
		return blobs(c.Manifest, c.Parts)
	case ExpRespec:
		return blobs(c.Manifest, c.Parts)
	}
	return nil
}

// blobs are those of a cut; none of one without parts.
func blobs(manifest Digest, parts []Part) []Digest {
	if len(parts) == 0 {
		return nil
	}
	digests := []Digest{manifest}
	for _, p := range parts {
		digests = append(digests, p.Digest)
	}
	return digests
}

// References are the blobs that the experiment names, as [State.References] says.
func (e *Experiment) References() map[Digest]uint64 {
	refs := map[Digest]uint64{}
	e.references(refs)
	return refs
}
