package catalog

// Limits of a record, whatever its lexicon.
const (
	MaxSize    = 1_000_000 // bytes of its block
	MaxNesting = 32        // containers inside of one another, the record itself included
	maxInteger = 1<<53 - 1 // and the same below zero: the data model's integers survive JSON
)

// key reads a property's name, which must come after the last one in the
// canonical order: shorter names first, then by bytes.
func (s *scanner) key(first bool, last string) (string, *Invalid) {
	major, n, err := s.head()
	if err != nil {
		return "", err
	}
	if major != majorText {
		return "", s.malformed("a property's name is not a string")
	}
	key, err := s.string(n)
	switch {
	case err != nil:
		return "", err
	case first, len(last) < len(key), len(last) == len(key) && last < key:
	case last == key:
		return "", s.malformed("a property is there twice").under(segment(key))
	default:
		return "", s.malformed("properties are out of order").under(segment(key))
	}
	if key == "$link" || key == "$bytes" {
		// {"$link": ...} is how JSON writes a link: such an object would come back as one.
		return "", (&Invalid{Reason: "the data model reserves this name for JSON", Expected: "another name"}).under(segment(key))
	}
	return key, nil
}

// checkType looks at a $type that was read from position at.
func (s *scanner) checkType(at int) (isBlob bool, err *Invalid) {
	r := reader{s.text, at}
	if r.major() != majorText || r.text[r.pos] == majorText<<5 {
		return false, &Invalid{Reason: "wrong type", Expected: "a string that is not empty", Received: describe(r)}
	}
	return r.string() == blobType, nil
}

// checkBlob holds an object of type blob to the data model
// (https://atproto.com/specs/data-model#blob-type).
func checkBlob(r reader) *Invalid {
	whole := r
	seen := 0
	for range r.container() {
		key := r.string()
		major := r.major()
		switch {
		case key == typeKey, key == "mimeType" && major == majorText, key == "ref" && major == majorTag, key == "size" && major == majorUint:
			seen++
		default:
			return (&Invalid{Reason: "malformed blob", Expected: "ref (a link), mimeType (a string) and size (an integer, 0 or more)", Received: describe(r)}).under(segment(key))
		}
		r.skip()
	}
	if seen != 4 {
		return &Invalid{Reason: "malformed blob", Expected: "ref, mimeType and size", Received: describe(whole)}
	}
	return nil
}
