package kube

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// Access says which cluster, and as whom. The zero value is what kubectl would use.
type Access struct {
	Kubeconfig string // file; "": those of the variable KUBECONFIG, else ~/.kube/config, else the account of the pod that this runs in
	Context    string // of that; "": the current one
	Namespace  string // "": that of the context
}

// Client talks to a cluster. It is safe for concurrent use, and needs no Close.
type Client struct {
	http      *http.Client
	server    *url.URL
	namespace string
}

// manager is under what name a cluster remembers which fields of an object are ours, scaler for the size alone: an object
// applied without a field that its manager set before would lose it.
const manager, scaler = "kelvin", "kelvin-scale"

// maxAnswer bounds an answer of a cluster, in bytes.
const maxAnswer = 64 << 20

// Open finds a cluster. It connects at the first call.
func Open(a Access) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.Context})
	cfg, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, &api.Error{Code: api.Invalid, Message: "no Kubernetes cluster known", Next: "want a kubeconfig: --kubeconfig FILE, or the variable KUBECONFIG"}
	}
	if err != nil {
		return nil, api.Errorf(api.Invalid, "kubeconfig: %v", err)
	}
	namespace := a.Namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, api.Errorf(api.Invalid, "kubeconfig: %v", err)
		}
	}
	return open(cfg, namespace)
}

func open(cfg *rest.Config, namespace string) (*Client, error) {
	server, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "kubeconfig: server %q: %v", cfg.Host, err)
	}
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "kubeconfig: %v", err)
	}
	return &Client{h, server, namespace}, nil
}

// Namespace is where the client works.
func (c *Client) Namespace() string { return c.namespace }

// Mode says whether something is done.
type Mode int

// The modes.
const (
	Really Mode = iota
	Try         // the cluster checks all of it, its own rules too, and does nothing
)

// Apply makes an object what it says, whether it exists or not. Fields that others have set stay, unless the object names them.
// A field that the cluster does not know is an error.
func (c *Client) Apply(ctx context.Context, o Object, m Mode) error {
	fields, err := fieldsOf(o)
	if err != nil {
		return err
	}
	kind, _ := fields["kind"].(string)
	query := url.Values{"fieldManager": {manager}, "force": {"true"}, "fieldValidation": {"Strict"}}
	if m == Try {
		query.Set("dryRun", "All")
	}
	resource, ok := map[string]string{"Job": "/apis/batch/v1/namespaces/%s/jobs/%s", "Secret": "/api/v1/namespaces/%s/secrets/%s"}[kind]
	if !ok {
		return fmt.Errorf("kube: apply %s %s: want a Job or a Secret", kind, o.GetName())
	}
	path := fmt.Sprintf(resource, cmp.Or(o.GetNamespace(), c.namespace), o.GetName())
	return c.call(ctx, http.MethodPatch, path, query, "application/apply-patch+yaml", fields, nil)
}

// Job is the one of an experiment.
func (c *Client) Job(ctx context.Context, experiment string) (*batch.Job, error) {
	var job batch.Job
	if err := c.call(ctx, http.MethodGet, c.job(experiment), nil, "", nil, &job); err != nil {
		return nil, err
	}
	return &job, nil
}

// Scale changes the number of pods of an experiment's Job while it runs. Pods of indexes that are left over are asked to end.
func (c *Client) Scale(ctx context.Context, experiment string, pods int) error {
	if pods < 1 || pods > mostPods {
		return fmt.Errorf("kube: scale %s: %d pods, want 1 to %d", experiment, pods, mostPods)
	}
	change := map[string]any{"spec": map[string]any{"completions": pods, "parallelism": pods, "maxFailedIndexes": pods / 2}}
	query := url.Values{"fieldManager": {scaler}, "fieldValidation": {"Strict"}}
	return c.call(ctx, http.MethodPatch, c.job(experiment), query, "application/merge-patch+json", change, nil)
}

// Look reads the Job of an experiment, its pods and what the cluster warned of.
func (c *Client) Look(ctx context.Context, experiment string) (*Seen, error) {
	job, err := c.Job(ctx, experiment)
	if err != nil {
		return nil, err
	}
	var pods core.PodList
	of := url.Values{"labelSelector": {batch.JobNameLabel + "=" + experiment}}
	if err := c.call(ctx, http.MethodGet, c.in("/api/v1", "pods"), of, "", nil, &pods); err != nil {
		return nil, err
	}
	var warnings core.EventList
	query := url.Values{"fieldSelector": {"type=" + core.EventTypeWarning}, "limit": {"500"}}
	var refused *api.Error
	// Who may not read events can still be told what the pods themselves say.
	if err := c.call(ctx, http.MethodGet, c.in("/api/v1", "events"), query, "", nil, &warnings); err != nil &&
		!(errors.As(err, &refused) && refused.Code == api.Forbidden) {
		return nil, err
	}
	return see(job, pods.Items, warnings.Items), nil
}

func (c *Client) in(group, resource string) string {
	return group + "/namespaces/" + c.namespace + "/" + resource
}

func (c *Client) job(name string) string { return c.in("/apis/batch/v1", "jobs/"+name) }

// call sends a request, with body as JSON, and reads the answer into an object, unless they are nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, media string, body, into any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("kube: %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(data)
	}
	target := *c.server
	target.Path = strings.TrimSuffix(target.Path, "/") + path
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), reader)
	if err != nil {
		return fmt.Errorf("kube: %s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL, which is told once
		}
		if ctx.Err() != nil {
			return fmt.Errorf("kube: %s %s: %w", method, path, context.Cause(ctx))
		}
		return &api.Error{Code: api.Unavailable, Message: fmt.Sprintf("Kubernetes at %s: %v", c.server.Host, err), Next: "is it the right context? --kube-context names another", Cause: err}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	if err != nil {
		return &api.Error{Code: api.Timeout, Message: fmt.Sprintf("Kubernetes at %s: the answer: %v", c.server.Host, err), Cause: err}
	}
	if res.StatusCode >= 300 {
		return failure(res.StatusCode, data)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return api.Errorf(api.Internal, "Kubernetes at %s: the answer to %s %s: %v", c.server.Host, method, path, err)
	}
	return nil
}

// failure is what a cluster refused, and why.
func failure(status int, data []byte) error {
	var said meta.Status
	e := &api.Error{Code: api.Internal, Message: fmt.Sprintf("Kubernetes answers %d %s", status, http.StatusText(status)), Status: status}
	if json.Unmarshal(data, &said) == nil && said.Message != "" {
		e.Message = "Kubernetes: " + strings.Join(strings.Fields(said.Message), " ")
	}
	switch status {
	case http.StatusNotFound:
		e.Code = api.NotFound
	case http.StatusConflict:
		e.Code = api.Conflict
	case http.StatusUnauthorized:
		e.Code = api.Unauthorized
	case http.StatusForbidden:
		e.Code = api.Forbidden
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway:
		e.Code = api.Unavailable
	case http.StatusGatewayTimeout:
		e.Code = api.Timeout
	default:
		if status < 500 {
			e.Code = api.Invalid
		}
	}
	return e
}
