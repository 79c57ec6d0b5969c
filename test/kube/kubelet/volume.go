//go:build linux

package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumes are the folders on the host that the containers of a pod see.
type volumes struct {
	k     *Kubelet
	facts podFacts
	dir   string

	mu      sync.Mutex
	paths   map[string]string      // by the volume's name
	written map[string][]projected // what is in those that are projected
	tokens  map[string]token       // of the service account, by volume and path
}

type token struct {
	text  string
	renew time.Time
}

// set makes all volumes, or those that are missing. An error is worth trying again: what is missing may come.
func (v *volumes) set(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, volume := range v.facts.pod.Spec.Volumes {
		if err := v.setOne(ctx, &volume); err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume.Name, err)
		}
	}
	return nil
}

func (v *volumes) group() *int64 {
	if s := v.facts.pod.Spec.SecurityContext; s != nil {
		return s.FSGroup
	}
	return nil
}

func (v *volumes) setOne(ctx context.Context, volume *core.Volume) error {
	path := filepath.Join(v.dir, volume.Name)
	switch {
	case isProjected(volume):
		if err := v.project(ctx, volume, path); err != nil {
			return err
		}
	case v.paths[volume.Name] != "":
		return nil
	case volume.EmptyDir != nil:
		if err := v.makeWritable(path); err != nil {
			return err
		}
	case volume.PersistentVolumeClaim != nil:
		claimed, err := v.k.claimed(v.facts.pod.Namespace, volume.PersistentVolumeClaim.ClaimName)
		if err != nil {
			return err
		}
		if path = claimed; v.group() != nil {
			if err := giveToGroup(path, *v.group()); err != nil {
				return err
			}
		}
	}
	v.paths[volume.Name] = path
	return nil
}

func (v *volumes) makeWritable(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
		return err
	}
	if v.group() == nil {
		return nil
	}
	return giveToGroup(path, *v.group())
}

func owner(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(s.Gid)
	}
	return -1
}

func isProjected(volume *core.Volume) bool {
	return volume.Secret != nil || volume.ConfigMap != nil || volume.Projected != nil
}

// project writes a volume if its content is not the one that it has.
func (v *volumes) project(ctx context.Context, volume *core.Volume, path string) error {
	files, err := v.content(ctx, volume)
	if err != nil {
		return err
	}
	if before, ok := v.written[volume.Name]; ok && reflect.DeepEqual(before, files) {
		return nil
	}
	if err := project(path, files, v.group()); err != nil {
		return err
	}
	v.written[volume.Name] = files
	return nil
}

const defaultMode = 0o644

// content is what the files of a volume should be by now.
func (v *volumes) content(ctx context.Context, volume *core.Volume) ([]projected, error) {
	namespace := v.facts.pod.Namespace
	switch {
	case volume.Secret != nil:
		s := volume.Secret
		data, err := v.k.sources.secret(namespace, s.SecretName, s.Optional)
		if err != nil {
			return nil, err
		}
		return choose(data, s.Items, s.DefaultMode, s.Optional)
	case volume.ConfigMap != nil:
		c := volume.ConfigMap
		data, err := v.k.sources.configMap(namespace, c.Name, c.Optional)
		if err != nil {
			return nil, err
		}
		return choose(data, c.Items, c.DefaultMode, c.Optional)
	}
	var files []projected
	for _, s := range volume.Projected.Sources {
		more, err := v.source(ctx, volume.Name, &s, volume.Projected.DefaultMode)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

// source is one of those of a projected volume.
func (v *volumes) source(ctx context.Context, volume string, s *core.VolumeProjection, mode *int32) ([]projected, error) {
	namespace := v.facts.pod.Namespace
	switch {
	case s.Secret != nil:
		data, err := v.k.sources.secret(namespace, s.Secret.Name, s.Secret.Optional)
		if err != nil {
			return nil, err
		}
		return choose(data, s.Secret.Items, mode, s.Secret.Optional)
	case s.ConfigMap != nil:
		data, err := v.k.sources.configMap(namespace, s.ConfigMap.Name, s.ConfigMap.Optional)
		if err != nil {
			return nil, err
		}
		return choose(data, s.ConfigMap.Items, mode, s.ConfigMap.Optional)
	case s.DownwardAPI != nil:
		return v.downward(s.DownwardAPI.Items, mode)
	case s.ServiceAccountToken != nil:
		text, err := v.accountToken(ctx, volume, s.ServiceAccountToken)
		if err != nil {
			return nil, err
		}
		return []projected{{s.ServiceAccountToken.Path, []byte(text), fileMode(nil, mode)}}, nil
	}
	return nil, errors.New("a source that is not supported")
}

func fileMode(modes ...*int32) fs.FileMode {
	for _, m := range modes {
		if m != nil {
			return fs.FileMode(*m)
		}
	}
	return defaultMode
}

// choose is all of the data, or those keys that the items name.
func choose(data map[string][]byte, items []core.KeyToPath, mode *int32, optional *bool) ([]projected, error) {
	var files []projected
	if len(items) == 0 {
		for _, key := range slices.Sorted(maps.Keys(data)) {
			files = append(files, projected{key, data[key], fileMode(mode)})
		}
		return files, nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent secret or config key: %s", item.Key)
		}
		files = append(files, projected{item.Path, value, fileMode(item.Mode, mode)})
	}
	return files, nil
}

func (v *volumes) downward(items []core.DownwardAPIVolumeFile, mode *int32) ([]projected, error) {
	var files []projected
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("file %s: from a source that is not supported", item.Path)
		}
		value, err := v.facts.field(item.FieldRef.FieldPath)
		if err != nil {
			return nil, err
		}
		files = append(files, projected{item.Path, []byte(value), fileMode(item.Mode, mode)})
	}
	return files, nil
}

// accountToken asks for a token of the pod's service account, and for another when four fifths of its time have passed.
func (v *volumes) accountToken(ctx context.Context, volume string, s *core.ServiceAccountTokenProjection) (string, error) {
	key := volume + "/" + s.Path
	if have, ok := v.tokens[key]; ok && time.Now().Before(have.renew) {
		return have.text, nil
	}
	pod := v.facts.pod
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if s.Audience != "" {
		request.Spec.Audiences = []string{s.Audience}
	}
	granted, err := v.k.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, meta.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s: %w", pod.Spec.ServiceAccountName, err)
	}
	now := time.Now()
	v.tokens[key] = token{granted.Status.Token, now.Add(granted.Status.ExpirationTimestamp.Sub(now) * 4 / 5)}
	return granted.Status.Token, nil
}

// mounts are those of a container: what lies above comes first.
func (v *volumes) mounts(c *core.Container) ([]mount, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []mount
	for _, m := range c.VolumeMounts {
		source := v.paths[m.Name]
		var volume *core.Volume
		for i := range v.facts.pod.Spec.Volumes {
			if v.facts.pod.Spec.Volumes[i].Name == m.Name {
				volume = &v.facts.pod.Spec.Volumes[i]
			}
		}
		if source == "" || volume == nil {
			return nil, fmt.Errorf("volume %q is not there", m.Name)
		}
		claimed := volume.PersistentVolumeClaim
		list = append(list, mount{source, m.MountPath, m.ReadOnly || isProjected(volume) || claimed != nil && claimed.ReadOnly})
	}
	slices.SortStableFunc(list, func(a, b mount) int {
		return cmp.Compare(strings.Count(filepath.Clean(a.Target), "/"), strings.Count(filepath.Clean(b.Target), "/"))
	})
	return list, nil
}
