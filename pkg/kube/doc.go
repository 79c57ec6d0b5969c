// Package kube runs the replicas of an experiment on Kubernetes: it makes their Job, gives it to a cluster, changes its size,
// and says in words why its pods do not run. The main types are [Replicas], from which a Job is made, and [Client].
//
//	job, err := kube.NewJob(kube.Replicas{
//		Experiment: "digits", Namespace: "kelvin", Replicas: 8, Standbys: 1,
//		Image: "ghcr.io/kelvin-ebm/kelvin:0.1.0-cuda13", GPU: true,
//		Coordinators: []string{"https://kelvin.kelvin.svc:8443"}, Secret: "kelvin-join",
//		CPU: "2", Memory: "8Gi",
//	})
//	client, err := kube.Open(kube.Access{}) // as kubectl does: a kubeconfig, or the pod that this runs in
//	err = client.Apply(ctx, job, kube.Really)
//	err = client.Scale(ctx, "digits", 5)
//	seen, err := client.Look(ctx, "digits")
//	for _, f := range seen.Findings { … }
//
// Index i of the Job is the replica <experiment>-i for good, whichever pod it runs in. A replica keeps nothing: when its pod
// goes, another one of the same index takes its place, and the training goes on from the last cut. Of client-go only the part is
// used that finds a cluster and signs requests; the requests are HTTP with JSON. Errors of a cluster are *[api.Error].
package kube
