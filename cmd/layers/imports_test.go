package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/layers-pub/layers-appview/"

// allowed is the import table: what each package of the module may import of the
// module. Packages that are not in it may not exist. docs/architecture.md tells
// the reasons.
var allowed = map[string][]string{
	// The words, and what stands on nothing else.
	"lexicons":           {},
	"internal/record":    {},
	"internal/query":     {},
	"internal/directory": {},
	"internal/cache":     {},
	"internal/checkup":   {},
	"internal/telemetry": {},
	"internal/daemon":    {"internal/cache"},
	"internal/embedpg":   {"internal/cache", "internal/daemon"},
	"indexer/firehose":   {},

	// What a collection is, and the stores.
	"internal/catalog":   {"lexicons", "internal/record"},
	"internal/store":     {"internal/telemetry", "internal/record"},
	"internal/search":    {"internal/telemetry", "internal/record", "internal/query"},
	"internal/traversal": {"internal/record"},
	"internal/graph":     {"internal/telemetry", "internal/record", "internal/traversal"},
	// Beside the truth in the same database, but with no part in it.
	"internal/store/relations":  {"internal/record", "internal/traversal", "internal/store"},
	"internal/store/fulltext":   {"internal/record", "internal/query", "internal/store"},
	"internal/store/statistics": {"internal/record"},
	"internal/store/layout":     {"internal/catalog", "internal/store"},
	"indexer/verify":            {"internal/record"},
	"indexer/resync":            {"internal/record", "internal/catalog", "internal/store", "indexer/verify"},

	// From the truth to its projections.
	"indexer/project":   {"internal/record", "internal/query", "internal/catalog", "internal/search", "internal/graph", "internal/traversal"},
	"indexer/task":      {"internal/telemetry", "internal/record", "internal/catalog", "internal/store", "internal/store/relations", "internal/store/fulltext", "internal/search", "internal/graph", "internal/traversal", "indexer/project"},
	"indexer/reconcile": {"internal/record", "internal/catalog", "internal/store", "internal/store/relations", "internal/store/fulltext", "internal/search", "internal/graph", "indexer/project"},
	"indexer/rebuild":   {"internal/record", "internal/catalog", "internal/store", "internal/search", "internal/graph", "indexer/project"},
	"indexer/replay":    {"internal/record", "internal/catalog", "internal/store"},
	"indexer/backfill":  {"internal/store"},
	"indexer":           {"internal/telemetry", "internal/record", "internal/catalog", "internal/store", "indexer/firehose", "indexer/verify", "indexer/resync"},

	// The answers.
	"internal/volatile": {"internal/telemetry"},
	"appview/xrpc":      {"internal/record", "internal/catalog", "internal/store"},
	"appview/traffic":   {"internal/volatile", "appview/xrpc"},
	"appview/caller":    {"appview/traffic", "appview/xrpc"},
	"appview/admin":     {"internal/record", "internal/store", "appview/caller", "appview/xrpc"},
	"appview/live":      {"internal/record", "internal/catalog", "internal/store", "appview/xrpc"},
	"appview/cache":     {"internal/volatile", "internal/record", "internal/store"},
	"appview/rest":      {"appview/live", "appview/traffic", "appview/cache", "internal/query", "internal/traversal", "internal/record", "internal/catalog", "internal/store", "internal/store/statistics", "appview/xrpc"},
	"appview":           {"internal/telemetry", "appview/admin", "appview/caller", "appview/live", "appview/traffic", "appview/cache", "internal/catalog", "appview/xrpc", "appview/rest"},

	// A network for development, tests and benchmarks.
	"internal/fixture":  {"lexicons", "internal/record"},
	"internal/simulate": {"internal/record", "internal/fixture"},

	// What can go wrong on that network.
	"internal/simulate/fault": {"internal/simulate"},

	// The wiring.
	"cmd/layers": {
		"internal/telemetry", "lexicons", "internal/record", "internal/query", "internal/catalog", "internal/directory", "internal/store", "internal/store/relations", "internal/store/fulltext", "internal/store/statistics", "internal/store/layout", "internal/search", "internal/traversal",
		"internal/graph", "internal/embedpg", "internal/cache", "internal/checkup", "internal/simulate", "indexer", "indexer/backfill", "indexer/firehose",
		"indexer/verify", "indexer/resync", "indexer/project", "indexer/task", "indexer/reconcile", "indexer/rebuild", "indexer/replay", "appview", "appview/admin", "appview/caller", "appview/xrpc", "appview/rest", "appview/traffic", "appview/cache", "appview/live",
	},
}

// free are the folders of tests' and benchmarks' own programs, and the test
// helpers that live beside a store; nothing above may import them.
func free(pkg string) bool {
	return strings.HasPrefix(pkg, "test/") || strings.HasPrefix(pkg, "bench/") || strings.HasSuffix(pkg, "test")
}

func TestImportsFollowTheTable(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "testdata" || entry.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		seen[pkg] = true
		if !free(pkg) {
			checkImports(t, file, rel, pkg)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range allowed {
		if !seen[pkg] {
			t.Errorf("%s is in the table, but no such package exists", pkg)
		}
	}
}

func checkImports(t *testing.T, file, rel, pkg string) {
	t.Helper()
	may, ok := allowed[pkg]
	if !ok {
		t.Errorf("%s: package %s is not in the import table", rel, pkg)
		return
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range parsed.Imports {
		dep, inside := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
		if inside && !slices.Contains(may, dep) {
			t.Errorf("%s: %s may not import %s", rel, pkg, dep)
		}
	}
}
