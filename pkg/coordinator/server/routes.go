package server

import (
	"net/http"
	"reflect"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// route is one operation. The OpenAPI document is made from it.
type route struct {
	method, path string
	scope        ledger.Scope // that a token needs; open: none
	where        where
	stream       bool // takes as long as it takes
	about        string
	query        []parameter
	in, out      reflect.Type // bodies; nil: none, or one that is not JSON, named by media
	status       int          // of success; 0: 200 with out, 204 without
	inMedia      string       // "": application/json
	outMedia     string
	do           func(*call) (any, error)
}

// open is the scope of what needs no token.
const open ledger.Scope = 0

// where says who answers.
type where int

const (
	here     where = iota // whoever is asked
	byWish                // as the parameter consistency says
	onLeader              // the leader
)

// parameter is one of the query.
type parameter struct{ name, about string }

func body[T any]() reflect.Type { return reflect.TypeFor[T]() }

// lines is the media type of streams of JSON lines.
const lines = "application/jsonl"

// table lists all operations.
func (s *Server) table() []route {
	const (
		experiment = "/v1/experiments/{name}"
		octets     = "application/octet-stream"
		tar        = "application/x-tar"
		read       = ledger.Read
		operate    = ledger.Operate
		admin      = ledger.Admin
	)
	return []route{
		{method: "GET", path: "/v1/experiments", scope: read, where: byWish, out: body[api.List[api.Experiment]](), do: (*call).listExperiments,
			about: "All experiments that the token may see, by creation."},
		{method: "POST", path: "/v1/experiments", scope: operate, where: onLeader, in: body[api.Submit](), out: body[api.Experiment](), status: http.StatusCreated, do: (*call).submit,
			about: "Creates an experiment, or checks whether it could be. Sent again with the same uid it creates nothing."},
		{method: "GET", path: experiment, scope: read, where: byWish, out: body[api.Experiment](), do: (*call).getExperiment,
			about: "One experiment with its YAML. Its version is the ETag; If-None-Match is answered by 304."},
		{method: "PATCH", path: experiment, scope: operate, where: onLeader, in: body[api.Patch](), out: body[api.Experiment](), do: (*call).patchExperiment,
			about: "Changes what people want of it. If-Match makes it a compare-and-set: 412 where the version is another."},
		{method: "DELETE", path: experiment, scope: operate, where: onLeader, do: (*call).deleteExperiment,
			about: "Forgets an experiment in a final phase, with its cuts. If-Match as with PATCH."},
		{method: "GET", path: experiment + "/replicas", scope: read, where: byWish, out: body[api.List[api.Replica]](), do: (*call).listReplicas,
			about: "Replicas with a lease, by name."},
		{method: "POST", path: experiment + "/replicas/{replica}/drain", scope: operate, where: onLeader, do: (*call).drain,
			about: "Asks a replica to leave once its shards are elsewhere."},
		{method: "POST", path: experiment + "/replicas/{replica}/takeover", scope: operate, where: onLeader, do: (*call).takeover,
			about: "Ends a replica's lease, so that another process of the same id can take its place at once."},
		{method: "GET", path: experiment + "/shards", scope: read, where: byWish, out: body[api.List[api.Shard]](), do: (*call).listShards,
			about: "All shards, with who holds them."},
		{method: "GET", path: experiment + "/ladder", scope: read, where: byWish, out: body[api.Ladder](), do: (*call).getLadder,
			about: "The ladder, as the leader last saw it or as the last cut has it."},
		{method: "PUT", path: experiment + "/ladder", scope: operate, where: onLeader, in: body[api.PutLadder](), out: body[api.Experiment](), do: (*call).putLadder,
			about: "Gives a paused experiment another ladder, and its last cut on that one. If-Match as with PATCH."},
		{method: "GET", path: experiment + "/buffer", scope: read, where: byWish, out: body[api.Buffer](), do: (*call).getBuffer,
			about: "The replay buffer of the last cut."},
		{method: "GET", path: experiment + "/events", scope: read, where: byWish, out: body[api.List[api.Event]](), do: (*call).listEvents,
			about: "The last events, oldest first."},
		{method: "GET", path: experiment + "/metrics", scope: read, where: onLeader, stream: true, outMedia: lines, do: (*call).followMetrics,
			about: "Records of the training, one line each, that the leader has: those since it leads. The trailer Kelvin-End says that there are no more; an empty line is a sign of life.",
			query: []parameter{{"from", "only records behind this step"}, {"follow", "1: wait for more until the experiment is in a final phase"}}},
		{method: "GET", path: experiment + "/cuts", scope: read, where: byWish, out: body[api.List[api.Cut]](), do: (*call).listCuts,
			about: "The cuts that are kept, oldest first, and a refused one last."},
		{method: "GET", path: experiment + "/cuts/{step}", scope: read, where: byWish, out: body[api.Cut](), do: (*call).getCut,
			about: "The cut of a step, or the last, with what its manifest says."},
		{method: "POST", path: experiment + "/cuts/{step}", scope: operate, where: onLeader, in: body[api.ReplaceCut](), out: body[api.Cut](), do: (*call).replaceCut,
			about: "Goes back to a cut that is kept, or puts another in the place of that step and of later ones. The experiment must be paused. If-Match as with PATCH."},

		{method: "GET", path: "/v1/blobs/{digest}", scope: read, where: here, stream: true, outMedia: octets, do: (*call).getBlob,
			about: "A blob by its SHA-256. Ranges are understood, HEAD too."},
		{method: "PUT", path: "/v1/blobs/{digest}", scope: operate, where: onLeader, stream: true, inMedia: octets, do: (*call).putBlob,
			about: "Uploads a blob. When it is answered most coordinators have it on disk; for ten minutes it is kept though nothing names it."},

		{method: "GET", path: "/v1/watch", scope: read, where: here, stream: true, outMedia: lines, out: body[api.Change](), do: (*call).watch,
			about: "What changes, one line each, behind a log index; 0 begins with all that there is.",
			query: []parameter{{"since", "the index of the last line that was seen"}, {"experiment", "only this one"}}},

		{method: "GET", path: "/v1/members", scope: read, where: byWish, out: body[api.List[api.Member]](), do: (*call).listMembers,
			about: "The coordinators, by name."},
		{method: "POST", path: "/v1/members", scope: admin, where: onLeader, in: body[api.AddMember](), do: (*call).addMember,
			about: "Lets a coordinator in, as a non-voter."},
		{method: "DELETE", path: "/v1/members/{member}", scope: admin, where: onLeader, do: (*call).removeMember,
			about: "Takes a coordinator out of the quorum."},
		{method: "POST", path: "/v1/members/{member}/promote", scope: admin, where: onLeader, do: (*call).promoteMember,
			about: "Makes a non-voter a voter."},
		{method: "POST", path: "/v1/members/{member}/lead", scope: admin, where: onLeader, do: (*call).leadMember,
			about: "Hands the leadership to a voter."},

		{method: "GET", path: "/v1/tokens", scope: admin, where: byWish, out: body[api.List[api.Token]](), do: (*call).listTokens,
			about: "All tokens, by name, without their secrets."},
		{method: "POST", path: "/v1/tokens", scope: admin, where: onLeader, in: body[api.CreateToken](), out: body[api.NewToken](), status: http.StatusCreated, do: (*call).createToken,
			about: "Makes a token. The answer is the only place where its secret is shown."},
		{method: "POST", path: "/v1/tokens/bootstrap", scope: open, where: onLeader, out: body[api.NewToken](), status: http.StatusCreated, do: (*call).bootstrap,
			about: "Trades the token that the first leader wrote to its disk, or a connection from a coordinator's own machine, for the first token of scope admin. It works until that one is used."},
		{method: "DELETE", path: "/v1/tokens/{token}", scope: admin, where: onLeader, do: (*call).revokeToken,
			about: "Forgets a token."},

		{method: "GET", path: "/v1/quotas", scope: read, where: byWish, out: body[api.List[api.Quota]](), do: (*call).listQuotas,
			about: "All quotas, by owner, and what they take."},
		{method: "GET", path: "/v1/quotas/{owner}", scope: read, where: byWish, out: body[api.Quota](), do: (*call).getQuota,
			about: "What an owner may take, and takes."},
		{method: "PUT", path: "/v1/quotas/{owner}", scope: admin, where: onLeader, in: body[api.PutQuota](), out: body[api.Quota](), do: (*call).putQuota,
			about: "Sets what an owner may take; all zero takes the quota away."},

		{method: "POST", path: "/v1/pool/ask", scope: ledger.Join, where: onLeader, in: body[api.Ask](), out: body[api.Assignment](), do: (*call).ask,
			about: "Asks for work for a replica, and waits 20 seconds for it. 204: nothing yet, ask again."},
		{method: "GET", path: "/v1/pool", scope: read, where: onLeader, out: body[api.List[api.PoolReplica]](), do: (*call).listPool,
			about: "The replicas that the scheduler knows, by id."},

		{method: "GET", path: "/v1/backup", scope: admin, where: onLeader, stream: true, outMedia: tar, do: (*call).backup,
			about: "A backup of the cluster: its state and all blobs that this names. The trailer Kelvin-End says that it is whole."},
		{method: "POST", path: "/v1/restore", scope: admin, where: onLeader, stream: true, inMedia: tar, out: body[api.Restored](), do: (*call).restore,
			about: "Puts a backup into an empty cluster. Afterwards the tokens are those of the backup.",
			query: []parameter{{"force", "the id of this cluster, if it is not empty: all that is in it is lost"}}},

		{method: "GET", path: "/livez", scope: open, where: here, outMedia: "text/plain", do: (*call).livez, about: "Whether the process works."},
		{method: "GET", path: "/readyz", scope: open, where: here, outMedia: "text/plain", do: (*call).readyz, about: "Whether it is up to date."},
		{method: "GET", path: "/startupz", scope: open, where: here, outMedia: "text/plain", do: (*call).startupz, about: "Whether it has found a leader since it was started."},
		{method: "GET", path: "/metrics", scope: open, where: here, outMedia: "text/plain", do: (*call).prometheus, about: "Numbers for Prometheus."},
		{method: "GET", path: "/version", scope: open, where: here, out: body[api.Build](), do: (*call).build, about: "What runs here."},
		{method: "GET", path: "/openapi.json", scope: open, where: here, outMedia: "application/json", do: (*call).openapi, about: "This document."},
	}
}
