//go:build linux

package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Config says what a Kubelet stands for.
type Config struct {
	API    *rest.Config     // of a client that may do all that nodes, controllers of volumes and DNS may
	Dir    string           // volumes, logs and roots of containers; made if missing, left behind
	Nodes  []Node           // each is an object of the API server's, with a heartbeat
	Images map[string]Image // by exact name; a pod that wants another waits with ErrImagePull and ImagePullBackOff
	// Addresses of pods, default 10.88.0.0/16, and of services, as the API server was told, default 10.96.0.0/16.
	PodCIDR, ServiceCIDR string
	Log                  *slog.Logger // nil: nothing is logged
}

// Node is one of the nodes of the cluster.
type Node struct {
	Name        string
	CPU, Memory string // quantities of Kubernetes: 4, 16Gi
	Labels      map[string]string
	GPUs        int // nvidia.com/gpu, for the scheduler to count; programs see none
	Taints      []core.Taint
}

// Image is what containers of one image find.
type Image struct {
	Binaries map[string]string // path in the container → file on the host
	Env      map[string]string
	Mounts   map[string]string // path in the container → folder on the host, read-only
}

// Kubelet serves the pods of its nodes.
type Kubelet struct {
	config   Config
	log      *slog.Logger
	client   kubernetes.Interface
	network  *network
	launcher *launcher
	proxy    *proxy
	events   record.EventRecorder

	sources    sources
	podLister  corelisters.PodLister
	claims     corelisters.PersistentVolumeClaimLister
	persistent corelisters.PersistentVolumeLister

	life       context.Context // ends with Close
	end        context.CancelFunc
	closing    []func() error // from last to first
	provisions chan struct{}  // has one element while claims or volumes must be looked at
	nodes      map[string]*node
	tasks      sync.WaitGroup
	closeOnce  sync.Once

	mu   sync.Mutex
	pods map[types.UID]*pod
}

const (
	defaultPods     = "10.88.0.0/16"
	defaultServices = "10.96.0.0/16"
)

// Supported says what this machine lacks for nodes on it, nil for nothing.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("nodes of processes need root, for namespaces and users of pods")
	}
	namespaces, err := newNamespaces("probe")
	if err != nil {
		return fmt.Errorf("nodes of processes need namespaces: %w", err)
	}
	closeAll(namespaces)
	return nil
}

// Start makes the nodes known, and serves them until Close. The context is that of the start.
func Start(ctx context.Context, config Config) (*Kubelet, error) {
	api := rest.CopyConfig(config.API)
	api.QPS, api.Burst = 200, 400
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	return start(ctx, config, client)
}

func start(ctx context.Context, config Config, client kubernetes.Interface) (*Kubelet, error) {
	k := &Kubelet{config: config, client: client, log: config.Log, nodes: map[string]*node{}, pods: map[types.UID]*pod{}, provisions: make(chan struct{}, 1)}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.life, k.end = context.WithCancel(context.Background())
	if err := k.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("kubelet: %w", err), k.Close())
	}
	return k, nil
}

func (k *Kubelet) open(ctx context.Context) error {
	if err := Supported(); err != nil {
		return err
	}
	pods, err := netip.ParsePrefix(cmp.Or(k.config.PodCIDR, defaultPods))
	if err != nil {
		return fmt.Errorf("pod addresses: %w", err)
	}
	services, err := netip.ParsePrefix(cmp.Or(k.config.ServiceCIDR, defaultServices))
	if err != nil {
		return fmt.Errorf("service addresses: %w", err)
	}
	if k.config.Dir, err = filepath.Abs(k.config.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(k.config.Dir, 0o755); err != nil {
		return err
	}
	for _, n := range k.config.Nodes {
		if k.nodes[n.Name], err = newNode(n); err != nil {
			return err
		}
	}
	if k.network, err = openNetwork(pods, services); err != nil {
		return err
	}
	k.onClose(k.network.Close)
	k.launcher = newLauncher()
	k.onClose(k.launcher.Close)
	if err := k.watch(ctx); err != nil {
		return err
	}
	if err := k.makeStorageClass(ctx); err != nil {
		return err
	}
	for _, n := range k.nodes {
		if err := n.start(k); err != nil {
			return err
		}
	}
	return nil
}

// onClose has something closed, before what was opened before it.
func (k *Kubelet) onClose(f func() error) { k.closing = append(k.closing, f) }

// watch follows the API server, and serves names and services, from when all is known that there is.
func (k *Kubelet) watch(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	v1 := factory.Core().V1()
	slices := factory.Discovery().V1().EndpointSlices()
	k.sources = sources{v1.Secrets().Lister(), v1.ConfigMaps().Lister()}
	k.podLister, k.claims, k.persistent = v1.Pods().Lister(), v1.PersistentVolumeClaims().Lister(), v1.PersistentVolumes().Lister()
	known := names{v1.Services().Lister(), slices.Lister()}
	k.proxy = newProxy(known, k.config.apiServer(), k.log)
	k.onClose(k.proxy.Close)
	slices.Informer() // asked for, so that it is started

	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	k.onClose(func() error { broadcaster.Shutdown(); return nil })
	k.events = broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "kubelet"})

	k.onClose(func() error { factory.Shutdown(); return nil })
	changes := []struct {
		informer cache.SharedIndexInformer
		changed  func(object meta.Object, gone bool)
	}{
		{v1.Services().Informer(), func(meta.Object, bool) { k.proxy.sync() }},
		{v1.Secrets().Informer(), func(o meta.Object, _ bool) { k.refresh(o.GetNamespace()) }},
		{v1.ConfigMaps().Informer(), func(o meta.Object, _ bool) { k.refresh(o.GetNamespace()) }},
		{v1.PersistentVolumeClaims().Informer(), func(o meta.Object, _ bool) { notify(k.provisions); k.refresh(o.GetNamespace()) }},
		{v1.PersistentVolumes().Informer(), func(meta.Object, bool) { notify(k.provisions) }},
		{v1.Pods().Informer(), func(o meta.Object, gone bool) {
			if object, ok := o.(*core.Pod); ok && gone {
				k.forget(object)
			} else if ok {
				k.see(object)
			}
		}},
	}
	for _, c := range changes {
		if _, err := c.informer.AddEventHandler(handler(c.changed)); err != nil {
			return err
		}
	}
	factory.Start(k.life.Done())
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("list %v: %w", kind, context.Cause(ctx))
		}
	}
	k.tasks.Go(k.provisioning)
	dns, err := serveDNS(net.JoinHostPort(k.HostIP(), "53"), known, k.log)
	if err != nil {
		return err
	}
	k.onClose(dns.Close)
	return nil
}

func (c Config) apiServer() string {
	if c.API == nil {
		return ""
	}
	return c.API.Host
}

func handler(changed func(object meta.Object, gone bool)) cache.ResourceEventHandler {
	call := func(o any, gone bool) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if object, ok := o.(meta.Object); ok {
			changed(object, gone)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { call(o, false) },
		UpdateFunc: func(_, o any) { call(o, false) },
		DeleteFunc: func(o any) { call(o, true) },
	}
}

func (k *Kubelet) provisioning() {
	for {
		select {
		case <-k.life.Done():
			return
		case <-k.provisions:
		}
		if err := k.provision(k.life); err != nil && k.life.Err() == nil {
			k.log.WarnContext(k.life, "volumes of claims", "err", err)
			time.AfterFunc(retry, func() { notify(k.provisions) })
		}
	}
}

// Close kills all pods and removes their network. The API server is told nothing more, and its objects stay.
func (k *Kubelet) Close() error {
	var err error
	k.closeOnce.Do(func() {
		k.mu.Lock()
		k.end()
		for _, p := range k.pods {
			p.abandon()
		}
		k.mu.Unlock()
		k.tasks.Wait()
		for i := len(k.closing) - 1; i >= 0; i-- {
			err = errors.Join(err, k.closing[i]())
		}
	})
	return err
}

// HostIP is the address of this machine that pods reach.
func (k *Kubelet) HostIP() string { return k.network.gateway.String() }

// see starts a pod of a node that runs, or tells it how it is wanted now.
func (k *Kubelet) see(object *core.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.nodes[object.Spec.NodeName]
	if k.life.Err() != nil || n == nil {
		return
	}
	p := k.pods[object.UID]
	if p != nil {
		p.see(object)
		return
	}
	p = newPod(k, n, object)
	k.pods[object.UID] = p
	k.tasks.Go(p.run)
}

func (k *Kubelet) forget(object *core.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pods[object.UID]; p != nil {
		p.abandon()
		delete(k.pods, object.UID)
	}
}

func (k *Kubelet) refresh(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.object.Namespace == namespace {
			p.refresh()
		}
	}
}

// find returns the pod of that name that runs.
func (k *Kubelet) find(namespace, name string) (*pod, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		select {
		case <-p.gone:
		default:
			if p.object.Namespace == namespace && p.object.Name == name {
				return p, nil
			}
		}
	}
	return nil, fmt.Errorf("kubelet: pod %s/%s: no node has it", namespace, name)
}

// Forward listens on the loopback interface of this machine, until ctx ends. Connections lead to 127.0.0.1:port of the pod that has
// the name when they come.
func (k *Kubelet) Forward(ctx context.Context, namespace, name string, port int) (address string, err error) {
	if _, err := k.find(namespace, name); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("kubelet: forward: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stopWithKubelet := context.AfterFunc(k.life, cancel)
	k.tasks.Go(func() {
		defer stopWithKubelet()
		defer cancel()
		var connections sync.WaitGroup
		defer connections.Wait()
		stop := context.AfterFunc(ctx, func() { listener.Close() })
		defer stop()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				to, err := k.dial(ctx, namespace, name, port)
				if err != nil {
					k.log.DebugContext(ctx, "forwarded connection refused", "pod", namespace+"/"+name, "err", err)
					refuse(conn)
					return
				}
				splice(ctx, conn, to)
			})
		}
	})
	return listener.Addr().String(), nil
}

func (k *Kubelet) dial(ctx context.Context, namespace, name string, port int) (net.Conn, error) {
	p, err := k.find(namespace, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	sandbox := p.sandbox
	p.mu.Unlock()
	if sandbox == nil {
		return nil, fmt.Errorf("kubelet: pod %s/%s has no network yet", namespace, name)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return sandbox.dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// Exit ends the first container of a pod at once, and reports the exit code as its own.
func (k *Kubelet) Exit(namespace, name string, code int) error {
	return k.strike(namespace, name, &code)
}

// Kill kills the first container of a pod, as a lack of memory would.
func (k *Kubelet) Kill(namespace, name string) error { return k.strike(namespace, name, nil) }

func (k *Kubelet) strike(namespace, name string, code *int) error {
	p, err := k.find(namespace, name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.main[0]
	if c.process == nil {
		return fmt.Errorf("kubelet: container %s of pod %s/%s does not run", c.spec.Name, namespace, name)
	}
	c.forced = code
	c.process.signal(syscall.SIGKILL)
	return nil
}

// Logs is the file with all that the containers of a pod of that name wrote, those of its predecessors too. A line before the output
// of each container says when it began.
func (k *Kubelet) Logs(namespace, name string) (path string) {
	return filepath.Join(k.config.Dir, "logs", namespace, name+".log")
}

func (k *Kubelet) openLog(object *core.Pod) (*os.File, error) {
	path := k.Logs(object.Namespace, object.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
}

// apiServerEnv tells containers where the API server is.
func (k *Kubelet) apiServerEnv() map[string]string {
	service, err := k.proxy.names.services.Services(core.NamespaceDefault).Get("kubernetes")
	if err != nil || len(service.Spec.Ports) == 0 {
		return nil // it is not in this cluster
	}
	return map[string]string{
		"KUBERNETES_SERVICE_HOST": service.Spec.ClusterIP,
		"KUBERNETES_SERVICE_PORT": strconv.Itoa(int(service.Spec.Ports[0].Port)),
	}
}
