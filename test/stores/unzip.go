package main

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// unzip unpacks the archive into dir.
func unzip(archive, dir string) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open %s: %w", archive, err)
	}
	defer func() { _ = r.Close() }()
	for _, f := range r.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("unpack %s: %q leads out of the archive", archive, f.Name)
		}
		if err := unzipFile(f, filepath.Join(dir, f.Name)); err != nil {
			return fmt.Errorf("unpack %s from %s: %w", f.Name, archive, err)
		}
	}
	return nil
}

func unzipFile(f *zip.File, path string) error {
	if f.Mode().IsDir() {
		return os.MkdirAll(path, 0o755)
	}
	if !f.Mode().IsRegular() {
		return fmt.Errorf("neither file nor directory: %w", fs.ErrInvalid)
	}
	src, err := f.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, f.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		return err
	}
	return dst.Close()
}
