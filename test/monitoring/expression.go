package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// foreign are metrics of other programs that rules and dashboards may ask for.
var foreign = regexp.MustCompile(`^(up|ALERTS|process_(start_time_seconds|cpu_seconds_total|resident_memory_bytes)|go_goroutines|` +
	`kubelet_volume_stats_(used|capacity)_bytes|node_filesystem_(avail|size)_bytes|kube_cronjob_status_last_successful_time)$`)

// added are labels that Prometheus or the deployment adds to every metric.
var added = []string{"job", "instance", "namespace", "pod", "le"}

var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	grouping = regexp.MustCompile(`\b(by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*[=!]`)
	ranges   = regexp.MustCompile(`\[[^\]]*\]`)
)

var words = []string{"and", "or", "unless", "bool", "offset", "by", "on", "without", "ignoring", "group_left", "group_right", "inf", "nan"}

// Check says what an expression asks for that nobody exports: a metric, or a label of
// one of ours. recorded are the names that recording rules make, with their labels.
func Check(expression string, declared map[string]Metric, recorded map[string]bool) error {
	plain := ranges.ReplaceAllString(quoted.ReplaceAllString(expression, `""`), "")
	var groups []string
	plain = grouping.ReplaceAllStringFunc(plain, func(found string) string {
		parts := grouping.FindStringSubmatch(found)
		for label := range strings.SplitSeq(parts[2], ",") {
			if label = strings.TrimSpace(label); label != "" && parts[1] != "without" {
				groups = append(groups, label)
			}
		}
		return " "
	})
	known, open := slices.Clone(added), false
	for _, at := range selector.FindAllStringSubmatchIndex(plain, -1) {
		name, rest := plain[at[2]:at[3]], strings.TrimSpace(plain[at[3]:])
		if strings.HasPrefix(rest, "(") || slices.Contains(words, strings.ToLower(name)) || at[2] > 0 && strings.ContainsAny(plain[at[2]-1:at[2]], "0123456789.") {
			continue // a function, a word of the language, or the unit of a number
		}
		metric, ours := find(name, declared)
		switch {
		case recorded[name], foreign.MatchString(name):
			open = true
			continue
		case !ours:
			return fmt.Errorf("%s is exported by nobody, in %s", name, expression)
		}
		known = append(known, metric.Labels...)
		if at[4] < 0 {
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(plain[at[4]:at[5]], -1) {
			if !slices.Contains(metric.Labels, m[1]) && !slices.Contains(added, m[1]) {
				return fmt.Errorf("%s has no label %s, in %s", name, m[1], expression)
			}
		}
	}
	for _, label := range groups {
		if !open && !slices.Contains(known, label) {
			return fmt.Errorf("no metric has the label %s, in %s", label, expression)
		}
	}
	return nil
}

// find is the metric that a series is of.
func find(name string, declared map[string]Metric) (Metric, bool) {
	if m, ok := declared[name]; ok {
		return m, m.Type != "histogram"
	}
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if m, ok := declared[strings.TrimSuffix(name, part)]; ok && strings.HasSuffix(name, part) {
			return m, m.Type == "histogram"
		}
	}
	return Metric{}, false
}
