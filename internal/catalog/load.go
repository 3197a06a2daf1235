package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/lexicons"
)

// Load reads the embedded lexicons of pub.layers.*, and then every .json file in
// each of the given directories, in which an operator brings more record types.
//
// It is strict, since what it takes in decides which records are valid: a file
// that is no lexicon, a reference to a definition that no file has, a list query
// with a parameter that matches no property, a directory without a lexicon, and a
// lexicon that two files define differently are errors. Files that say the same
// may be there twice.
func Load(directories ...fs.FS) (*Catalog, error) {
	files := &library{schemas: lexicon.NewBaseCatalog(), files: map[string]file{}}
	if err := files.read(lexicons.FS, "embedded lexicons"); err != nil {
		return nil, err
	}
	for i, directory := range directories {
		if err := files.read(directory, fmt.Sprintf("lexicon directory %d", i+1)); err != nil {
			return nil, err
		}
	}
	return build(files)
}

// library holds the lexicon files as they were read.
type library struct {
	schemas *lexicon.BaseCatalog
	files   map[string]file // by NSID
}

type file struct {
	lexicon.SchemaFile
	origin string // for messages
	raw    []byte
}

func (l *library) read(directory fs.FS, name string) error {
	found := 0
	err := fs.WalkDir(directory, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(p) != ".json" {
			return err
		}
		raw, err := fs.ReadFile(directory, p)
		if err != nil {
			return err
		}
		found++
		if err := l.add(file{origin: name + ", " + p, raw: raw}); err != nil {
			return fmt.Errorf("file %s: %w", p, err)
		}
		return nil
	})
	if err == nil && found == 0 {
		err = errors.New("no .json file found")
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (l *library) add(f file) error {
	if err := json.Unmarshal(f.raw, &f.SchemaFile); err != nil {
		return fmt.Errorf("parse lexicon: %w", err)
	}
	if earlier, ok := l.files[f.ID]; ok {
		if same, err := sameJSON(earlier.raw, f.raw); err != nil || !same {
			return fmt.Errorf("lexicon %s differs from the one in %s", f.ID, earlier.origin)
		}
		return nil
	}
	// AddSchemaFile also checks the structure of every definition.
	if err := l.schemas.AddSchemaFile(f.SchemaFile); err != nil {
		return fmt.Errorf("lexicon %q: %w", f.ID, err)
	}
	l.files[f.ID] = f
	return nil
}

func sameJSON(a, b []byte) (bool, error) {
	if bytes.Equal(a, b) {
		return true, nil
	}
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		return false, err
	}
	return reflect.DeepEqual(x, y), nil
}

// build makes the catalog of the files: schemas first, then collections, then the
// queries, which name collections.
func build(l *library) (*Catalog, error) {
	compiler := &compiler{schemas: l.schemas, done: map[string]*Schema{}}
	c := &Catalog{
		collections: map[syntax.NSID]*Collection{},
		types:       compiler.done,
		foreign:     map[syntax.NSID]*Collection{},
	}
	ids := slices.Sorted(maps.Keys(l.files))
	for _, id := range ids {
		if err := c.addDefinitions(compiler, l.files[id].SchemaFile); err != nil {
			return nil, fmt.Errorf("lexicon %s (%s): %w", id, l.files[id].origin, err)
		}
	}
	for _, id := range ids {
		def, ok := l.files[id].Defs["main"].Inner.(lexicon.SchemaQuery)
		if !ok {
			continue
		}
		if err := c.addQuery(compiler, syntax.NSID(id), def); err != nil {
			return nil, fmt.Errorf("lexicon %s (%s): %w", id, l.files[id].origin, err)
		}
	}
	return c, nil
}

func (c *Catalog) addDefinitions(compiler *compiler, f lexicon.SchemaFile) error {
	for _, name := range slices.Sorted(maps.Keys(f.Defs)) {
		switch def := f.Defs[name].Inner.(type) {
		case lexicon.SchemaQuery, lexicon.SchemaProcedure, lexicon.SchemaSubscription, lexicon.SchemaPermissionSet:
			// Not a kind of data.
		default:
			schema, err := compiler.named(strings.TrimSuffix(f.ID+"#"+name, "#main"))
			if err != nil {
				return err
			}
			if record, ok := def.(lexicon.SchemaRecord); ok {
				c.addCollection(syntax.NSID(f.ID), schema, text(record.Description))
			}
		}
	}
	return nil
}

func (c *Catalog) addCollection(nsid syntax.NSID, schema *Schema, description string) {
	collection := newCollection(nsid)
	collection.Foreign = false
	collection.Schema = schema
	collection.Description = description
	c.collections[nsid] = collection
	c.sorted = append(c.sorted, collection)
}

// text is an optional text of a lexicon; empty if it is not there.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
