// Copyright the k8sgu authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Demo-website is a guest book of page views, kept in a Redis database on another machine.
//
//	GET  /            the page: this view is counted, the latest ones are shown
//	GET  /api/visits  {"hostname", "node", "count", "visits": [{"time", "hostname", "node", "client"}]}; counts nothing
//	POST /api/visits  counts a visit and answers as GET does
//	GET  /healthz     200 while the process serves, whatever the database does
//	GET  /readyz      200 while the database answers, 503 with the reason otherwise
//
// Environment:
//
//	LISTEN_ADDRESS       address and port to serve on, by default :8080
//	DATABASE_ADDRESS     host:port of the database, by default demo-database:6379
//	DATABASE_USER        its user, by default the database's default user
//	DATABASE_PASSWORD    the password, or
//	DATABASE_PASSWORD_FILE  a file that holds it, read anew for every connection so that it can be rotated
//	NODE_NAME            the node that this replica runs on, shown as it is
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	counterKey      = "demo-website:count"
	visitsKey       = "demo-website:visits"
	visitsKept      = 20
	databaseTimeout = 2 * time.Second
	shutdownTimeout = 10 * time.Second
)

// version is stamped by the linker.
var version = "development"

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

type visit struct {
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Node     string    `json:"node"`
	Client   string    `json:"client"`
}

// book is what a reader sees: who served the answer, and what the database holds.
type book struct {
	Hostname string  `json:"hostname"`
	Node     string  `json:"node"`
	Version  string  `json:"version"`
	Count    int64   `json:"count"`
	Visits   []visit `json:"visits"`
}

type server struct {
	database *redis.Client
	hostname string
	node     string
}

func main() {
	if err := run(); err != nil {
		slog.Error("the website ends", "error", err)
		os.Exit(1)
	}
}

func run() error {
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read the host name: %w", err)
	}
	database := redis.NewClient(&redis.Options{
		Addr:                       setting("DATABASE_ADDRESS", "demo-database:6379"),
		CredentialsProviderContext: credentials,
		DialTimeout:                databaseTimeout,
		ReadTimeout:                databaseTimeout,
		WriteTimeout:               databaseTimeout,
		DisableIdentity:            true,
	})
	defer database.Close()

	site := &server{database: database, hostname: hostname, node: os.Getenv("NODE_NAME")}
	service := &http.Server{
		Addr:              setting("LISTEN_ADDRESS", ":8080"),
		Handler:           site.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
	}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- service.ListenAndServe() }()
	slog.Info("serving", "address", service.Addr, "database", database.Options().Addr, "version", version)
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	patience, done := context.WithTimeout(context.Background(), shutdownTimeout)
	defer done()
	return service.Shutdown(patience)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func credentials(context.Context) (string, string, error) {
	user, password := os.Getenv("DATABASE_USER"), os.Getenv("DATABASE_PASSWORD")
	if path := os.Getenv("DATABASE_PASSWORD_FILE"); path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", "", err
		}
		password = strings.TrimRight(string(content), "\r\n")
	}
	return user, password, nil
}

func (s *server) routes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", s.showPage)
	routes.HandleFunc("GET /api/visits", s.listVisits)
	routes.HandleFunc("POST /api/visits", s.addVisit)
	routes.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	routes.HandleFunc("GET /readyz", s.ready)
	return routes
}

func (s *server) showPage(w http.ResponseWriter, r *http.Request) {
	if err := s.record(r); err != nil {
		s.refuse(w, err)
		return
	}
	book, err := s.read(r.Context())
	if err != nil {
		s.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := page.Execute(w, book); err != nil {
		slog.Warn("the page was not delivered", "error", err)
	}
}

func (s *server) addVisit(w http.ResponseWriter, r *http.Request) {
	if err := s.record(r); err != nil {
		s.refuse(w, err)
		return
	}
	s.listVisits(w, r)
}

func (s *server) listVisits(w http.ResponseWriter, r *http.Request) {
	book, err := s.read(r.Context())
	if err != nil {
		s.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(book); err != nil {
		slog.Warn("the answer was not delivered", "error", err)
	}
}

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), databaseTimeout)
	defer cancel()
	if err := s.database.Ping(ctx).Err(); err != nil {
		s.refuse(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// record counts one visit and keeps it among the latest, both or neither.
func (s *server) record(r *http.Request) error {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	entry, err := json.Marshal(visit{Time: time.Now().UTC(), Hostname: s.hostname, Node: s.node, Client: client})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), databaseTimeout)
	defer cancel()
	_, err = s.database.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Incr(ctx, counterKey)
		pipe.LPush(ctx, visitsKey, entry)
		pipe.LTrim(ctx, visitsKey, 0, visitsKept-1)
		return nil
	})
	return err
}

func (s *server) read(ctx context.Context) (*book, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	var counter *redis.StringCmd
	var latest *redis.StringSliceCmd
	_, err := s.database.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		counter = pipe.Get(ctx, counterKey)
		latest = pipe.LRange(ctx, visitsKey, 0, visitsKept-1)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	result := &book{Hostname: s.hostname, Node: s.node, Version: version, Visits: []visit{}}
	if result.Count, err = counter.Int64(); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read %s: %w", counterKey, err)
	}
	for _, text := range latest.Val() {
		var entry visit
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			return nil, fmt.Errorf("read %s: %w", visitsKey, err)
		}
		result.Visits = append(result.Visits, entry)
	}
	return result, nil
}

func (s *server) refuse(w http.ResponseWriter, err error) {
	slog.Warn("the database did not serve", "error", err)
	http.Error(w, "the database did not serve: "+err.Error(), http.StatusServiceUnavailable)
}
