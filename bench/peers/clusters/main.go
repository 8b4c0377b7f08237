// Clusters measures three kvd nodes beside three of etcd and a Redis primary with one replica, all
// on this machine, with the same keys, values and number of clients, in turn:
//
//	go build -o /tmp/kvd ../../cmd/kvd && go run ./clusters -kvd /tmp/kvd
//
// It needs etcd and redis-server (Debian: etcd-server, redis-server). Durability is that of an
// fsync before the answer: kvd Sync at W nodes, etcd's log at a majority, Redis with appendfsync
// always, and WAIT 1 for the replica. What each reads: see the table it prints.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"kvd/netquic"
	"kvd/replication"
)

var (
	kvd     = flag.String("kvd", "kvd", "the kvd binary")
	clients = flag.Int("clients", 64, "clients, each with one request under way")
	length  = flag.Duration("for", 4*time.Second, "how long each measurement takes")
	rounds  = flag.Int("rounds", 3, "times that everything is measured; medians are printed")
	keys    = flag.Int("keys", 20000, "keys, of 16 bytes, values of 100")
)

// workload is one row: what is done, and how each store does it.
type workload struct {
	store, name string
	do          func(client int, key, value []byte) error
}

// measured is one measurement.
type measured struct {
	perSecond float64
	p50, p99  time.Duration
}

func main() {
	netquic.KeepMonitorAwake() // the clients of all stores are in this process
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "clusters:", err)
		os.Exit(1)
	}
}

func run() error {
	temp, err := os.MkdirTemp("", "clusters")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	var all []workload
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, start := range []func(string) ([]workload, func(), error){
		startKVD3, startKVD1, startEtcd, startRedis,
	} {
		w, stop, err := start(temp)
		if stop != nil {
			stops = append(stops, stop)
		}
		if err != nil {
			return err
		}
		all = append(all, w...)
	}
	results := make([][]measured, len(all))
	for round := range *rounds {
		for i, w := range all {
			m, err := measure(w)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w.store, w.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d: %-28s %-34s %8.0f/s  p99 %v\n", round+1, w.store,
				w.name, m.perSecond, m.p99.Round(10*time.Microsecond))
			results[i] = append(results[i], m)
		}
	}
	fmt.Printf("| store | request | thousand/s | p50 | p99 |\n|---|---|---:|---:|---:|\n")
	for i, w := range all {
		slices.SortFunc(results[i], func(a, b measured) int {
			return int(a.perSecond - b.perSecond)
		})
		m := results[i][len(results[i])/2]
		fmt.Printf("| %s | %s | %.1f | %v | %v |\n", w.store, w.name, m.perSecond/1000,
			m.p50.Round(10*time.Microsecond), m.p99.Round(10*time.Microsecond))
	}
	return nil
}

func keyOf(i int) []byte { return fmt.Appendf(nil, "key%013d", i) }

func measure(w workload) (m measured, err error) {
	value := make([]byte, 100)
	for i := range value {
		value[i] = byte(rand.IntN(64)) + ' '
	}
	var wg sync.WaitGroup
	times := make([][]time.Duration, *clients)
	errs := make([]error, *clients)
	began := time.Now()
	for c := range *clients {
		wg.Go(func() {
			for time.Since(began) < *length && errs[c] == nil {
				asked := time.Now()
				errs[c] = w.do(c, keyOf(rand.IntN(*keys)), value)
				times[c] = append(times[c], time.Since(asked))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	all := slices.Concat(times...)
	slices.Sort(all)
	m.perSecond = float64(len(all)) / took.Seconds()
	m.p50, m.p99 = all[len(all)/2], all[len(all)*99/100]
	return m, errors.Join(errs...)
}

// load writes every key once.
func load(put func(client int, key, value []byte) error) error {
	var wg sync.WaitGroup
	errs := make([]error, *clients)
	for c := range *clients {
		wg.Go(func() {
			for i := c; i < *keys && errs[c] == nil; i += *clients {
				errs[c] = put(c, keyOf(i), make([]byte, 100))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// process starts a program that is ended by stop.
func process(log, name string, args ...string) (stop func(), err error) {
	cmd := exec.Command(name, args...)
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = f.Close() }, nil
}

func freePort(network string) int {
	if network == "udp" {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			panic(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startKVD3(temp string) ([]workload, func(), error) { return startKVD(temp, 3) }
func startKVD1(temp string) ([]workload, func(), error) { return startKVD(temp, 1) }

func startKVD(temp string, n int) ([]workload, func(), error) {
	dir := filepath.Join(temp, fmt.Sprintf("kvd%d", n))
	tls := filepath.Join(dir, "tls")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	authority, err := netquic.CreateAuthority(tls)
	if err != nil {
		return nil, nil, err
	}
	var list, addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", freePort("udp")))
		list = append(list, fmt.Sprintf("n%d=%s", i+1, addrs[i]))
	}
	var stops []func()
	stop := func() {
		for _, s := range stops {
			s()
		}
	}
	for i := range n {
		id := fmt.Sprintf("n%d", i+1)
		s, err := process(filepath.Join(dir, id+".log"), *kvd, "--id", id, "--cluster",
			strings.Join(list, ","), "--tls", tls, "--data", filepath.Join(dir, id),
			"--admin", "off", "--known-nodes", filepath.Join(dir, "known"))
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, s)
	}
	c := replication.NewClusterClient(addrs, func(addr string) (replication.Caller, error) {
		return netquic.NewClient(addr, netquic.Options{Authority: authority})
	}, netquic.ErrInDoubt)
	ctx := context.Background()
	for range 100 {
		_, err = c.Put(ctx, keyOf(0), nil, replication.WriteOptions{Level: replication.All})
		if err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return nil, stop, err
	}
	w, err := kvdWorkloads(c, n)
	return w, stop, err
}

// kvdWorkloads loads the keys and says what is measured.
func kvdWorkloads(c *replication.ClusterClient, n int) ([]workload, error) {
	ctx := context.Background()
	put := func(w replication.Level) func(int, []byte, []byte) error {
		return func(_ int, key, value []byte) error {
			_, err := c.Put(ctx, key, value, replication.WriteOptions{Level: w})
			return err
		}
	}
	get := func(r replication.Level) func(int, []byte, []byte) error {
		return func(_ int, key, _ []byte) error {
			v, err := c.Get(ctx, key, replication.ReadOptions{Level: r})
			if err == nil && len(v.All) == 0 {
				err = errors.New("not found")
			}
			return err
		}
	}
	if err := load(put(replication.All)); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("kvd, %d nodes", n)
	if n == 1 {
		return []workload{{"kvd, 1 node", "GET", get(1)}, {"kvd, 1 node", "PUT", put(1)}},
			nil
	}
	return []workload{
		{name, "GET R=1 (one replica)", get(1)},
		{name, "GET R=2 (latest)", get(2)},
		{name, "PUT W=2", put(2)},
	}, nil
}

func startEtcd(temp string) ([]workload, func(), error) {
	var peers, urls []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("e%d=http://127.0.0.1:%d", i+1, freePort("tcp")))
		urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", freePort("tcp")))
	}
	var stops []func()
	stop := func() {
		for _, s := range stops {
			s()
		}
	}
	for i := range 3 {
		name, peer, _ := strings.Cut(peers[i], "=")
		s, err := process(filepath.Join(temp, name+".log"), "etcd", "--name", name, "--data-dir",
			filepath.Join(temp, name), "--listen-peer-urls", peer,
			"--initial-advertise-peer-urls", peer,
			"--listen-client-urls", urls[i], "--advertise-client-urls", urls[i],
			"--initial-cluster", strings.Join(peers, ","), "--log-level", "error")
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, s)
	}
	var conns []*clientv3.Client // one connection each for eight clients, as etcd's own tool has it
	for range (*clients + 7) / 8 {
		c, err := clientv3.New(clientv3.Config{Endpoints: urls, DialTimeout: 20 * time.Second,
			Logger: zap.NewNop()})
		if err != nil {
			return nil, stop, err
		}
		conns = append(conns, c)
	}
	ctx := context.Background()
	put := func(client int, key, value []byte) error {
		_, err := conns[client%len(conns)].Put(ctx, string(key), string(value))
		return err
	}
	get := func(options ...clientv3.OpOption) func(int, []byte, []byte) error {
		return func(client int, key, _ []byte) error {
			_, err := conns[client%len(conns)].Get(ctx, string(key), options...)
			return err
		}
	}
	if err := load(put); err != nil {
		return nil, stop, err
	}
	return []workload{
		{"etcd, 3 nodes", "GET serializable (one replica)", get(clientv3.WithSerializable())},
		{"etcd, 3 nodes", "GET (latest)", get()},
		{"etcd, 3 nodes", "PUT (majority)", put},
	}, stop, nil
}

func startRedis(temp string) ([]workload, func(), error) {
	ports := []int{freePort("tcp"), freePort("tcp")}
	var stops []func()
	stop := func() {
		for _, s := range stops {
			s()
		}
	}
	for i, port := range ports {
		dir := filepath.Join(temp, fmt.Sprintf("redis%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, stop, err
		}
		args := []string{"--port", fmt.Sprint(port), "--dir", dir, "--appendonly", "yes",
			"--appendfsync", "always", "--save", "", "--bind", "127.0.0.1",
			"--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", "127.0.0.1", fmt.Sprint(ports[0]))
		}
		log := filepath.Join(temp, fmt.Sprintf("redis%d.log", i))
		s, err := process(log, "redis-server", args...)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, s)
	}
	time.Sleep(3 * time.Second) // the replica joins
	conns := make([]*resp, *clients)
	for i := range conns {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0]))
		if err != nil {
			return nil, stop, err
		}
		conns[i] = &resp{bufio.NewReader(c), c}
	}
	put := func(client int, key, value []byte) error {
		return conns[client].call([]string{"SET", string(key), string(value)},
			[]string{"WAIT", "1", "1000"})
	}
	get := func(client int, key, _ []byte) error {
		return conns[client].call([]string{"GET", string(key)})
	}
	if err := load(put); err != nil {
		return nil, stop, err
	}
	return []workload{
		{"Redis, primary and replica", "GET (primary)", get},
		{"Redis, primary and replica", "SET, WAIT 1", put},
	}, stop, nil
}

// resp speaks the protocol of Redis.
type resp struct {
	in  *bufio.Reader
	out io.Writer
}

// call sends commands together and reads their answers.
func (r *resp) call(commands ...[]string) error {
	var b strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(c))
		for _, word := range c {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	if _, err := io.WriteString(r.out, b.String()); err != nil {
		return err
	}
	for range commands {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return err
		}
		switch line[0] {
		case '-':
			return errors.New(strings.TrimSpace(line))
		case '$':
			n := 0
			if _, err := fmt.Sscan(line[1:], &n); err != nil {
				return err
			}
			if n < 0 {
				return errors.New("not found")
			}
			if _, err := r.in.Discard(n + 2); err != nil {
				return err
			}
		case ':':
			if line[1] == '0' {
				return errors.New("no replica has it")
			}
		}
	}
	return nil
}
