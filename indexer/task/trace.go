package task

import (
	"context"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// maxParents bounds the traces that one task names.
const maxParents = 16

// tracesOf finds the traces of claimed rows, where traces are exported. A failure costs
// no more than the connection between two parts of a trace.
func (l *dispatchLine) tracesOf(ctx context.Context, rows []record.Pending) []store.Trace {
	if !telemetry.Tracing() || l.traces == nil {
		return nil
	}
	found, err := l.traces.Of(ctx, rows)
	if err != nil {
		l.logger.DebugContext(ctx, "looking up traces failed", "error", err)
	}
	return found
}

// parentsOf are the traces that some of the rows belong to.
func parentsOf(rows []record.Pending, traces []store.Trace) (parents []string) {
	for _, t := range traces {
		for _, r := range rows {
			if t.First <= r.Version && r.Version <= t.Last {
				parents = append(parents, t.Parent)
				break
			}
		}
		if len(parents) == maxParents {
			break
		}
	}
	return parents
}
