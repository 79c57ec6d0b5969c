//go:build linux

package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// sources are what environments and volumes are made from.
type sources struct {
	secrets    corelisters.SecretLister
	configMaps corelisters.ConfigMapLister
}

// secret returns the content of a Secret; nil if it is not there and need not be.
func (s sources) secret(namespace, name string, optional *bool) (map[string][]byte, error) {
	secret, err := s.secrets.Secrets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		if optional != nil && *optional {
			return nil, nil
		}
		return nil, fmt.Errorf("secret %q not found", name)
	}
	if err != nil {
		return nil, err
	}
	return secret.Data, nil
}

func (s sources) configMap(namespace, name string, optional *bool) (map[string][]byte, error) {
	config, err := s.configMaps.ConfigMaps(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		if optional != nil && *optional {
			return nil, nil
		}
		return nil, fmt.Errorf("configmap %q not found", name)
	}
	if err != nil {
		return nil, err
	}
	data := maps.Clone(config.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, value := range config.Data {
		data[key] = []byte(value)
	}
	return data, nil
}

// podFacts is what a pod can be told of itself.
type podFacts struct {
	pod *core.Pod
	ip  string
}

// environment is that of a container, in the order in which it was given: base, that of the image, comes first.
func (s sources) environment(facts podFacts, c *core.Container, base map[string]string) ([]string, error) {
	values := maps.Clone(base)
	if values == nil {
		values = map[string]string{}
	}
	var order []string
	order = append(order, slices.Sorted(maps.Keys(values))...)
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, v := range c.Env {
		value, ok, err := s.value(facts, v, values)
		if err != nil {
			return nil, err
		}
		if ok {
			set(v.Name, value)
		}
	}
	list := make([]string, len(order))
	for i, name := range order {
		list[i] = name + "=" + values[name]
	}
	return list, nil
}

// value is that of one variable. Not ok: it comes from something that is not there and need not be.
func (s sources) value(facts podFacts, v core.EnvVar, before map[string]string) (value string, ok bool, err error) {
	from := v.ValueFrom
	if from == nil {
		return expand(v.Value, before), true, nil
	}
	switch {
	case from.FieldRef != nil:
		value, err = facts.field(from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := s.configMap(facts.pod.Namespace, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		value, ok := data[ref.Key]
		if !ok && (ref.Optional == nil || !*ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", ref.Key, facts.pod.Namespace, ref.Name)
		}
		return string(value), ok, nil
	}
	return "", false, fmt.Errorf("variable %s comes from a source that is not supported", v.Name)
}

// field is the value of a field of the pod, by the path that the API documents.
func (f podFacts) field(path string) (string, error) {
	if name, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch name {
		case "metadata.labels":
			return f.pod.Labels[key], nil
		case "metadata.annotations":
			return f.pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return f.pod.Name, nil
	case "metadata.namespace":
		return f.pod.Namespace, nil
	case "metadata.uid":
		return string(f.pod.UID), nil
	case "status.podIP":
		return f.ip, nil
	}
	return "", fmt.Errorf("field %q is not one that a pod can be told", path)
}

// expand replaces $(NAME) by the variable's value, and $$ by $. What is no variable's name stays as it is.
func expand(text string, values map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text = after
		if rest, ok := strings.CutPrefix(after, "$"); ok {
			out.WriteByte('$')
			text = rest
			continue
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		value, known := values[name]
		if strings.HasPrefix(after, "(") && closed && known {
			out.WriteString(value)
			text = rest
			continue
		}
		out.WriteByte('$')
	}
}

// expandAll is for commands and arguments, which may use all variables of a container.
func expandAll(texts, environment []string) []string {
	values := map[string]string{}
	for _, assignment := range environment {
		name, value, _ := strings.Cut(assignment, "=")
		values[name] = value
	}
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = expand(text, values)
	}
	return out
}
