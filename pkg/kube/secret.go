package kube

import (
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NewSecret is a Secret with the contents of files by their names.
func NewSecret(name, namespace string, files map[string][]byte) *core.Secret {
	return &core.Secret{
		TypeMeta:   meta.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: meta.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/name": "kelvin"}},
		Type:       core.SecretTypeOpaque,
		Data:       files,
	}
}
