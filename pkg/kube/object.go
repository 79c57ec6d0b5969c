package kube

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// Object is something that a cluster can hold: a Job or a Secret of the types of Kubernetes.
type Object interface {
	GetName() string
	GetNamespace() string
}

// JSON is an object without what only a cluster can know, indented.
func JSON(o Object) ([]byte, error) {
	fields, err := fieldsOf(o)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(fields, "", "  ")
}

// YAML is an object without what only a cluster can know.
func YAML(o Object) ([]byte, error) {
	fields, err := fieldsOf(o)
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(fields)
}

func fieldsOf(o Object) (map[string]any, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("kube: %s: %w", o.GetName(), err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("kube: %s: %w", o.GetName(), err)
	}
	delete(fields, "status")
	return fields, nil
}
