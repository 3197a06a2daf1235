package lexicons_test

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/lexicons"
)

// shortest is the length in bytes below which a description says nothing.
const shortest = 15

// node is any schema node of a lexicon, seen only for its prose and its children.
type node struct {
	Type, Description, Title, Detail string

	Defs, Properties          map[string]*node
	Items, Record, Parameters *node
	Input, Output, Message    *struct{ Schema *node }
	Errors                    []struct{ Name, Description string }
}

func TestEverythingIsDescribed(t *testing.T) {
	t.Parallel()
	seen := 0
	for id, file := range files(t) {
		for name, def := range file.Defs {
			def.texts(id+"#"+name, func(path, text string) {
				seen++
				assert.GreaterOrEqual(t, len(strings.TrimSpace(text)), shortest, "description of %s: %q", path, text)
			})
		}
	}
	require.Positive(t, seen)
}

func TestFilesWithoutMainDescribeThemselves(t *testing.T) {
	t.Parallel()
	for id, file := range files(t) {
		if file.Defs["main"] == nil {
			assert.GreaterOrEqual(t, len(file.Description), shortest, id)
		}
	}
}

func TestMainDescriptionsDiffer(t *testing.T) {
	t.Parallel()
	owner := map[string]string{}
	for id, file := range files(t) {
		if main := file.Defs["main"]; main != nil {
			assert.Empty(t, owner[main.Description], "%s has the same description", id)
			owner[main.Description] = id
		}
	}
	require.NotEmpty(t, owner)
}

// files reads every embedded lexicon, by NSID.
func files(t *testing.T) map[string]*node {
	t.Helper()
	out := map[string]*node{}
	err := fs.WalkDir(lexicons.FS, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(lexicons.FS, path)
		require.NoError(t, err)
		var file node
		require.NoError(t, json.Unmarshal(raw, &file), path)
		out[strings.ReplaceAll(strings.TrimSuffix(path, ".json"), "/", ".")] = &file
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}

// texts calls see with the path and the prose of n and of all that is named
// below it, missing prose included.
func (n *node) texts(path string, see func(path, text string)) {
	see(path, n.Description)
	if n.Type == "permission-set" {
		see(path+" (title)", n.Title)
		see(path+" (detail)", n.Detail)
	}
	for _, e := range n.Errors {
		see(path+" error "+e.Name, e.Description)
	}
	n.members(path, see)
	for part, child := range map[string]*node{"": n.Record, "?": n.Parameters} {
		child.members(path+part, see)
	}
	for part, body := range map[string]*struct{ Schema *node }{"<": n.Input, ">": n.Output, "!": n.Message} {
		if body != nil {
			body.Schema.members(path+part, see)
		}
	}
	if n.Items != nil && n.Items.Type == "object" {
		n.Items.texts(path+"[]", see)
	}
}

// members is texts for the properties of a node that needs no prose of its own.
func (n *node) members(path string, see func(path, text string)) {
	if n == nil {
		return
	}
	for name, property := range n.Properties {
		property.texts(path+"."+name, see)
	}
}
