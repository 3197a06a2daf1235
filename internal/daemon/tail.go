package daemon

import (
	"bytes"
	"os"
)

// tailLines is how much of a log an error shows.
const tailLines = 40

// Tail is the end of what the server wrote.
func (p *Process) Tail() string { return Tail(p.spec.Log) }

// Tail is the end of a log file, or why it cannot be read.
func Tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

func tail(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}
