//go:build linux

package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// readyAfter bounds the start of each program. An API server takes four seconds alone, more where all cores are busy.
const readyAfter = 2 * time.Minute

// Config says where a control plane lives.
type Config struct {
	Binaries    string // folder of the programs: Build
	Dir         string // data, certificates, kubeconfig and the log of each program
	ServiceCIDR string // default 10.96.0.0/16
}

const defaultServices = "10.96.0.0/16"

// ControlPlane is a running one. Its only user is admin, of the group system:masters; others can be impersonated.
type ControlPlane struct {
	rest       *rest.Config
	kubeconfig string
	processes  []*process // in the order of their start
}

// Start starts the four programs and returns once the API server is ready and the controllers have made the accounts of the
// namespace default. Close ends them; so does the end of this process.
func Start(ctx context.Context, c Config) (_ *ControlPlane, err error) {
	if missing := Missing(c.Binaries); len(missing) > 0 {
		return nil, fmt.Errorf("control plane: %s has no %v, want them built", c.Binaries, missing)
	}
	ctx, cancel := context.WithTimeout(ctx, readyAfter)
	defer cancel()
	p := &ControlPlane{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	etcd, peer, api := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1], "https://127.0.0.1:"+ports[2]
	file := func(name string) string { return filepath.Join(c.Dir, name) }
	if err := p.credentials(c, api); err != nil {
		return nil, err
	}

	// What etcd has is thrown away with it: no need to wait for the disk.
	if err := p.start(c, "etcd",
		"--data-dir="+file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer); err != nil {
		return nil, err
	}
	if err := p.start(c, "kube-apiserver",
		"--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+ports[2],
		// An address on loopback is none that pods could be sent to.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range="+cmp.Or(c.ServiceCIDR, defaultServices),
		"--tls-cert-file="+file("api.pem"), "--tls-private-key-file="+file("api-key.pem"), "--client-ca-file="+file("ca.pem"),
		"--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+file("accounts-key.pem"), "--service-account-signing-key-file="+file("accounts-key.pem")); err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(p.rest)
	if err != nil {
		return nil, err
	}
	if err := p.until(ctx, "the API server is ready", func() error {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	if err := p.start(c, "kube-controller-manager",
		"--kubeconfig="+p.kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+file("accounts-key.pem"), "--root-ca-file="+file("ca.pem"),
		// A node counts as lost after 16 s instead of 50, so that a test of it does not wait for a minute.
		"--node-monitor-period=2s", "--node-monitor-grace-period=16s"); err != nil {
		return nil, err
	}
	if err := p.start(c, "kube-scheduler", "--kubeconfig="+p.kubeconfig, "--leader-elect=false", "--secure-port=0"); err != nil {
		return nil, err
	}
	return p, p.until(ctx, "the controllers work", func() error {
		_, err := client.CoreV1().ServiceAccounts(meta.NamespaceDefault).Get(ctx, "default", meta.GetOptions{})
		if apierrors.IsNotFound(err) {
			return errors.New("the namespace default has no account yet")
		}
		return err
	})
}

// REST returns the configuration of admin's clients.
func (p *ControlPlane) REST() *rest.Config { return rest.CopyConfig(p.rest) }

// Kubeconfig returns the path of admin's kubeconfig.
func (p *ControlPlane) Kubeconfig() string { return p.kubeconfig }

// Close ends the programs, the last one first, and waits for their end.
func (p *ControlPlane) Close() error {
	var errs []error
	for _, process := range slices.Backward(p.processes) {
		errs = append(errs, process.stop())
	}
	p.processes = nil
	return errors.Join(errs...)
}

// credentials writes the certificates of the API server and of admin, the key for accounts' tokens, and the kubeconfig.
func (p *ControlPlane) credentials(c Config, api string) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	services, err := netip.ParsePrefix(cmp.Or(c.ServiceCIDR, defaultServices))
	if err != nil {
		return fmt.Errorf("control plane: service addresses: %w", err)
	}
	service := services.Masked().Addr().Next().String() // of the service kubernetes, by which pods know the API server
	server, err := ca.issue("kube-apiserver", nil, []string{"127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", service})
	if err != nil {
		return err
	}
	admin, err := ca.issue("admin", []string{"system:masters"}, nil)
	if err != nil {
		return err
	}
	accounts, err := ca.issue("accounts", nil, nil) // its key alone is used
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"ca.pem": ca.pem, "api.pem": server.cert, "api-key.pem": server.key, "accounts-key.pem": accounts.key} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), data, 0o600); err != nil {
			return err
		}
	}
	p.rest = &rest.Config{
		Host:            api,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.pem, CertData: admin.cert, KeyData: admin.key},
		QPS:             200, Burst: 400, // a kubelet of many pods shares it
	}
	p.kubeconfig = filepath.Join(c.Dir, "kubeconfig")
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: api, CertificateAuthorityData: ca.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {ClientCertificateData: admin.cert, ClientKeyData: admin.key}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "admin"}},
		CurrentContext: "test",
	}, p.kubeconfig)
}

func (p *ControlPlane) start(c Config, name string, args ...string) error {
	process, err := startProcess(filepath.Join(c.Binaries, name), filepath.Join(c.Dir, name+".log"), args)
	if err != nil {
		return fmt.Errorf("control plane: starting %s: %w", name, err)
	}
	p.processes = append(p.processes, process)
	return nil
}

// until polls a condition. It fails at once when one of the programs has ended.
func (p *ControlPlane) until(ctx context.Context, what string, condition func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		for _, process := range p.processes {
			select {
			case <-process.ended:
				return fmt.Errorf("control plane: %s ended: %w, %s has its log", process.name, process.err, process.log)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("control plane: waiting until %s: %w (%w)", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// freePorts returns ports of loopback that nobody listens on at this moment.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports, nil
}
