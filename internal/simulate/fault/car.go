package fault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo"
)

// cidSize is the length of the CIDs in repositories.
const cidSize = 36

// archive is a CAR in its parts.
type archive struct {
	header   []byte // with its length
	sections []section
}

type section struct{ cid, block []byte }

// parse takes a CAR apart that was made by package simulate.
func parse(car []byte) archive {
	take := func() []byte {
		size, n := binary.Uvarint(car)
		part := car[n : n+int(size)]
		car = car[n+int(size):]
		return part
	}
	whole := car
	take()
	a := archive{header: slices.Clone(whole[:len(whole)-len(car)])}
	for len(car) > 0 {
		part := take()
		a.sections = append(a.sections, section{slices.Clone(part[:cidSize]), slices.Clone(part[cidSize:])})
	}
	return a
}

func (a archive) bytes() []byte {
	out := slices.Clone(a.header)
	for _, s := range a.sections {
		out = binary.AppendUvarint(out, uint64(len(s.cid)+len(s.block)))
		out = append(append(out, s.cid...), s.block...)
	}
	return out
}

// Part is a part of a CAR.
type Part string

// The parts of a CAR in which a byte may be wrong.
const (
	Header Part = "header"
	Commit Part = "commit"
	Node   Part = "node"
	Record Part = "record"
	CID    Part = "CID"
)

// find returns the section that holds a part, or nil; the last of several, since the
// first ones may be there for the sake of others.
func (a archive) find(part Part) *section {
	for i := range a.sections {
		s := &a.sections[len(a.sections)-1-i]
		if part == CID || kind(s.block) == part {
			return s
		}
	}
	return nil
}

// kind tells what a block is: of the repository itself, its fields are in a known order.
func kind(block []byte) Part {
	switch {
	case bytes.HasPrefix(block, []byte("\xa6cdid")) || bytes.HasPrefix(block, []byte("\xa5cdid")):
		return Commit
	case bytes.HasPrefix(block, []byte("\xa2ae")):
		return Node
	}
	return Record
}

// Flip makes one byte of a CAR's part wrong. A CAR that lacks the part stays as it is.
func Flip(car []byte, part Part) []byte {
	a := parse(car)
	if part == Header {
		a.header[len(a.header)-2] ^= 0x10
		return a.bytes()
	}
	s := a.find(part)
	switch {
	case s == nil:
	case part == CID:
		s.cid[cidSize-1] ^= 0x10
	default:
		s.block[len(s.block)/2] ^= 0x10
	}
	return a.bytes()
}

// Without leaves out the section that holds a part.
func Without(car []byte, part Part) []byte {
	a := parse(car)
	if s := a.find(part); s != nil {
		a.sections = slices.DeleteFunc(a.sections, func(other section) bool { return bytes.Equal(other.cid, s.cid) })
	}
	return a.bytes()
}

// Resigned puts another signature into a CAR's commit; all CIDs fit. It returns the
// commit's new CID.
func Resigned(car []byte, sign func(unsigned []byte) []byte) (resigned, head []byte) {
	a := parse(car)
	s := a.find(Commit)
	var commit repo.Commit
	if s == nil || commit.UnmarshalCBOR(bytes.NewReader(s.block)) != nil {
		return car, nil
	}
	unsigned, err := commit.UnsignedBytes()
	if err != nil {
		return car, nil
	}
	if commit.Sig = sign(unsigned); commit.Sig == nil {
		return car, nil
	}
	var encoded bytes.Buffer
	if commit.MarshalCBOR(&encoded) != nil {
		return car, nil
	}
	was := slices.Clone(s.cid)
	sum := sha256.Sum256(encoded.Bytes())
	copy(s.cid[4:], sum[:])
	s.block = encoded.Bytes()
	a.header = bytes.Replace(a.header, was, s.cid, 1)
	return a.bytes(), s.cid
}

// fillerBlock is a section that fits into any CAR.
func fillerBlock() []byte {
	block := append([]byte{0x59, 0xff, 0xff}, make([]byte, 0xffff)...) // a byte string
	sum := sha256.Sum256(block)
	return archive{sections: []section{{append([]byte{0x01, 0x71, 0x12, 0x20}, sum[:]...), block}}}.bytes()
}
