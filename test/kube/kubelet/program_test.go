//go:build linux

package kubelet

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Init()
	if len(os.Args) > 2 && os.Args[1] == "as" {
		program(os.Args[2], os.Args[3:])
	}
	os.Exit(m.Run())
}

// program is what the containers of the tests run: this test once more, under the name /usr/local/bin/program.
func program(name string, args []string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	switch name {
	case "look":
		text, err := json.Marshal(look(args))
		if err != nil {
			fail(err)
		}
		if err := os.WriteFile("/out/seen.json", text, 0o644); err != nil {
			fail(err)
		}
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		fmt.Println("looked")
		<-terminated
		os.Exit(143)
	case "exit":
		fmt.Println("last words")
		code, err := strconv.Atoi(args[0])
		if err != nil {
			fail(err)
		}
		os.Exit(code)
	case "serve":
		fail(http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			host, _ := os.Hostname()
			fmt.Fprint(w, host)
		})))
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("hears nothing")
		time.Sleep(time.Hour)
	}
	fail(fmt.Errorf("program %q is not known", name))
}

// sight is what a container sees of itself.
type sight struct {
	Address, Host, Resolv string
	UID, GID              int
	Groups                []int
	PID                   int
	Dir                   string
	Env                   map[string]string
	Status                map[string]string // of /proc/self/status
	Wrote                 map[string]string // what came of writing a file in these folders
	Files                 map[string]string
}

func look(paths []string) sight {
	s := sight{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Env: map[string]string{}, Status: map[string]string{}, Wrote: map[string]string{}, Files: map[string]string{}}
	s.Host, _ = os.Hostname()
	s.Dir, _ = os.Getwd()
	s.Groups, _ = os.Getgroups()
	if eth, err := net.InterfaceByName("eth0"); err == nil {
		if list, err := eth.Addrs(); err == nil && len(list) > 0 {
			s.Address, _, _ = strings.Cut(list[0].String(), "/")
		}
	}
	for _, assignment := range os.Environ() {
		name, value, _ := strings.Cut(assignment, "=")
		s.Env[name] = value
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		s.Status[name] = value
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	s.Resolv = string(resolv)
	for _, dir := range []string{"/", "/usr", "/etc", "/out", "/scratch", "/secret"} {
		s.Wrote[dir] = "yes"
		if err := os.WriteFile(dir+"/tried", []byte("x"), 0o600); err != nil {
			s.Wrote[dir] = err.(*os.PathError).Err.Error()
		}
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if s.Files[path] = string(text); err != nil {
			s.Files[path] = err.Error()
		}
	}
	return s
}
