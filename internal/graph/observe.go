package graph

import "github.com/layers-pub/layers-appview/internal/telemetry"

var (
	queries      = telemetry.NewOperation(telemetry.Neo4j, "query")
	traverses    = telemetry.NewOperation(telemetry.Neo4j, "traverse")
	transactions = telemetry.NewOperation(telemetry.Neo4j, "transaction") // writes, from the first statement to the commit
)
