// Package chaos trains on a cluster of real processes while they are killed, frozen and cut off from each other, and holds the
// result against a run that was left alone.
//
// A [Cluster] is coordinators and replicas on this machine. All their connections go by way of a [Network], which knows who
// dialled and mistreats the bytes from one process to another. [Plan] draws faults from a seed; [Cluster.Run] lets them happen.
//
//	err := chaos.Build(ctx, dir) // the programs
//	cluster, err := chaos.Start(ctx, chaos.ClusterConfig{Dir: data, Programs: dir, Coordinators: 3, Replicas: 8})
//	if err != nil {
//		return err
//	}
//	defer cluster.Close()
//	faults := chaos.Plan(seed, chaos.Everything, 60, 30*time.Second)
//	report, err := cluster.Run(ctx, []chaos.Experiment{{Name: "x", YAML: yaml, Digest: digest}}, faults, log.Printf)
//	fmt.Println(report) // how long each kind of fault stopped the training
//
// The error of Run is whatever must never be: a digest that differs, a cut that was acknowledged and is gone, a walker that is
// there twice or not at all, a coordinator that does not answer once the fault is over, a training that does not go on. How long
// things take is reported and judged by people.
//
// Processes and connections are told apart with Linux's help; elsewhere the network alone can be used.
package chaos
