package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Rule is an alerting or a recording rule.
type Rule struct {
	Alert       string            `yaml:"alert"`
	Record      string            `yaml:"record"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// Rules reads k8s/monitoring/rules.yaml.
func Rules(root string) (rules []Rule, err error) {
	raw, err := os.ReadFile(filepath.Join(root, "k8s/monitoring/rules.yaml"))
	if err != nil {
		return nil, fmt.Errorf("reading the rules: %w", err)
	}
	var file struct {
		Groups []struct {
			Rules []Rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("reading the rules: %w", err)
	}
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules, nil
}

// Query is what a panel of a dashboard asks for.
type Query struct{ Dashboard, Panel, Expr string }

// Queries reads those of all dashboards, of their panels and annotations.
func Queries(root string) (queries []Query, err error) {
	files, err := filepath.Glob(filepath.Join(root, "k8s/monitoring/dashboards/*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a dashboard: %w", err)
		}
		var board struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
			Annotations struct{ List []struct{ Name, Expr string } }
		}
		if err := json.Unmarshal(raw, &board); err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				queries = append(queries, Query{board.Title, panel.Title, target.Expr})
			}
		}
		for _, a := range board.Annotations.List {
			queries = append(queries, Query{board.Title, a.Name, a.Expr})
		}
	}
	return queries, nil
}
