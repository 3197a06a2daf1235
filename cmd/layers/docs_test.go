package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"
)

// documented is what documents may name.
type documented struct {
	variables map[string]bool
	metrics   map[string]bool
	commands  map[string]map[string]bool // flags by command, as "dlq list"
	flags     map[string]bool            // of any command or program of ours
	targets   map[string]bool            // of make
	tests     map[string]bool
	answers   func(method, path string) bool // whether there is such an endpoint
}

const root = "../.."

// document is a file whose text is held against the program.
type document struct{ name, text string }

var (
	code      = regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	fence     = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	variable  = regexp.MustCompile(`\b(?:LAYERS|DATABASE|REDIS|ELASTICSEARCH|NEO4J)_[A-Z0-9]+(?:_[A-Z0-9]+)*\b`)
	metric    = regexp.MustCompile(`\blayers_[a-z0-9_]+`)
	inline    = regexp.MustCompile("`([^`\n]+)`")
	invoked   = regexp.MustCompile(`(?m)(-n +|namespace +|^|[\s(|&;])layers((?: +[^\s|&;#)<>]+)*)`)
	target    = regexp.MustCompile(`(?m)^(?:\$ )?make ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)`)
	endpoint  = regexp.MustCompile(`^(?:(GET|POST|DELETE|HEAD) )?(/[^\s]*)$`)
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	testName  = regexp.MustCompile(`^Test[A-Z]\w+$`)
	histogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// wrong names what a document says that is not so.
func (d *documented) wrong(doc document) (found []string) {
	tell := func(kind, name string) {
		if line := kind + " " + name; !slices.Contains(found, line) {
			found = append(found, line)
		}
	}
	for _, part := range code.FindAllString(doc.text, -1) {
		for _, name := range variable.FindAllString(part, -1) {
			if !d.variables[name] && !strings.Contains(part, name+"*") && !strings.Contains(part, name+"_") {
				tell("variable", name)
			}
		}
		for _, name := range metric.FindAllString(part, -1) {
			if !d.hasMetric(name) {
				tell("metric", name)
			}
		}
		for _, m := range target.FindAllStringSubmatch(strings.Trim(part, "`"), -1) {
			for _, name := range strings.Fields(m[1]) {
				if !d.targets[name] {
					tell("target", name)
				}
			}
		}
		for _, m := range invoked.FindAllStringSubmatch(strings.Trim(part, "`"), -1) {
			if strings.HasPrefix(m[1], "-n") || strings.HasPrefix(m[1], "namespace") { // of Kubernetes
				continue
			}
			for _, name := range d.unknown(strings.Fields(m[2])) {
				tell("command", name)
			}
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(doc.text, ""), -1) {
		if e := endpoint.FindStringSubmatch(m[1]); e != nil && !onDisk(e[2]) && !d.answers(e[1], e[2]) {
			tell("endpoint", m[1])
		}
		if testName.MatchString(m[1]) && !d.tests[m[1]] {
			tell("test", m[1])
		}
		if name, ok := strings.CutPrefix(m[1], "--"); ok && !d.flags[strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '=' })[0]] {
			tell("flag", m[1])
		}
	}
	for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(doc.text, ""), -1) {
		path, _, _ := strings.Cut(m[1], "#")
		if path == "" || strings.Contains(path, "://") || strings.HasPrefix(path, "mailto:") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(doc.name), path)); err != nil {
			tell("link", m[1])
		}
	}
	return found
}

// ofPostgres are names in PostgreSQL and elsewhere that look like metrics.
var ofPostgres = []string{"layers_reader", "layers_api", "layers_api_a", "layers_api_b", "layers_owner", "layers_next", "layers_old", "layers_appview", "layers_test", "layers_indexer", "layers_backup"}

func (d *documented) hasMetric(name string) bool {
	if slices.Contains(ofPostgres, name) || d.metrics[name] || d.metrics[histogram.ReplaceAllString(name, "")] {
		return true
	}
	for known := range d.metrics { // of several at once: layers_statistics_…
		if strings.HasSuffix(name, "_") && strings.HasPrefix(known, name) {
			return true
		}
	}
	return false
}

// unknown names what of a command line there is not.
func (d *documented) unknown(words []string) (found []string) {
	path := ""
	for len(words) > 0 {
		next := strings.TrimSpace(path + " " + words[0])
		if _, ok := d.commands[next]; !ok {
			break
		}
		path, words = next, words[1:]
	}
	if path == "" {
		if len(words) > 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(words[0]) {
			return []string{words[0]}
		}
		return nil // COMMAND, dlq …
	}
	for _, word := range words {
		name, ok := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(strings.TrimRight(name, ",.:)`]'\""), "=")
		if ok && name != "" && name != "help" && !d.commands[path][name] {
			found = append(found, path+" --"+name)
		}
	}
	return found
}

// onDisk tells paths of files and of other services from our endpoints.
func onDisk(path string) bool {
	for _, prefix := range []string{"/run/", "/proc", "/tmp", "/var", "/etc", "/usr", "/dev", "/work", "/data", "/layers", "/spool", "/backup", "/secrets", "/home", "/bin", "/xrpc/com.atproto.", "/_", "/host"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return path == "/" || strings.ContainsAny(path, "…*|") || strings.HasSuffix(path, "/…")
}

// programHas is what there really is.
func programHas(t *testing.T) *documented {
	t.Helper()
	d := &documented{
		variables: map[string]bool{}, metrics: map[string]bool{}, commands: map[string]map[string]bool{}, flags: map[string]bool{"help": true, "version": true},
		targets: map[string]bool{}, tests: map[string]bool{},
	}
	app := newApp(io.Discard, io.Discard)
	for _, command := range app.Commands {
		d.addCommand("", command)
	}
	d.readSources(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(string(makefile), -1) {
		d.targets[m[1]] = true
	}
	d.answers = endpoints(t)
	return d
}

func (d *documented) addCommand(parent string, command *cli.Command) {
	name := strings.TrimSpace(parent + " " + command.Name)
	d.commands[name] = map[string]bool{}
	for _, f := range command.Flags {
		for _, n := range f.Names() {
			d.commands[name][n], d.flags[n] = true, true
			if _, inverse := f.(*cli.BoolWithInverseFlag); inverse {
				d.commands[name]["no-"+n], d.flags["no-"+n] = true, true
			}
		}
		for _, variable := range f.(cli.DocGenerationFlag).GetEnvVars() {
			d.variables[variable] = true
			if s, ok := f.(*cli.StringFlag); ok && s.HideDefault {
				d.variables[variable+"_FILE"] = true
			}
		}
	}
	for _, sub := range command.Commands {
		d.addCommand(name, sub)
		for flag := range d.commands[name] { // of the parent, which takes them too
			d.commands[name+" "+sub.Name][flag] = true
		}
	}
}

// readSources finds metrics where they are defined, tests, and what tests, benchmarks
// and scripts read from the environment or take as flags.
func (d *documented) readSources(t *testing.T) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "testdata" || entry.Name() == ".git") {
			return filepath.SkipDir
		}
		rel, _ := filepath.Rel(root, path)
		if strings.HasSuffix(path, ".go") {
			d.readGo(t, path)
		}
		own := strings.HasPrefix(rel, "test/") || strings.HasPrefix(rel, "bench/") || strings.HasPrefix(rel, "internal/store/storetest/")
		script := strings.HasSuffix(path, ".sh") || strings.HasPrefix(rel, "k8s/disaster-recovery/") || entry.Name() == "Makefile" || strings.HasPrefix(rel, "docker/")
		if !entry.IsDir() && (own || script) && !strings.HasSuffix(path, ".md") {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, name := range variable.FindAllString(string(content), -1) {
				d.variables[name] = true
			}
			for _, m := range regexp.MustCompile(`(?:flag\.|flags\.|--)(?:\w+\()?"?([a-z][a-z-]+)`).FindAllStringSubmatch(string(content), -1) {
				d.flags[m[1]] = true
			}
		}
		return nil
	}))
}

func (d *documented) readGo(t *testing.T, path string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, declared := range file.Decls {
		if f, ok := declared.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") {
			d.tests[f.Name.Name] = true
		}
	}
	if strings.HasSuffix(path, "_test.go") {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if name, err := strconv.Unquote(literal.Value); err == nil && regexp.MustCompile(`^layers_[a-z0-9_]*[a-z0-9]$`).MatchString(name) && !slices.Contains(ofPostgres, name) {
				d.metrics[name] = true
			}
		}
		return true
	})
}

// documents are the texts that are held against the program.
func documents(t *testing.T) (all []document) {
	t.Helper()
	add := func(path string) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		all = append(all, document{name, string(content)})
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md"} {
		add(filepath.Join(root, name))
	}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "docs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") {
			add(path)
		}
		return err
	}))
	return all
}

// TestDocumentsNameWhatThereIs reads all documents.
func TestDocumentsNameWhatThereIs(t *testing.T) {
	program := programHas(t)
	require.Greater(t, len(program.metrics), 40)
	for _, doc := range documents(t) {
		for _, line := range program.wrong(doc) {
			t.Errorf("%s: there is no %s", doc.name, line)
		}
	}
}

// TestWrongNamesAreFound gives the check documents with a wrong name each, and one
// with the same names as they are.
func TestWrongNamesAreFound(t *testing.T) {
	program := programHas(t)
	for text, want := range map[string]string{
		"`LAYERS_LISTEM`": "variable LAYERS_LISTEM",
		"```sh\nDATABASE_URL_FOLE=x layers api\n```": "variable DATABASE_URL_FOLE",
		"`layers_http_request_total`":                "metric layers_http_request_total",
		"`rate(layers_nothing_total[5m])`":           "metric layers_nothing_total",
		"`/api/v1/serch`":                            "endpoint /api/v1/serch",
		"`POST /api/v1/admin/dlq/{id}/repeat`":       "endpoint POST /api/v1/admin/dlq/{id}/repeat",
		"`DELETE /api/v1/admin/dlq`":                 "endpoint DELETE /api/v1/admin/dlq",
		"`/healthz`":                                 "endpoint /healthz",
		"`layers reindecks`":                         "command reindecks",
		"```\nlayers dlq list --colection x\n```":    "command dlq list --colection",
		"`layers backfill --everything`":             "command backfill --everything",
		"`--like-no-other`":                          "flag --like-no-other",
		"`make tets`":                                "target tets",
		"[there](docs/nowhere.md)":                   "link docs/nowhere.md",
		"`TestThatNobodyWrote`":                      "test TestThatNobodyWrote",
	} {
		require.Equal(t, []string{want}, program.wrong(document{"README.md", "See " + text + "."}), text)
	}
	require.Empty(t, program.wrong(document{"README.md", "`LAYERS_LISTEN`, `DATABASE_URL_FILE`, `layers_http_requests_total`, `layers_http_request_duration_seconds_bucket`, `/api/v1/search`, `/search`," +
		"`POST /api/v1/admin/dlq/{id}/replay`, `/corpora/{uri}/members`, `/metrics`, `/xrpc/_health`, `/xrpc/pub.layers.corpus.getCorpus`, `layers reindex --to search`, `layers dlq replay --all`, `--no-cache`, " +
		"`make test race`, [x](docs/api.md#errors), `TestOperators`, `/run/secrets/a`\n```sh\nlayers api --listen :1 # x\n```\n"}))
}

// TestEveryMetricIsDocumented looks for each in the documents.
func TestEveryMetricIsDocumented(t *testing.T) {
	var all strings.Builder
	for _, doc := range documents(t) {
		all.WriteString(doc.text)
	}
	var lacking []string
	for name := range programHas(t).metrics {
		if !regexp.MustCompile(regexp.QuoteMeta(name) + `\b`).MatchString(all.String()) {
			lacking = append(lacking, name)
		}
	}
	slices.Sort(lacking)
	require.Empty(t, lacking, fmt.Sprintf("%d metrics are in no document", len(lacking)))
}
