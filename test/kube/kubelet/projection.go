//go:build linux

package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// projected is a file of a volume that is made of Secrets and the like.
type projected struct {
	path string // within the volume
	data []byte
	mode fs.FileMode
}

// currentLink leads to the folder with the files of now. What programs open leads through it, so that all files change at once.
const currentLink = "..data"

// project makes a volume hold these files and no others. The group, if there is one, may read them.
func project(volume string, files []projected, group *int64) error {
	if err := os.MkdirAll(volume, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(volume, "..files-")
	if err != nil {
		return err
	}
	if err := writeAll(fresh, files, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	current := filepath.Join(volume, currentLink)
	old, err := os.Readlink(current)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := current + "-next"
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return err
	}
	if err := os.Rename(next, current); err != nil {
		return err
	}
	if err := linkAll(volume, files); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(volume, old))
}

func writeAll(dir string, files []projected, group *int64) error {
	gid := -1
	if group != nil {
		gid = int(*group)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if !filepath.IsLocal(f.path) || strings.HasPrefix(f.path, "..") {
			return fmt.Errorf("path %q, want one within the volume", f.path)
		}
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return err
		}
		mode := f.mode
		if group != nil {
			mode |= 0o440
		}
		// Giving it to a group may take bits of the mode away, so that comes first.
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
}

// linkAll makes the names that programs see, and removes those that are no more.
func linkAll(volume string, files []projected) error {
	var tops []string
	for _, f := range files {
		top, _, _ := strings.Cut(f.path, "/")
		tops = append(tops, top)
		err := os.Symlink(filepath.Join(currentLink, top), filepath.Join(volume, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(volume)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, "..") && !slices.Contains(tops, name) {
			if err := os.Remove(filepath.Join(volume, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveToGroup lets the group of a pod read and write a volume, with all that will be made in it. Nothing happens if its root is
// the group's already.
func giveToGroup(root string, group int64) error {
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	if owner(info) == group && info.Mode()&fs.ModeSetgid != 0 {
		return nil
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(group)); err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | 0o660
		if d.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}
