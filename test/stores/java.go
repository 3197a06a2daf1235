package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// javaHome is the directory of the Java that runs Elasticsearch and Neo4j: that of
// JAVA_HOME, or the one whose java is on the PATH.
func javaHome(ctx context.Context) (string, error) {
	program := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		program = filepath.Join(home, "bin", "java")
	}
	out, err := exec.CommandContext(ctx, program, "-XshowSettings:properties", "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run Elasticsearch and Neo4j with Java %d or later: %w\n%s", javaVersion, err, bytes.TrimSpace(out))
	}
	home, version := property(out, "java.home"), property(out, "java.specification.version")
	if number, err := strconv.Atoi(version); err != nil || number < javaVersion {
		return "", fmt.Errorf("run Elasticsearch and Neo4j with Java %d or later: %s is version %s", javaVersion, program, version)
	}
	if home == "" {
		return "", errors.New("java does not tell its home directory")
	}
	return home, nil
}

// property finds "name = value" in Java's list of its settings.
func property(settings []byte, name string) string {
	for line := range strings.Lines(string(settings)) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
