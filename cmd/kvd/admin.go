package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kvd/lsm"
	"kvd/replication"
)

// admin is the HTTP side of a node: metrics, health, profiles. It changes nothing.
type admin struct {
	listener net.Listener // nil when switched off
	server   *http.Server
	registry *prometheus.Registry
}

// startAdmin serves at addr from now on, so that a node that takes long to open is seen to live.
func startAdmin(addr string, h *health, log *slog.Logger) (*admin, error) {
	a := &admin{registry: prometheus.NewRegistry()}
	if addr == "off" {
		return a, nil
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "kvd_build_info",
		Help:        "The build of this node; always 1.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	a.registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", h.serveLive)
	mux.HandleFunc("GET /readyz", h.serveReady)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	var err error
	if a.listener, err = net.Listen("tcp", addr); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	a.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin stopped", "error", err)
		}
	}()
	return a, nil
}

// show adds the figures of the opened node.
func (a *admin) show(c prometheus.Collector) { a.registry.MustRegister(c) }

// addr is where the admin listens, "off" when it does not.
func (a *admin) addr() string {
	if a.listener == nil {
		return "off"
	}
	return a.listener.Addr().String()
}

func (a *admin) close() error {
	if a.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.server.Shutdown(ctx); err != nil {
		return a.server.Close() // a profile that still runs
	}
	return nil
}

// health answers /livez and /readyz. Its methods may be called concurrently.
type health struct {
	mu       sync.Mutex
	db       *lsm.DB // nil until it is open
	node     *replication.Node
	serving  bool
	draining bool
}

func newHealth() *health { return new(health) }

func (h *health) opened(db *lsm.DB, node *replication.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.db, h.node = db, node
}

func (h *health) ready() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving = true
}

func (h *health) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// check is one line of ?verbose.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}

// readyChecks are what must hold for requests to make sense here.
func (h *health) readyChecks() []check {
	h.mu.Lock()
	defer h.mu.Unlock()
	checks := []check{
		{"database-open", h.db != nil, "recovery is running"},
		{"serving", h.serving, "not listening yet"},
		{"not-draining", !h.draining, "the node is stopping"},
	}
	if h.db != nil {
		state := h.db.Metrics().State
		checks = append(checks, check{"takes-writes", state == "healthy", state})
	}
	for i := range checks {
		if checks[i].OK {
			checks[i].Why = ""
		}
	}
	return checks
}

// serveLive says that the process runs. It depends on nothing that a restart would not mend.
func (h *health) serveLive(w http.ResponseWriter, r *http.Request) {
	answerChecks(w, r, []check{{Name: "process", OK: true}})
}

func (h *health) serveReady(w http.ResponseWriter, r *http.Request) {
	answerChecks(w, r, h.readyChecks())
}

// answerChecks answers 200 when all is well and 503 otherwise; ?verbose says which.
func answerChecks(w http.ResponseWriter, r *http.Request, checks []check) {
	failed := []string{}
	for _, c := range checks {
		if !c.OK {
			failed = append(failed, c.Name+": "+c.Why)
		}
	}
	code, word := http.StatusOK, "ok"
	if len(failed) > 0 {
		code, word = http.StatusServiceUnavailable, "not ready"
	}
	_, verbose := r.URL.Query()["verbose"]
	w.Header().Set("Cache-Control", "no-store")
	if verbose {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": word, "checks": checks})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, word)
	for _, f := range failed {
		fmt.Fprintln(w, f)
	}
}
