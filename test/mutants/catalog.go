package main

import "slices"

// catalog are the changes that tests must notice. A name is the place, and what
// the change would let happen.
func catalog() []mutant {
	return slices.Concat(
		in("indexer/verify", "indexer/verify", "", false, verifyMutants),
		in("indexer/firehose", "indexer/firehose", "TestConformance|TestDecode|TestEveryTypeIsDecoded", false, firehoseMutants),
		in("internal/directory", "internal/directory", "", false, directoryMutants),
		in("indexer", "indexer", "", true, lineMutants),
		in("internal/store", "internal/store", "", true, storeMutants),
	)
}

// in completes mutants of one package: file is only its last part so far.
func in(dir, tests, run string, stores bool, mutants []mutant) []mutant {
	out := slices.Clone(mutants)
	for i := range out {
		out[i].file = dir + "/" + out[i].file
		out[i].tests, out[i].run, out[i].stores = "./"+tests, run, stores
	}
	return out
}

var verifyMutants = []mutant{
	{name: "verify/key: a signature that does not fit is taken", file: "key.go", old: "if err := key.HashAndVerify(commit.unsigned, commit.sig); err != nil {", new: "if err := key.HashAndVerify(commit.unsigned, commit.sig); err != nil && false {"},
	{name: "verify/key: no refresh", file: "key.go", old: "if refusal == nil || !k.mayRefresh(commit.did) {", new: "if true {"},
	{name: "verify/key: refreshes without limit", file: "key.go", old: "if refusal == nil || !k.mayRefresh(commit.did) {", new: "if refusal == nil {"},
	{name: "verify/key: the refresh does not forget", file: "key.go", old: "if err := k.directory.Purge(ctx, commit.did.AtIdentifier()); err != nil {", new: "if err := error(nil); err != nil {"},
	{name: "verify/key: the key of the refresh is not used", file: "key.go", old: "return account, k.verify(account, commit)", new: "return account, refusal"},
	{name: "verify/key: unknown accounts are looked up again", file: "key.go", old: "errors.Is(err, identity.ErrDIDNotFound), try == lookupTries", new: "errors.Is(err, context.Canceled), try == lookupTries"},
	{name: "verify/key: hosts that hang are asked three times", file: "key.go", old: "case try == 2:", new: "case try == 4:"},
	{name: "verify/key: the directory is asked once", file: "key.go", old: `case did.Method() == "plc":`, new: `case did.Method() == "none":`},
	{name: "verify/key: a parsed key is kept for every account", file: "key.go", old: `method := account.Keys["atproto"]`, new: `method := identity.VerificationMethod{Type: account.Keys["atproto"].Type}`},

	{name: "verify/event: tooBig is taken", file: "verify.go", old: "msg.TooBig || msg.Rebase", new: "msg.Rebase"},
	{name: "verify/event: rebase is taken", file: "verify.go", old: "msg.TooBig || msg.Rebase", new: "msg.TooBig"},
	{name: "verify/event: one byte more", file: "verify.go", old: "len(msg.Blocks) > MaxBlocks", new: "len(msg.Blocks) > MaxBlocks+1"},
	{name: "verify/event: one byte less", file: "verify.go", old: "len(msg.Blocks) > MaxBlocks", new: "len(msg.Blocks) >= MaxBlocks"},
	{name: "verify/event: one op more", file: "verify.go", old: "len(msg.Ops) > MaxOps", new: "len(msg.Ops) > MaxOps+1"},
	{name: "verify/event: one op less", file: "verify.go", old: "len(msg.Ops) > MaxOps", new: "len(msg.Ops) >= MaxOps"},
	{name: "verify/event: since may be rev", file: "verify.go", old: "if commit.Since >= rev {", new: "if commit.Since > rev {"},
	{name: "verify/event: the CAR may have another root", file: "verify.go", old: "if root != cid.Cid(msg.Commit) {", new: "if false {"},
	{name: "verify/event: another repo", file: "verify.go", old: "string(signed.did) != msg.Repo || ", new: ""},
	{name: "verify/event: another rev", file: "verify.go", old: ` || string(signed.rev) != msg.Rev {
		return nil, signedCommit{}`, new: ` {
		return nil, signedCommit{}`},
	{name: "verify/event: prevData without since", file: "verify.go", old: "if prevData != nil && *prevData != emptyTree {", new: "if false {"},
	{name: "verify/event: a first commit may lead from anywhere", file: "verify.go", old: "		prevData = &emptyTree\n", new: ""},
	{name: "verify/event: strict is lenient", file: "verify.go", old: "case v.lenient:", new: "case true:"},
	{name: "verify/event: lenient is strict", file: "verify.go", old: "case v.lenient:", new: "case false:"},
	{name: "verify/event: lenient does not check what it could", file: "verify.go", old: "case prevData != nil && invertible(ops):", new: "case !v.lenient && prevData != nil && invertible(ops):"},
	{name: "verify/event: lenient ops for all", file: "verify.go", old: "parseOps(commit.DID, msg.Ops, v.lenient)", new: "parseOps(commit.DID, msg.Ops, true)", argued: true},
	{name: "verify/event: unfollowed records are kept", file: "tree.go", old: "if !follows(o.key.Collection) {", new: "if false {"},
	{name: "verify/sync: another did", file: "verify.go", old: "signed.did != did || ", new: ""},
	{name: "verify/sync: another rev", file: "verify.go", old: "signed.did != did || string(signed.rev) != msg.Rev", new: "signed.did != did"},
	{name: "verify/sync: any size", file: "verify.go", old: "if len(msg.Blocks) > MaxSync {", new: "if false {"},
	{name: "verify/sync: the future", file: "verify.go", old: `	if err := v.checkRev(signed.rev); err != nil {
		return record.Commit{}, err
	}
	if _, err`, new: `	if _, err`},
	{name: "verify/sync: no signature", file: "verify.go", old: "if _, err := v.keys.check(ctx, signed); err != nil {", new: "if _, err := v.keys.check(ctx, signed); err != nil && false {"},
	{name: "verify/forget: the account's keys stay", file: "verify.go", old: "return v.keys.directory.Purge(ctx, did.AtIdentifier())", new: "return nil"},
	{name: "verify/forget: its refreshes stay spent", file: "verify.go", old: "	v.keys.refreshed.Remove(did)\n", new: ""},

	{name: "verify/commit: any rev in the future", file: "commit.go", old: "ahead > FutureSkew", new: "false && ahead > FutureSkew"},
	{name: "verify/commit: no rev in the future", file: "commit.go", old: "ahead > FutureSkew", new: "ahead > 0"},
	{name: "verify/commit: version 2", file: "commit.go", old: "version != uint64(repo.ATPROTO_REPO_VERSION)", new: "version > uint64(repo.ATPROTO_REPO_VERSION)"},
	{name: "verify/commit: a property may lack", file: "commit.go", old: "case known != 6:", new: "case known < 5:"},
	{name: "verify/commit: bytes may follow", file: "commit.go", old: `	if err == nil {
		err = r.end()
	}
`, new: ""},
	{name: "verify/commit: later properties are not signed", file: "commit.go", old: "c.unsigned = append(c.unsigned, block[copied:]...)", new: `c.unsigned = append(c.unsigned, block[copied:]...)
	if known < int(n) {
		c.unsigned = c.unsigned[:1]
	}`},
	{name: "verify/signed: another root", file: "commit.go", old: "err != nil || c != root {", new: "err != nil || !c.Defined() {"},
	{name: "verify/signed: another account", file: "commit.go", old: "if commit.did != did {", new: "if false {"},
	{name: "verify/signed: the future", file: "commit.go", old: "if err := v.checkRev(commit.rev); err != nil {", new: "if false {\n\t\tvar err error"},

	{name: "verify/car: content that its CID does not name", file: "car.go", old: "!bytes.Equal(sum[:], content[4:cidLen])", new: "!bytes.Equal(sum[:4], content[4:8])", argued: true},
	{name: "verify/car: content is not checked", file: "car.go", old: "!bytes.Equal(sum[:], content[4:cidLen])", new: "false && !bytes.Equal(sum[:], content[4:cidLen])"},
	{name: "verify/car: one block more", file: "car.go", old: "if n == MaxSections {", new: "if n > MaxSections {"},
	{name: "verify/car: one block less", file: "car.go", old: "if n == MaxSections {", new: "if n == MaxSections-1 {"},
	{name: "verify/car: one byte of header more", file: "car.go", old: "len(header) > MaxHeader", new: "len(header) > MaxHeader+1"},
	{name: "verify/car: one byte of header less", file: "car.go", old: "len(header) > MaxHeader", new: "len(header) >= MaxHeader"},
	{name: "verify/car: version 2", file: "car.go", old: "version != 1 || !root.Defined()", new: "!root.Defined()"},
	{name: "verify/car: the last root", file: "car.go", old: "if i == 0 {", new: "if i >= 0 {"},
	{name: "verify/car: a section may end after the CAR", file: "car.go", old: "length > uint64(len(data)-n)", new: "length > uint64(len(data)-n)+1"},
	{name: "verify/car: a section may be shorter than a CID", file: "car.go", old: "len(content) < cidLen", new: "len(content) < 1"},

	{name: "verify/cbor: CIDs of other versions", file: "cbor.go", old: "raw[0] != 1 || ", new: "", argued: true},
	{name: "verify/cbor: CIDs of other codecs", file: "cbor.go", old: "raw[1] != cid.DagCBOR && raw[1] != cid.Raw || ", new: ""},
	{name: "verify/cbor: raw CIDs are refused", file: "cbor.go", old: "raw[1] != cid.DagCBOR && raw[1] != cid.Raw", new: "raw[1] != cid.DagCBOR"},
	{name: "verify/cbor: CIDs of other hashes", file: "cbor.go", old: " || raw[2] != 0x12", new: ""},
	{name: "verify/cbor: numbers may be too long", file: "cbor.go", old: "if width == 1 && argument < 24 || width > 1 && argument>>(width*4) == 0 {", new: "if false {"},
	{name: "verify/cbor: keys in any order", file: "cbor.go", old: "if i > 0 && !shorterFirst(last, key) {", new: "if i > 0 && false && !shorterFirst(last, key) {"},
	{name: "verify/cbor: keys twice", file: "cbor.go", old: "return bytes.Compare(a, b) < 0", new: "return bytes.Compare(a, b) <= 0"},
	{name: "verify/cbor: long keys first", file: "cbor.go", old: "return len(a) < len(b)", new: "return true"},
	{name: "verify/cbor: nesting without end", file: "cbor.go", old: "if depth == maxNesting {", new: "if false {"},
	{name: "verify/cbor: text that is not UTF-8", file: "cbor.go", old: "err == nil && !utf8.Valid(part)", new: "false && !utf8.Valid(part)"},
	{name: "verify/cbor: floats", file: "cbor.go", old: "if first != 0xf4 && first != 0xf5 && first != cborNull {", new: "if false {"},
	{name: "verify/cbor: links without prefix", file: "cbor.go", old: "len(raw) == 0 || raw[0] != 0", new: "len(raw) == 0"},
	{name: "verify/cbor: links under another tag", file: "cbor.go", old: "if tag != linkTag {", new: "if false {"},

	{name: "verify/node: keys at any height", file: "node.go", old: "mst.HeightForKey(e.Key) != height || ", new: ""},
	{name: "verify/node: keys beyond their neighbours", file: "node.go", old: " || !between(e.Key, after, before) {", new: " {"},
	{name: "verify/node: keys before the ones before", file: "node.go", old: "(after == nil || bytes.Compare(after, key) < 0)", new: "true"},
	{name: "verify/node: keys after the ones after", file: "node.go", old: "(before == nil || bytes.Compare(key, before) < 0)", new: "true"},
	{name: "verify/node: the key before may come again", file: "node.go", old: "bytes.Compare(after, key) < 0", new: "bytes.Compare(after, key) <= 0"},
	{name: "verify/node: the bound of the next key is not handed down", file: "node.go", old: "upper = entries[i+1].Key", new: "upper = before"},
	{name: "verify/node: empty nodes", file: "node.go", old: "} else if len(entries) == 0 {", new: "} else if false {"},
	{name: "verify/node: subtrees below height 0", file: "node.go", old: "if height == 0 {", new: "if false {"},
	{name: "verify/node: roots without keys", file: "node.go", old: `	if len(entries) > 0 {
		return 0, `, new: `	if false {
		return 0, `, argued: true},
	{name: "verify/node: subtrees at their parent's height", file: "node.go", old: "height-1, after, upper", new: "height, after, upper"},
	{name: "verify/node: keys without limit", file: "node.go", old: "if r.left -= size; r.left < 0 {", new: "if false {"},
	{name: "verify/node: a key of one byte more", file: "node.go", old: "size > mst.MAX_KEY_BYTES", new: "size > mst.MAX_KEY_BYTES+1"},
	{name: "verify/node: a key of one byte less", file: "node.go", old: "size > mst.MAX_KEY_BYTES", new: "size >= mst.MAX_KEY_BYTES"},
	{name: "verify/node: a key of nothing", file: "node.go", old: "size == 0 || ", new: ""},
	{name: "verify/node: prefixes of what is not there", file: "node.go", old: "if prefix > uint64(len(last)) {", new: "if false {"},
	{name: "verify/node: keys abbreviated by halves", file: "node.go", old: "if int(prefix) < len(last) && len(suffix) > 0 && suffix[0] == last[prefix] {", new: "if false {"},
	{name: "verify/node: bytes may follow", file: "node.go", old: "return entries, b.end()", new: "return entries, nil"},

	{name: "verify/tree: prevData is not compared", file: "tree.go", old: "if *before != prevData {", new: "if false {"},
	{name: "verify/tree: a create may have a prev", file: "tree.go", old: "ok = hasValue && !hasPrev\n", new: "ok = hasValue\n"},
	{name: "verify/tree: a create may lack its cid", file: "tree.go", old: "ok = hasValue && !hasPrev\n", new: "ok = !hasPrev\n"},
	{name: "verify/tree: an update may lack its prev", file: "tree.go", old: "ok = hasValue && (hasPrev || lenient)", new: "ok = hasValue", argued: true},
	{name: "verify/tree: a delete may lack its prev", file: "tree.go", old: "ok = !hasValue && (hasPrev || lenient)", new: "ok = !hasValue", argued: true},
	{name: "verify/tree: a delete may have a cid", file: "tree.go", old: "ok = !hasValue && (hasPrev || lenient)", new: "ok = hasPrev || lenient"},
	{name: "verify/tree: a panic ends the program", file: "tree.go", old: "if r := recover(); r != nil {", new: "if r := any(nil); r != nil {", argued: true},
	{name: "verify/tree: forward, a value may differ", file: "tree.go", old: "|| value != nil && *value != *o.Value {", new: "{"},
	{name: "verify/tree: forward, a delete may be none", file: "tree.go", old: "(value == nil) != (o.Value == nil) || value != nil", new: "(value == nil) && (o.Value != nil) || value != nil && o.Value != nil"},
	{name: "verify/tree: forward, paths may come twice", file: "tree.go", old: `	if _, err := normalize(ops); err != nil {
		return err
	}
	for`, new: `	for`},
}

var firehoseMutants = []mutant{
	{name: "firehose/event: one byte more", file: "event.go", old: "f.Size > MaxFrame", new: "f.Size > MaxFrame+1"},
	{name: "firehose/event: one byte less", file: "event.go", old: "f.Size > MaxFrame", new: "f.Size >= MaxFrame"},
	{name: "firehose/event: unknown operations are messages", file: "event.go", old: "case stream.EvtKindMessage:", new: "default:"},
	{name: "firehose/event: errors pass by", file: "event.go", old: "	err = decodeError(body)\n", new: ""},
	{name: "firehose/event: a header without operation passes by", file: "event.go", old: "	case 0:\n", new: "	case 99:\n"},
	{name: "firehose/event: no sequence number", file: "event.go", old: "	event.Seq = event.sequence()\n", new: ""},
	{name: "firehose/event: a sync is an account", file: "event.go", old: `case "#sync":`, new: `case "#account-":`},
	{name: "firehose/event: a panic ends the program", file: "event.go", old: "if r := recover(); r != nil {", new: "if r := any(nil); r != nil {", argued: true},
}

var directoryMutants = []mutant{
	{name: "directory/guard: every address", file: "guard.go", old: "err != nil || !isPublic(ip)", new: "err != nil || isPublic(ip) && false"},
	{name: "directory/guard: every port", file: "guard.go", old: "if g.ports != nil && !slices.Contains(g.ports, port) {", new: "if port == \"\" {"},
	{name: "directory/guard: IPv4 in IPv6", file: "guard.go", old: "address = address.Unmap()\n", new: "\n"},
	{name: "directory/guard: NAT64 to anywhere", file: "guard.go", old: "return isPublic(netip.AddrFrom4([4]byte(bytes[12:])))", new: "_ = bytes\n\t\treturn true"},
	{name: "directory/guard: IPv6 outside of the global space", file: "guard.go", old: "address.Is6() && !globalIPv6.Contains(address)", new: "false"},
	{name: "directory/guard: reserved networks", file: "guard.go", old: "return !slices.ContainsFunc(reserved,", new: "return true || !slices.ContainsFunc(reserved,"},
	{name: "directory/guard: link-local", file: "guard.go", old: `"169.254.0.0/16", `, new: ""},
	{name: "directory/guard: 172.16/12 is 172.16/13", file: "guard.go", old: "172.16.0.0/12", new: "172.16.0.0/13"},
	{name: "directory/guard: shared space", file: "guard.go", old: `"100.64.0.0/10", `, new: ""},
	{name: "directory/guard: Azure's metadata", file: "guard.go", old: `	"168.63.129.16/32",
`, new: ""},
	{name: "directory/guard: 6to4", file: "guard.go", old: `	"2002::/16",     // 6to4, which has an IPv4 address inside
`, new: ""},
	{name: "directory/guard: a proxy", file: "guard.go", old: `	return newTransport(guard{ports: []string{"80", "443"}}.dialer().DialContext)`, new: `	t := newTransport(guard{ports: []string{"80", "443"}}.dialer().DialContext)
	t.Proxy = http.ProxyFromEnvironment
	return t`},
	{name: "directory/guard: no guard", file: "guard.go", old: "if allowPrivate {", new: "if true {"},
	{name: "directory/guard: from https to http", file: "guard.go", old: `if via[len(via)-1].URL.Scheme == "https" &&`, new: `if false &&`},
	{name: "directory/guard: redirects without end", file: "guard.go", old: "len(via) > maxRedirects", new: "len(via) > 9"},
	{name: "directory/guard: answers without end", file: "guard.go", old: "if b.left -= int64(n); b.left < 0 {", new: "if false {"},
	{name: "directory/guard: one byte less", file: "guard.go", old: "if b.left -= int64(n); b.left < 0 {", new: "if b.left -= int64(n); b.left <= 0 {"},
	{name: "directory/guard: headers without end", file: "guard.go", old: ", MaxResponseHeaderBytes: maxHeader", new: ""},
	{name: "directory/guard: no deadline", file: "guard.go", old: "Timeout: clientTime, ", new: ""},
	{name: "directory/plc: redirects are followed", file: "directory.go", old: "return http.ErrUseLastResponse", new: "return nil"},
	{name: "directory/plc: did:web goes to the operator's client", file: "directory.go", old: `if did.Method() == "plc" {`, new: `if true {`},
}

var lineMutants = []mutant{
	{name: "line/chain: prevData is not compared", file: "chain.go", old: `c.PrevData != "" && c.PrevData != r.data`, new: `c.PrevData != "" && false`},
	{name: "line/chain: since is not compared", file: "chain.go", old: "case c.Since != r.rev:", new: "case false:", argued: true},
	{name: "line/chain: a rev may come twice", file: "chain.go", old: "o.verified.Commit.Rev <= state.rev", new: "o.verified.Commit.Rev < state.rev"},
	{name: "line/chain: a refused commit is passed over", file: "chain.go", old: `	case o.refused != nil:
		tx.refuse(s)
`, new: `	case o.refused != nil:
`},
	{name: "line/chain: commits without followed records break the chain", file: "chain.go", old: "!o.inScope && !state.known", new: "!o.inScope"},
	{name: "line/chain: keys are not forgotten", file: "chain.go", old: "tx.forget = append(tx.forget, o.did)", new: "_ = o"},
	{name: "line/chain: late commits are not verified", file: "chain.go", old: "tx.line.verifyLate(ctx, s.frame, o)", new: "_ = o"},
	{name: "line/chain: the cursor of the last event, not of the furthest", file: "chain.go", old: "max(tx.seq, o.event.Seq)", new: "o.event.Seq", argued: true},
	{name: "line/state: the cursor may move back", file: "state.go", old: "return host, max(seq, c.reached[host])", new: "return host, seq"},
	{name: "line/examine: an invalid record stays as it was", file: "examine.go", old: `change.Action, change.CID = record.Delete, ""`, new: `continue`},
	{name: "line/examine: what does not decode leaves no trace", file: "examine.go", old: "o.dead = []store.DeadLetter{{Host: frame.Host, Stage: stageFrame", new: "_ = []store.DeadLetter{{Host: frame.Host, Stage: stageFrame"},
}

var storeMutants = []mutant{
	{name: "store/decide: letters of repositories out of step are replayed", file: "apply.go", old: "!p.letters[c.DeadLetter] || p.repos[c.Key.DID].Sync != Synchronized", new: "!p.letters[c.DeadLetter]"},
	{name: "store/decide: letters that are gone are replayed", file: "apply.go", old: "!p.letters[c.DeadLetter] || p.repos[c.Key.DID].Sync != Synchronized", new: "p.repos[c.Key.DID].Sync != Synchronized"},
	{name: "store/decide: letters are not settled", file: "apply.go", old: "e.settled, e.revs = append(e.settled, c.Key), append(e.revs, string(c.Rev))", new: "_ = old"},
	{name: "store/decide: overtaken changes take effect", file: "apply.go", old: "if !c.takesEffect(old, repo) {", new: "if false {"},
	{name: "store/decide: deletes are updates", file: "apply.go", old: "case c.Action == record.Delete:\n\t\te.deletes = append(e.deletes, c.Key)\n", new: "case c.Action == record.Delete:\n"},
	{name: "store/decide: no projection hears of it", file: "apply.go", old: "e.outbox = append(e.outbox, outboxRow{target: target, key: c.Key, version: version})", new: "_ = target"},
	{name: "store/decide: versions repeat", file: "apply.go", old: "		version++\n		w.decideChange", new: "		w.decideChange"},
	{name: "store/decide: the waiting are not told", file: "apply.go", old: "w.decideReferrers(e, p, c.Key, version)", new: "_ = w"},
	{name: "store/decide: a repository's change of activity is not told", file: "apply.go", old: "r.Active != (!ok || old.Active)", new: "false && r.Active != (!ok || old.Active)"},
	{name: "store/decide: the lock is not looked at", file: "apply.go", old: "	if !held {\n		return nil, ErrLockLost", new: "	if false {\n		return nil, ErrLockLost", argued: true},
	{name: "store/decide: durability is left to the server", file: "apply.go", old: "IN ('off', 'local')", new: "IN ('none')"},
	{name: "store/write: a taken key is an error", file: "write.go", old: "	if isTaken(err) {", new: "	if false {"},
	{name: "store/write: taken keys are doubted by nobody", file: "write.go", old: "		w.doubt()\n", new: ""},
	{name: "store/merge: what was fetched is new", file: "merge.go", old: "c.Action == record.Create && !c.Resync && ", new: "c.Action == record.Create && "},
	{name: "store/pack: the rest of a pack is lost", file: "pack.go", old: "if n < left {", new: "if false {"},
	{name: "store/pack: rows are taken twice", file: "pack.go", old: "SET taken = taken + $3", new: "SET taken = taken + $3 - 1"},
	{name: "store/pack: packed rows do not count", file: "outbox.go", old: "CASE WHEN packed.rows > $1 THEN true", new: "CASE WHEN false THEN true"},
	{name: "store/write: the cursor is left behind", file: "apply.go", old: `if e.batch.Host != "" {`, new: `if false {`},
	{name: "store/write: purges are not written", file: "apply.go", old: "	e.writePurges(batch)\n", new: ""},
	{name: "store/write: held events are not written", file: "apply.go", old: "	e.writeHeld(batch)\n", new: ""},
	{name: "store/write: the list of fetches is not written", file: "apply.go", old: "	e.writeResyncs(batch)\n", new: ""},
	{name: "store/write: dead letters are not written", file: "apply.go", old: "	e.writeLetters(batch)\n", new: ""},
}
