package k8s_test

import (
	"fmt"
	"slices"

	batch "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The parts that are used here of what JobSet, Kueue and cert-manager bring to a cluster. A field that is not here is refused: look
// it up in their documentation, and write it down.

type jobSet struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		Suspend                 *bool  `json:"suspend"`
		TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished"`
		FailurePolicy           struct {
			MaxRestarts int32 `json:"maxRestarts"`
			Rules       []struct {
				Name                 string   `json:"name"`
				Action               string   `json:"action"`
				OnJobFailureReasons  []string `json:"onJobFailureReasons"`
				TargetReplicatedJobs []string `json:"targetReplicatedJobs"`
			} `json:"rules"`
		} `json:"failurePolicy"`
		ReplicatedJobs []struct {
			Name     string                `json:"name"`
			Replicas int32                 `json:"replicas"`
			Template batch.JobTemplateSpec `json:"template"`
		} `json:"replicatedJobs"`
	} `json:"spec"`
}

func (j *jobSet) check() error {
	// The reasons with which the controller of Jobs ends one.
	reasons := []string{"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"}
	for _, r := range j.Spec.FailurePolicy.Rules {
		if !slices.Contains([]string{"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}, r.Action) {
			return fmt.Errorf("failurePolicy: action %q", r.Action)
		}
		for _, reason := range r.OnJobFailureReasons {
			if !slices.Contains(reasons, reason) {
				return fmt.Errorf("failurePolicy: reason %q", reason)
			}
		}
	}
	if len(j.Spec.ReplicatedJobs) != 1 || j.Spec.ReplicatedJobs[0].Replicas != 1 {
		return fmt.Errorf("replicatedJobs: want one, of one Job, so that no failure restarts another")
	}
	if j.Spec.ReplicatedJobs[0].Template.Spec.TTLSecondsAfterFinished != nil {
		return fmt.Errorf("a Job of a JobSet must not go before it")
	}
	return nil
}

type resourceFlavor struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		NodeLabels map[string]string `json:"nodeLabels"`
	} `json:"spec"`
}

type clusterQueue struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		NamespaceSelector *meta.LabelSelector `json:"namespaceSelector"`
		ResourceGroups    []struct {
			CoveredResources []string `json:"coveredResources"`
			Flavors          []struct {
				Name      string `json:"name"`
				Resources []struct {
					Name         string            `json:"name"`
					NominalQuota resource.Quantity `json:"nominalQuota"`
				} `json:"resources"`
			} `json:"flavors"`
		} `json:"resourceGroups"`
	} `json:"spec"`
}

func (q *clusterQueue) check() error {
	for _, g := range q.Spec.ResourceGroups {
		for _, f := range g.Flavors {
			var names []string
			for _, r := range f.Resources {
				names = append(names, r.Name)
			}
			if !slices.Equal(names, g.CoveredResources) {
				return fmt.Errorf("flavor %s has %v, want the covered resources in their order, %v", f.Name, names, g.CoveredResources)
			}
		}
	}
	return nil
}

type localQueue struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		ClusterQueue string `json:"clusterQueue"`
	} `json:"spec"`
}

type issuer struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		SelfSigned *struct{} `json:"selfSigned"`
		CA         *struct {
			SecretName string `json:"secretName"`
		} `json:"ca"`
	} `json:"spec"`
}

type certificate struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		IsCA        bool          `json:"isCA"`
		CommonName  string        `json:"commonName"`
		SecretName  string        `json:"secretName"`
		Duration    meta.Duration `json:"duration"`
		RenewBefore meta.Duration `json:"renewBefore"`
		PrivateKey  struct {
			Algorithm      string `json:"algorithm"`
			Encoding       string `json:"encoding"`
			Size           int    `json:"size"`
			RotationPolicy string `json:"rotationPolicy"`
		} `json:"privateKey"`
		Usages      []string `json:"usages"`
		URIs        []string `json:"uris"`
		DNSNames    []string `json:"dnsNames"`
		IPAddresses []string `json:"ipAddresses"`
		IssuerRef   struct {
			Name string `json:"name"`
			Kind string `json:"kind"`
		} `json:"issuerRef"`
	} `json:"spec"`
}
