package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// newLogger writes text to a terminal and JSON to everything else, unless told otherwise.
func newLogger(cfg config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	format := cfg.LogFormat
	if format == "" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if format == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	if telemetry.Wanted() {
		handler = telemetry.Logs(handler)
	}
	return slog.New(handler)
}

// redisSpeaksThrough has the driver of Redis use the logger.
func redisSpeaksThrough(logger *slog.Logger) { redis.SetLogger(redisLog{logger}) }

// redisLog takes what the driver of Redis says, which would go to standard error in a
// form of its own, many times a second while Redis is away. Who asked it says so too.
type redisLog struct{ logger *slog.Logger }

// Printf has the driver's form.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.logger.DebugContext(ctx, "redis", "says", fmt.Sprintf(format, args...))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
