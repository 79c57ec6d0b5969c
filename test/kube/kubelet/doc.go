// Package kubelet stands in for the nodes of a Kubernetes cluster in tests: kubelet, container runtime, network, service proxies,
// cluster DNS and volume provisioner in small, all within the process that tests. It is for control planes whose API server is
// real. Pods that its scheduler binds to one of the nodes run here as ordinary programs of this machine, each container in
// namespaces of its own, with the environment, volumes, user, probes, signals and exit codes that Kubernetes promises.
//
// There are no images: Config.Images says which programs of the host a name stands for. The root of a container is read from the
// host's /usr. Limits of CPU and memory are not enforced, nor network policies; a node may claim GPUs, and gives none. A pod that
// asks for what is not had here fails, and its status says for what.
//
// Programs that use it call Init first, since containers begin as the same program once more:
//
//	func TestMain(m *testing.M) {
//		kubelet.Init()
//		os.Exit(m.Run())
//	}
//
//	nodes, err := kubelet.Start(ctx, kubelet.Config{
//		API:    api,
//		Dir:    t.TempDir(),
//		Nodes:  []kubelet.Node{{Name: "a", CPU: "8", Memory: "16Gi"}},
//		Images: map[string]kubelet.Image{"app:1": {Binaries: map[string]string{"/usr/local/bin/app": app}}},
//	})
//	if err != nil {
//		t.Fatal(err)
//	}
//	defer nodes.Close()
//
// It needs Linux and root; Supported says what is missing.
package kubelet
