// Package controlplane runs the control plane of Kubernetes as processes of this machine, on loopback, for tests: etcd, API server,
// controller manager and scheduler, built from their modules by Build. There are no nodes: package kubelet stands in for those.
//
//	plane, err := controlplane.Start(ctx, controlplane.Config{Binaries: controlplane.Cache(), Dir: t.TempDir()})
//	if err != nil {
//		t.Fatal(err)
//	}
//	defer plane.Close()
//	client := kubernetes.NewForConfigOrDie(plane.REST())
package controlplane
