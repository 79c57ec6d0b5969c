package controlplane

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Version is that of Kubernetes, whose programs Build makes; go.mod has the same, and that of etcd.
const Version = "v1.37.2"

// programs are what a control plane consists of, by the names of their files, with the packages that they are built from.
var programs = []struct{ name, pkg string }{
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
}

// Cache returns the folder for the programs: KELVIN_KUBE_CACHE, or one in the user's cache, named by the version.
func Cache() string {
	if dir := os.Getenv("KELVIN_KUBE_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "kelvin", "kube", Version)
}

// Missing returns the programs that are not in a folder.
func Missing(dir string) []string {
	var missing []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, p.name)); err != nil {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// Build makes what is missing in a folder, and says on out what it does. It takes minutes of all cores, and must run in the module
// of this package.
func Build(ctx context.Context, dir string, out io.Writer) error {
	// The API server and its clients compare versions, and a program built without one calls itself v0.0.0.
	version := "k8s.io/component-base/version."
	flags := fmt.Sprintf("-s -w -X %[1]sgitVersion=%s -X %[1]sgitMajor=1 -X %[1]sgitMinor=37", version, Version)
	for _, p := range programs {
		path := filepath.Join(dir, p.name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		fmt.Fprintf(out, "building %s of Kubernetes %s into %s: once, a few minutes\n", p.name, Version, dir)
		part := path + ".part"
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", flags, "-o", part, p.pkg)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("building %s: %w", p.pkg, err)
		}
		if err := os.Rename(part, path); err != nil {
			return err
		}
	}
	return nil
}
