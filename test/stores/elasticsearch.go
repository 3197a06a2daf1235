package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/layers-pub/layers-appview/internal/cache"
	"github.com/layers-pub/layers-appview/internal/daemon"
)

// elasticsearchYAML takes the data directory and the port. The disk thresholds are
// off since a test machine's disk may be nearly full; tests make many indexes.
const elasticsearchYAML = `cluster.name: layers-test
discovery.type: single-node
network.host: 127.0.0.1
http.port: %d
transport.port: 0
path.data: %s/data
path.logs: %[2]s/logs
path.repo: %[2]s/snapshots
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
cluster.max_shards_per_node: 10000
`

// elasticsearchJVM takes the heap and how it is run.
const elasticsearchJVM = `-Xms%[1]s
-Xmx%[1]s
%s
-Djava.io.tmpdir=${ES_TMPDIR}
-XX:+ExitOnOutOfMemoryError
-XX:ErrorFile=hs_err_pid%%p.log
`

const elasticsearchLog = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
`

func startElasticsearch(ctx context.Context, kind kind) (*running, error) {
	home, err := installElasticsearch(ctx)
	if err != nil {
		return nil, err
	}
	java, err := javaHome(ctx)
	if err != nil {
		return nil, err
	}
	n, err := newNative("elasticsearch")
	if err != nil {
		return nil, err
	}
	heap, way := "768m", "-XX:+UseG1GC"
	if kind.small {
		heap, way = "384m", "-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1"
	}
	for name, content := range map[string]string{
		"config/elasticsearch.yml": fmt.Sprintf(elasticsearchYAML, n.port, n.home),
		"config/jvm.options":       fmt.Sprintf(elasticsearchJVM, heap, way),
		"config/log4j2.properties": elasticsearchLog,
		"tmp/.keep":                "",
	} {
		if err := n.write(name, content); err != nil {
			return nil, err
		}
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", n.port)
	r, err := n.run(ctx, daemon.Spec{
		Path: filepath.Join(home, "bin", "elasticsearch"),
		Env: append(os.Environ(),
			"ES_JAVA_HOME="+java,
			"ES_JAVA_OPTS=",
			"ES_PATH_CONF="+filepath.Join(n.home, "config"),
			"ES_TMPDIR="+filepath.Join(n.home, "tmp"),
			"HOME="+n.home),
	}, func(ctx context.Context) error {
		return get(ctx, url+"/_cluster/health?wait_for_status=yellow&timeout=5s")
	})
	if err != nil {
		return nil, err
	}
	r.url = url
	return r, nil
}

// installElasticsearch returns the server's directory. It is the build that the
// project publishes for integration tests: the real server with fewer modules.
func installElasticsearch(ctx context.Context) (string, error) {
	name := "elasticsearch-" + elasticsearchVersion
	entry, err := cache.Install(name, func(dir string) error {
		progress("elasticsearch: getting version %s", elasticsearchVersion)
		err := maven(ctx, dir, "copy", "-DoutputDirectory="+dir,
			"-Dartifact=org.elasticsearch.distribution.integ-test-zip:elasticsearch:"+elasticsearchVersion+":zip")
		if err != nil {
			return err
		}
		archive := filepath.Join(dir, name+".zip")
		if err := unzip(archive, dir); err != nil {
			return err
		}
		return os.Remove(archive)
	})
	return filepath.Join(entry, name), err
}

// get succeeds if the URL answers 200.
func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, res.Status)
	}
	return nil
}
