//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// StorageClass is the name of the default class, whose volumes are folders in Config.Dir. They last as long as their claim does.
const StorageClass = "kelvin-folders"

const provisioner = "kelvin.test/folders"

func (k *Kubelet) makeStorageClass(ctx context.Context) error {
	_, err := k.client.StorageV1().StorageClasses().Create(ctx, &storage.StorageClass{
		ObjectMeta:    meta.ObjectMeta{Name: StorageClass, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:   provisioner,
		ReclaimPolicy: new(core.PersistentVolumeReclaimDelete),
	}, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("storage class %s: %w", StorageClass, err)
	}
	return nil
}

// provision makes the volumes that claims wait for, and removes those whose claim is gone. One call looks at all of them.
func (k *Kubelet) provision(ctx context.Context) error {
	claims, err := k.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	volumes, err := k.persistent.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range claims {
		if c.Status.Phase == core.ClaimPending && c.Spec.VolumeName == "" && c.Spec.StorageClassName != nil && *c.Spec.StorageClassName == StorageClass {
			errs = append(errs, k.makeVolume(ctx, c))
		}
	}
	for _, v := range volumes {
		if v.Status.Phase == core.VolumeReleased && v.Spec.StorageClassName == StorageClass && v.Spec.HostPath != nil {
			err := k.client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, meta.DeleteOptions{})
			if err == nil {
				err = os.RemoveAll(v.Spec.HostPath.Path)
			}
			if !apierrors.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (k *Kubelet) makeVolume(ctx context.Context, c *core.PersistentVolumeClaim) error {
	name := "pvc-" + string(c.UID)
	path := filepath.Join(k.config.Dir, "volumes", name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
		return err
	}
	_, err := k.client.CoreV1().PersistentVolumes().Create(ctx, &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: core.PersistentVolumeSpec{
			StorageClassName:              StorageClass,
			Capacity:                      core.ResourceList{core.ResourceStorage: c.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   c.Spec.AccessModes,
			VolumeMode:                    c.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimDelete,
			PersistentVolumeSource:        core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: path}},
			ClaimRef:                      &core.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID},
		},
	}, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("volume for claim %s/%s: %w", c.Namespace, c.Name, err)
	}
	return nil
}

// claimed is the folder of a claim's volume.
func (k *Kubelet) claimed(namespace, name string) (string, error) {
	claim, err := k.claims.PersistentVolumeClaims(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("persistentvolumeclaim %q not found", name)
	}
	if err != nil {
		return "", err
	}
	if claim.Status.Phase != core.ClaimBound {
		return "", fmt.Errorf("persistentvolumeclaim %q is not bound", name)
	}
	volume, err := k.persistent.Get(claim.Spec.VolumeName)
	if err != nil {
		return "", err
	}
	if volume.Spec.HostPath == nil {
		return "", fmt.Errorf("persistentvolume %q is not a folder of this machine", volume.Name)
	}
	return volume.Spec.HostPath.Path, nil
}
