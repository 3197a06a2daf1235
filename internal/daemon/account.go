package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/layers-pub/layers-appview/internal/cache"
)

// unprivileged is the account that runs servers for the superuser.
const unprivileged = "nobody"

// Account is whom a server runs as. The nil Account is whoever runs this program.
type Account struct {
	Name     string
	uid, gid int
}

// Unprivileged returns the account for servers that refuse the superuser, as
// PostgreSQL and Elasticsearch do: nobody when this program is run by the
// superuser, else nil.
func Unprivileged() (*Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(unprivileged)
	if err != nil {
		return nil, fmt.Errorf("find an account to run servers: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read the user id of %s: %w", unprivileged, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read the group id of %s: %w", unprivileged, err)
	}
	return &Account{Name: u.Username, uid: int(uid), gid: int(gid)}, nil
}

// Own gives the account the files and directories, not what these hold.
func (a *Account) Own(paths ...string) error {
	if a == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return fmt.Errorf("give a file to %s: %w", a.Name, err)
		}
	}
	return nil
}

// OwnTree gives the account the directory and everything in it.
func (a *Account) OwnTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, a.Own(path))
	})
}

// TempDir makes a directory that the account may enter but not change. What the
// account shall change goes into directories of its own in there. The caller
// removes it.
func (a *Account) TempDir(pattern string) (string, error) {
	parent := os.TempDir()
	if a != nil && !cache.Open(parent) {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	if a != nil {
		err = os.Chmod(dir, 0o711)
	}
	return dir, err
}

// CanEnter fails if dir or a directory above it keeps the account out.
func (a *Account) CanEnter(dir string) error {
	if a != nil && !cache.Open(dir) {
		return fmt.Errorf("%s cannot be entered by %s, who runs the server for the superuser: choose another place", dir, a.Name)
	}
	return nil
}

// attributes detach a process from our terminal and our process group, and give
// it the account.
func (a *Account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}
