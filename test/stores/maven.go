package main

import (
	"context"
	"errors"
	"os/exec"
	"sync"
)

// dependencyPlugin is the Maven plugin that copies artifacts.
const dependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

// mavenAlone: several Mavens at once would write the same files of its repository.
var mavenAlone sync.Mutex

// maven runs a goal of the dependency plugin in dir.
func maven(ctx context.Context, dir, goal string, properties ...string) error {
	program, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("mvn (Maven), which gets Elasticsearch and Neo4j, is not on the PATH: install it, or set LAYERS_TEST_ELASTICSEARCH_URL and LAYERS_TEST_NEO4J_URL")
	}
	mavenAlone.Lock()
	defer mavenAlone.Unlock()
	args := []string{"--batch-mode", "--no-transfer-progress", dependencyPlugin + ":" + goal}
	cmd := exec.Command(program, append(args, properties...)...)
	cmd.Dir = dir
	_, err = ourselves.Run(ctx, cmd)
	return err
}
