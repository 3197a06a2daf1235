package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"

	"github.com/layers-pub/layers-appview/internal/cache"
	"github.com/layers-pub/layers-appview/internal/daemon"
)

//go:embed neo4j/pom.xml
var neo4jPOM []byte

//go:embed neo4j/Launcher.java
var neo4jLauncher string

func startNeo4j(ctx context.Context, kind kind) (*running, error) {
	jars, err := installNeo4j(ctx)
	if err != nil {
		return nil, err
	}
	java, err := javaHome(ctx)
	if err != nil {
		return nil, err
	}
	n, err := newNative("neo4j")
	if err != nil {
		return nil, err
	}
	if err := n.write("Launcher.java", neo4jLauncher); err != nil {
		return nil, err
	}
	url := fmt.Sprintf("bolt://127.0.0.1:%d", n.port)
	driver, err := neo4j.NewDriverWithContext(url, neo4j.NoAuth())
	if err != nil {
		return nil, err
	}
	defer func() { _ = driver.Close(ctx) }()
	memory := []string{"-Xms512m", "-Xmx512m"}
	if kind.small {
		memory = []string{"-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	}
	r, err := n.run(ctx, daemon.Spec{
		Path: filepath.Join(java, "bin", "java"),
		Args: append(memory,
			"-XX:+ExitOnOutOfMemoryError",
			"--add-opens=java.base/java.nio=ALL-UNNAMED",
			"-cp", filepath.Join(jars, "*"),
			filepath.Join(n.home, "Launcher.java"), n.home, strconv.Itoa(n.port),
		),
		Env: append(os.Environ(), "HOME="+n.home),
	}, driver.VerifyConnectivity)
	if err != nil {
		return nil, err
	}
	r.url = url
	return r, nil
}

// installNeo4j returns the directory of Neo4j's jars.
func installNeo4j(ctx context.Context) (string, error) {
	entry, err := cache.Install("neo4j-"+neo4jVersion, func(dir string) error {
		progress("neo4j: getting version %s", neo4jVersion)
		if err := os.WriteFile(filepath.Join(dir, "pom.xml"), neo4jPOM, 0o644); err != nil {
			return err
		}
		return maven(ctx, dir, "copy-dependencies", "-Dneo4j.version="+neo4jVersion,
			"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(dir, "jars"))
	})
	return filepath.Join(entry, "jars"), err
}
