//go:build linux

package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probing tries again and again until ctx ends. What it finds is reported once it was found as often as the probe asks for, and
// then when it changes; every failure is reported to failed too.
func probing(ctx context.Context, p *core.Probe, try func(context.Context) error, found func(good bool), failed func(error)) {
	timer := time.NewTimer(seconds(p.InitialDelaySeconds))
	defer timer.Stop()
	var good, bad int32 // in a row
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		attempt, cancel := context.WithTimeoutCause(ctx, seconds(max(p.TimeoutSeconds, 1)), errors.New("timed out"))
		err := try(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if good, bad = good+1, 0; good == max(p.SuccessThreshold, 1) {
				found(true)
			}
		} else {
			failed(err)
			if good, bad = 0, bad+1; bad == max(p.FailureThreshold, 1) {
				found(false)
			}
		}
		timer.Reset(seconds(max(p.PeriodSeconds, 1)))
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// address is host:port of something that the container listens on.
func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.pod.sandbox.ip.String()
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", fmt.Errorf("host %q, want an address: names are the pods', not the node's", host)
	}
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(port.IntValue())), nil
	}
	for _, p := range c.spec.Ports {
		if p.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(p.ContainerPort))), nil
		}
	}
	return "", fmt.Errorf("port %q is not one of container %s", port.StrVal, c.spec.Name)
}

func (c *container) httpGet(ctx context.Context, get *core.HTTPGetAction) error {
	address, err := c.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	to, err := url.Parse("/" + strings.TrimPrefix(get.Path, "/"))
	if err != nil {
		return err
	}
	to.Scheme, to.Host = "http", address
	if get.Scheme == core.URISchemeHTTPS {
		to.Scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.37")
	for _, h := range get.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			request.Host = h.Value
		}
		request.Header.Set(h.Name, h.Value)
	}
	// Certificates of pods are nobody's business but their clients': a probe does not verify them.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, 10<<10))
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}
