package search

import (
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

var (
	bulks    = telemetry.NewOperation(telemetry.Elasticsearch, "bulk")
	searches = telemetry.NewOperation(telemetry.Elasticsearch, "search")
	views    = telemetry.NewOperation(telemetry.Elasticsearch, "view") // points in time: opening and closing one
	others   = telemetry.NewOperation(telemetry.Elasticsearch, "other")
)

func operationOf(req esapi.Request) *telemetry.Operation {
	switch req.(type) {
	case esapi.BulkRequest:
		return bulks
	case esapi.SearchRequest:
		return searches
	case esapi.OpenPointInTimeRequest, esapi.ClosePointInTimeRequest:
		return views
	}
	return others
}
