package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// container is what docker-compose.yml says about a store: the variable that moves
// its port, and the URL on that port.
type container struct {
	portVariable string
	url          string
}

var containers = map[string]container{
	"postgres":      {"LAYERS_POSTGRES_PORT", "postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable"},
	"redis":         {"LAYERS_REDIS_PORT", "redis://127.0.0.1:%d/0"},
	"elasticsearch": {"LAYERS_ELASTICSEARCH_PORT", "http://127.0.0.1:%d"},
	"neo4j":         {"LAYERS_NEO4J_PORT", "bolt://127.0.0.1:%d"},
}

// engineAnswers says whether a Docker engine is there, and the compose command.
func engineAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, args := range [][]string{{"info", "--format", "{{.ServerVersion}}"}, {"compose", "version"}} {
		if _, err := ourselves.Run(ctx, exec.Command("docker", args...)); err != nil {
			return false
		}
	}
	return true
}

// compose is a project of its own of docker-compose.yml, apart from the developer's.
type compose struct {
	args []string // of docker, before the verb
	env  []string
}

func (c compose) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.Command("docker", append(slices.Clone(c.args), args...)...)
	cmd.Env = c.env
	return ourselves.Run(ctx, cmd)
}

// startContainers starts the wanted services and waits until they are healthy.
func (up *stores) startContainers(ctx context.Context, wanted []store, kind kind) error {
	file, err := composeFile()
	if err != nil {
		return err
	}
	c := compose{
		args: []string{"compose", "--file", file, "--project-name", fmt.Sprintf("layers-test-%d", os.Getpid())},
		env:  os.Environ(),
	}
	if kind.small {
		c.env = append(c.env, "LAYERS_ELASTICSEARCH_JVM=-Xms384m -Xmx384m -XX:TieredStopAtLevel=1",
			"LAYERS_NEO4J_HEAP=256m")
	}
	services := []string{"up", "--detach", "--wait"}
	for _, s := range wanted {
		port, err := daemon.FreePort()
		if err != nil {
			return err
		}
		in := containers[s.name]
		c.env = append(c.env, fmt.Sprintf("%s=%d", in.portVariable, port))
		up.urls[s.variable] = fmt.Sprintf(in.url, port)
		services = append(services, s.name)
		up.turns[s.name] = service{&c, s.name}
	}
	down := []string{"down", "--volumes", "--timeout", "5"}
	watcher, err := daemon.AtDeath(slices.Concat([]string{"docker"}, c.args, down)...)
	if err != nil {
		return err
	}
	up.stops = append(up.stops, func() error {
		defer watcher.Dismiss()
		_, err := c.run(context.WithoutCancel(ctx), down...)
		return err
	})
	progress("starting containers: %s", strings.Join(services[3:], ", "))
	if _, err := c.run(ctx, services...); err != nil {
		logs, _ := c.run(context.WithoutCancel(ctx), "logs", "--tail", "20")
		return fmt.Errorf("start the stores' containers: %w\n%s", err, logs)
	}
	return nil
}

// service is a store that runs in a container.
type service struct {
	of   *compose
	name string
}

func (s service) start(ctx context.Context) error {
	_, err := s.of.run(ctx, "start", s.name)
	return err
}

func (s service) end(ctx context.Context, signal syscall.Signal) error {
	verb := []string{"stop", "--timeout", strconv.Itoa(int(endTime.Seconds()))}
	if signal == syscall.SIGKILL {
		verb = []string{"kill"}
	}
	_, err := s.of.run(ctx, append(verb, s.name)...)
	return err
}

func (s service) id(ctx context.Context) (string, error) {
	container, err := s.of.run(ctx, "ps", "--all", "--quiet", s.name)
	if err != nil {
		return "", err
	}
	pid, err := ourselves.Run(ctx, exec.Command("docker", "inspect", "--format", "{{.State.Pid}}", strings.TrimSpace(string(container))))
	return strings.TrimPrefix(strings.TrimSpace(string(pid)), "0"), err
}

// composeFile finds docker/docker-compose.yml in the module that we are run in.
func composeFile() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		file := filepath.Join(dir, "docker", "docker-compose.yml")
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("docker/docker-compose.yml is not found: run this inside the module")
		}
		dir = filepath.Dir(dir)
	}
}
