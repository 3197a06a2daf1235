package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shelf is a directory that backups go to.
type shelf struct {
	t   *testing.T
	dir string
}

func newShelf(t *testing.T) *shelf { return &shelf{t, t.TempDir()} }

// run runs a script and returns its exit code.
func (s *shelf) run(script string, args ...string) int {
	s.t.Helper()
	path, err := filepath.Abs(filepath.Join("../../k8s/disaster-recovery/scripts", script))
	require.NoError(s.t, err)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "BACKUP_STORE="+s.dir)
	output, err := cmd.CombinedOutput()
	s.t.Logf("%s %v: %v\n%s", script, args, err, output)
	exit := (*exec.ExitError)(nil)
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(s.t, err)
	return 0
}

func (s *shelf) put(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(s.t, os.WriteFile(path, []byte(content), 0o600))
}

func (s *shelf) names(dir string) (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	require.NoError(s.t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestASegmentIsArchivedOnce archives one, again, and another under its name.
func TestASegmentIsArchivedOnce(t *testing.T) {
	s := newShelf(t)
	segment, other, back := filepath.Join(t.TempDir(), "segment"), filepath.Join(t.TempDir(), "other"), filepath.Join(t.TempDir(), "back")
	require.NoError(t, os.WriteFile(segment, []byte("what was written"), 0o600))
	require.NoError(t, os.WriteFile(other, []byte("what another server has written"), 0o600))
	const name = "000000010000000000000007"
	require.Zero(t, s.run("archive-wal.sh", segment, name))
	require.Zero(t, s.run("archive-wal.sh", segment, name), "PostgreSQL was not told, and asks again")
	require.NotZero(t, s.run("archive-wal.sh", other, name))

	require.Zero(t, s.run("restore-wal.sh", name, back))
	content, err := os.ReadFile(back)
	require.NoError(t, err)
	require.Equal(t, "what was written", string(content))
	require.Equal(t, 1, s.run("restore-wal.sh", "000000010000000000000008", back), "the end of the archive")
	s.put("wal/000000010000000000000009.gz", "not packed")
	require.Greater(t, s.run("restore-wal.sh", "000000010000000000000009", back), 125)
	s.dir += "-not-mounted"
	require.Greater(t, s.run("restore-wal.sh", name, back), 125, "PostgreSQL must not take it for the end")
	require.NotZero(t, s.run("archive-wal.sh", segment, name))
}

// TestWhatIsNeededToGoBackThirtyDaysIsKept prunes.
func TestWhatIsNeededToGoBackThirtyDaysIsKept(t *testing.T) {
	s := newShelf(t)
	backup := func(days int, segment string, complete bool) string {
		name := time.Now().UTC().AddDate(0, 0, -days).Format("20060102T150405Z")
		s.put("base/"+name+"/base.tar.gz", "data")
		s.put("base/"+name+"/label", "START WAL LOCATION: 0/7000028 (file "+segment+")\nCHECKPOINT LOCATION: 0/7000080\n")
		if complete {
			s.put("base/"+name+"/complete", "2026-11-21T01:10:00Z\n")
		}
		return name
	}
	backup(50, "000000010000000000000003", true)
	edge := backup(31, "000000010000000000000005", true)
	backup(20, "00000001000000000000000A", false)
	inside := backup(10, "00000002000000000000000B", true)
	today := backup(0, "00000002000000000000000C", false)
	for _, name := range []string{
		"000000010000000000000004", "000000010000000000000005", "000000010000000000000005.00000028.backup", "00000001000000000000000A",
		"00000002000000000000000B", "00000002.history",
	} {
		s.put("wal/"+name+".gz", "log")
	}
	require.Zero(t, s.run("prune.sh"))
	require.Equal(t, []string{edge, inside, today}, s.names("base"), "the one before the edge is where the days after it begin; today's is being taken")
	require.Equal(t, []string{
		"000000010000000000000005.00000028.backup.gz", "000000010000000000000005.gz", "00000001000000000000000A.gz", "00000002.history.gz", "00000002000000000000000B.gz",
	}, s.names("wal"))
	require.Zero(t, s.run("prune.sh"), "a second time changes nothing")
	require.Len(t, s.names("base"), 3)
}

// TestARestoreOverwritesNothing refuses a directory that is not empty, and a point before all backups.
func TestARestoreOverwritesNothing(t *testing.T) {
	s := newShelf(t)
	data := t.TempDir()
	require.Equal(t, 1, s.run("restore-postgres.sh", data), "there is no backup")
	s.put("base/20261121T011000Z/complete", "2026-11-21T01:15:00Z\n")
	require.Equal(t, 1, s.run("restore-postgres.sh", data, "2026-11-21 01:12:00+00"), "it had not ended then")
	require.NoError(t, os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("17"), 0o600))
	require.Equal(t, 1, s.run("restore-postgres.sh", data))
	require.FileExists(t, filepath.Join(data, "PG_VERSION"))
}
