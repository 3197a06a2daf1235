// Package monitoring checks what operators look at against what the programs export:
// rules, dashboards and the table of metrics name nothing else. The live package beside
// it does so with a real Prometheus and a real collector.
package monitoring

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// Metric is one that the programs declare.
type Metric struct {
	Name, Type, Help string
	Labels           []string
	Package          string // that declares it
}

var kinds = map[string]string{
	"NewCounter": "counter", "NewCounterVec": "counter", "NewGauge": "gauge", "NewGaugeVec": "gauge", "NewGaugeFunc": "gauge",
	"NewHistogram": "histogram", "NewHistogramVec": "histogram", "NewDesc": "gauge",
}

// Declared reads the metrics from the source below root, by their names.
func Declared(root string) (map[string]Metric, error) {
	found := map[string]Metric{}
	for _, tree := range []string{"appview", "cmd", "indexer", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return fmt.Errorf("reading metrics: %w", err)
			}
			pkg, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if m, ok := declaration(call); ok {
						m.Package = filepath.ToSlash(pkg)
						found[m.Name] = m
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// declaration is the metric that a call makes, if it makes one of ours.
func declaration(call *ast.CallExpr) (m Metric, ok bool) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || kinds[selector.Sel.Name] == "" {
		return m, false
	}
	m.Type = kinds[selector.Sel.Name]
	for i, arg := range call.Args {
		switch arg := arg.(type) {
		case *ast.BasicLit: // NewDesc(name, help, …)
			switch i {
			case 0:
				m.Name = text(arg)
			case 1:
				m.Help = text(arg)
			}
		case *ast.CompositeLit:
			m.read(arg)
		}
	}
	return m, strings.HasPrefix(m.Name, "layers_")
}

// read takes what options and lists of labels say.
func (m *Metric) read(literal *ast.CompositeLit) {
	if _, list := literal.Type.(*ast.ArrayType); list {
		for _, label := range literal.Elts {
			m.Labels = append(m.Labels, text(label))
		}
		return
	}
	for _, e := range literal.Elts {
		field, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch name, _ := field.Key.(*ast.Ident); {
		case name == nil:
		case name.Name == "Name":
			m.Name = text(field.Value)
		case name.Name == "Help":
			m.Help = text(field.Value)
		}
	}
}

func text(e ast.Expr) string {
	literal, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	value, err := strconv.Unquote(literal.Value)
	if err != nil {
		return ""
	}
	return value
}
