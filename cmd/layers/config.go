package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/appview/traffic"
)

// config is every setting of the program. It is filled from flags, environment and
// secret files in one place, checked before anything is opened, and handed down.
type config struct {
	Listen        string
	MetricsListen string
	PublicURL     string
	Proxies       []netip.Prefix
	Origins       []string // of web pages that may read answers
	// RequestTime is how long a request may wait for the stores; Concurrency how many of
	// each group may do so at a time, where it is not the default.
	RequestTime time.Duration
	Concurrency map[traffic.Group]int
	RateLimits  traffic.Policy
	Admins      []syntax.DID
	AdminToken  string // static, of operators; "" for none
	Premium     []syntax.DID
	Cache       bool // answers are kept in Redis, if there is one

	Relays       []string
	RelayQuiet   time.Duration
	RelayMaxWait time.Duration
	Backfill     bool
	PLCURL       string
	AllowPrivate bool
	Lenient      bool
	Resync       struct {
		Dir         string
		Concurrency int
		HostRate    float64
		MaxBytes    int64
		FirstWait   time.Duration
		AnswerTime  time.Duration
		StallTime   time.Duration
	}
	LexiconDirs []string
	Foreign     []string

	// Roots are whose certificates the stores must have; nil for the system's.
	Roots         *x509.CertPool
	DatabaseURL   string
	ReplicaURL    string
	RedisURL      string
	Elasticsearch struct{ URL, APIKey, Prefix string }
	Neo4j         struct{ URL, User, Password, Database, Space string }
	GraphFallback bool
	// SearchFallback has PostgreSQL keep what it searches by also beside Elasticsearch.
	SearchFallback bool

	EventsKept time.Duration // 0: no log of events

	// Statistics is how old they may become; 0 leaves refreshing them to the operator.
	Statistics time.Duration
	// Verify is how often the projections are compared with PostgreSQL; 0 for never.
	Verify time.Duration

	LogLevel  string
	LogFormat string
	Drain     time.Duration
	// DrainDelay is how long an API that is to stop goes on to serve before it drains.
	DrainDelay time.Duration
}

const (
	categoryServe  = "Serving"
	categoryFollow = "Following the network"
	categoryStores = "Stores"
	categoryRun    = "Running"
)

// setting is one row of the configuration table: a flag and its variable.
func setting(category, flag, variable, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: flag, Category: category, Value: value, Usage: usage, Sources: cli.EnvVars(variable)}
}

// secret is a setting that may also come from the file that VARIABLE_FILE names.
func secret(flag, variable, usage string) *cli.StringFlag {
	return secretOf(categoryStores, flag, variable, usage)
}

func secretOf(category, flag, variable, usage string) *cli.StringFlag {
	return &cli.StringFlag{
		Name: flag, Category: category, Usage: usage + " (or " + variable + "_FILE)", HideDefault: true,
		Sources: cli.NewValueSourceChain(cli.EnvVar(variable), secretFile(variable+"_FILE")),
	}
}

// secretFile reads a secret from the file that an environment variable names.
type secretFile string

func (s secretFile) Lookup() (string, bool) {
	path, ok := os.LookupEnv(string(s))
	if !ok {
		return "", false
	}
	content, err := os.ReadFile(path)
	if err != nil {
		unreadableSecrets = append(unreadableSecrets, fmt.Errorf("%s: %w", s, err))
		return "", false
	}
	return strings.TrimSpace(string(content)), true
}

func (s secretFile) String() string   { return "file named by " + string(s) }
func (s secretFile) GoString() string { return fmt.Sprintf("secretFile(%q)", string(s)) }

// unreadableSecrets collects what secretFile could not read: its interface has no
// error, and a secret that is silently absent would be looked for elsewhere.
var unreadableSecrets []error

func serveFlags() []cli.Flag {
	return []cli.Flag{
		setting(categoryServe, "listen", "LAYERS_LISTEN", ":3000", "address of XRPC, REST, /health and /ready"),
		publicURLFlag(),
		setting(categoryServe, "trusted-proxies", "LAYERS_TRUSTED_PROXIES", "", "networks whose X-Forwarded-For is believed, as 10.0.0.0/8,fd00::/8"),
		setting(categoryServe, "cors-origins", "LAYERS_CORS_ORIGINS", "*", "origins of web pages that may read answers, as https://tool.example, comma-separated; * for any, none for none"),
		&cli.DurationFlag{Name: "request-timeout", Category: categoryServe, Value: 10 * time.Second, Sources: cli.EnvVars("LAYERS_REQUEST_TIMEOUT"), Usage: "how long a request may wait for the stores, which then stop working on it"},
		setting(categoryServe, "concurrency", "LAYERS_CONCURRENCY", "", "how many requests of a group one process works on at a time, as search=64,graph=32; the rest waits shortly, or is answered 503"),
		setting(categoryServe, "rate-limits", "LAYERS_RATE_LIMITS", string(traffic.FailOpen), "what becomes of requests while Redis cannot count them: open lets them in, closed refuses them; off counts nobody at any time"),
		adminDIDsFlag(),
		setting(categoryServe, "premium-dids", "LAYERS_PREMIUM_DIDS", "", "accounts of the tier premium, comma-separated DIDs"),
		&cli.DurationFlag{Name: "drain-delay", Category: categoryServe, Sources: cli.EnvVars("LAYERS_DRAIN_DELAY"), Usage: "how long to go on serving after a stop is asked for, with /ready at 503, so that load balancers notice"},
		&cli.BoolWithInverseFlag{Name: "cache", Category: categoryServe, Value: true, Sources: cli.EnvVars("LAYERS_CACHE"), Usage: "keep answers of references, search and graph in Redis, where REDIS_URL is set"},
	}
}

func publicURLFlag() cli.Flag {
	return setting(categoryServe, "public-url", "LAYERS_PUBLIC_URL", "", "the address under which clients reach this service; its host is the did:web (default: the listen address on localhost)")
}

func adminDIDsFlag() cli.Flag {
	return setting(categoryServe, "admin-dids", "LAYERS_ADMIN_DIDS", "", "accounts of operators, which are of the tier admin: comma-separated DIDs")
}

func metricsFlags() []cli.Flag {
	return []cli.Flag{setting(categoryServe, "metrics-listen", "LAYERS_METRICS_LISTEN", ":9090", "address of /metrics and profiles; keep it private")}
}

func followFlags() []cli.Flag {
	return []cli.Flag{
		setting(categoryFollow, "relay-url", "LAYERS_RELAY_URL", "wss://bsky.network", "relay or PDS to subscribe to; several, comma-separated, are failed over"),
		&cli.DurationFlag{Name: "relay-quiet", Category: categoryFollow, Value: 2 * time.Minute, Sources: cli.EnvVars("LAYERS_RELAY_QUIET"), Usage: "after this long without an event the relay is asked whether it has some"},
		&cli.DurationFlag{Name: "relay-max-wait", Category: categoryFollow, Value: 30 * time.Second, Sources: cli.EnvVars("LAYERS_RELAY_MAX_WAIT"), Usage: "longest wait before a connection to the relay that was lost is taken up again"},
		&cli.BoolFlag{Name: "lenient", Category: categoryFollow, Sources: cli.EnvVars("LAYERS_LENIENT"), Usage: "take commits of hosts that do not say what they changed (no prevData): changes that such a host leaves out go unnoticed"},
	}
}

func backfillFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolWithInverseFlag{Name: "backfill", Category: categoryFollow, Value: true, Sources: cli.EnvVars("LAYERS_BACKFILL"), Usage: "find and fetch the repositories that the stream does not tell of"},
	}
}

func eventFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "events-keep", Category: categoryFollow, Value: 24 * time.Hour, Sources: cli.EnvVars("LAYERS_EVENTS_KEEP"), Usage: "how far back clients can follow what has changed; 0 keeps no log of events, and there is nothing to follow"},
	}
}

func statisticsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "statistics-interval", Category: categoryRun, Value: 15 * time.Minute, Sources: cli.EnvVars("LAYERS_STATISTICS_INTERVAL"), Usage: "how old the statistics may become before they are computed anew; 0 leaves that to `layers stats refresh`"},
	}
}

func comparisonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "verify-interval", Category: categoryRun, Value: 24 * time.Hour, Sources: cli.EnvVars("LAYERS_VERIFY_INTERVAL"), Usage: "how often the indexer compares the projections with PostgreSQL, for the metrics; 0 leaves that to `layers verify`"},
	}
}

func resyncFlags() []cli.Flag {
	duration := func(flag, variable string, value time.Duration, usage string) cli.Flag {
		return &cli.DurationFlag{Name: flag, Category: categoryFollow, Value: value, Sources: cli.EnvVars(variable), Usage: usage}
	}
	return []cli.Flag{
		duration("resync-first-wait", "LAYERS_RESYNC_FIRST_WAIT", time.Minute, "wait after a repository could not be fetched for the first time, at most; a host that fails is left alone for half of it; both double up to an hour"),
		duration("resync-answer-time", "LAYERS_RESYNC_ANSWER_TIME", time.Minute, "in which a host must begin to answer when a repository is asked for"),
		duration("resync-stall-time", "LAYERS_RESYNC_STALL_TIME", 30*time.Second, "in which the next 64 KiB of a repository must come"),
		&cli.FloatFlag{Name: "resync-host-rate", Category: categoryFollow, Value: 10, Sources: cli.EnvVars("LAYERS_RESYNC_HOST_RATE"), Usage: "requests for repositories to one host in a second, at most"},
		&cli.Int64Flag{Name: "resync-max-bytes", Category: categoryFollow, Value: 8 << 30, Sources: cli.EnvVars("LAYERS_RESYNC_MAX_BYTES"), Usage: "bytes that a repository may have"},
		&cli.IntFlag{Name: "resync-concurrency", Category: categoryFollow, Value: 8, Sources: cli.EnvVars("LAYERS_RESYNC_CONCURRENCY"), Usage: "repositories fetched whole at once, at most 4 of one host"},
		setting(categoryFollow, "spool-dir", "LAYERS_SPOOL_DIR", "", "directory on a disk for repositories while they are read, up to 8 GiB each (default: the system's for temporary files)"),
	}
}

func networkFlags() []cli.Flag {
	return []cli.Flag{
		setting(categoryFollow, "plc-url", "LAYERS_PLC_URL", "https://plc.directory", "directory of did:plc identities"),
		&cli.BoolFlag{Name: "allow-private-hosts", Category: categoryFollow, Sources: cli.EnvVars("LAYERS_ALLOW_PRIVATE_HOSTS"), Usage: "let identities lead to loopback and private addresses: tests and development only"},
		setting(categoryFollow, "lexicons", "LAYERS_LEXICONS", "", "further lexicon directories, comma-separated; each record type in them is indexed like the embedded ones"),
		setting(categoryFollow, "foreign-collections", "LAYERS_FOREIGN_COLLECTIONS", "", "NSIDs of collections to keep without a lexicon, comma-separated; served by pub.layers.integration.*"),
	}
}

func storeFlags() []cli.Flag {
	return []cli.Flag{
		secret("database-url", "DATABASE_URL", "PostgreSQL, as postgres://user:password@host/database"),
		secret("redis-url", "REDIS_URL", "Redis, as redis://host:6379/0"),
		secret("elasticsearch-url", "ELASTICSEARCH_URL", "Elasticsearch, as https://user:password@host:9200; without it PostgreSQL does the search"),
		secret("elasticsearch-api-key", "ELASTICSEARCH_API_KEY", "API key for Elasticsearch"),
		setting(categoryStores, "elasticsearch-prefix", "ELASTICSEARCH_PREFIX", "layers", "first part of every index name"),
		&cli.BoolFlag{Name: "search-fallback", Category: categoryStores, Sources: cli.EnvVars("LAYERS_SEARCH_FALLBACK"), Usage: "have PostgreSQL able to search too, for when Elasticsearch is away; set it for the indexer, the workers and the API alike"},
		setting(categoryStores, "neo4j-url", "NEO4J_URL", "", "Neo4j, as bolt:// or neo4j://; without it the graph is kept in PostgreSQL"),
		setting(categoryStores, "neo4j-user", "NEO4J_USER", "", "user of Neo4j"),
		secret("neo4j-password", "NEO4J_PASSWORD", "password of Neo4j"),
		setting(categoryStores, "neo4j-database", "NEO4J_DATABASE", "", "database in Neo4j (default: the server's default)"),
		setting(categoryStores, "neo4j-space", "NEO4J_SPACE", "", "name that keeps this deployment apart from others in one Neo4j database"),
		setting(categoryStores, "ca-file", "LAYERS_CA_FILE", "", "PEM file of the authorities that the stores' certificates must be of, in place of the system's"),
		&cli.BoolFlag{Name: "graph-fallback", Category: categoryStores, Sources: cli.EnvVars("LAYERS_GRAPH_FALLBACK"), Usage: "keep the graph in PostgreSQL beside Neo4j, and answer from there while that is away"},
	}
}

func replicaFlags() []cli.Flag {
	return []cli.Flag{secret("database-replica-url", "DATABASE_REPLICA_URL", "a read replica of PostgreSQL for the API's reads")}
}

func runFlags() []cli.Flag {
	return []cli.Flag{
		setting(categoryRun, "log-level", "LOG_LEVEL", "info", "debug, info, warn or error"),
		setting(categoryRun, "log-format", "LOG_FORMAT", "", "text or json (default: text on a terminal, json otherwise)"),
		&cli.DurationFlag{Name: "drain", Category: categoryRun, Value: 20 * time.Second, Sources: cli.EnvVars("LAYERS_DRAIN"), Usage: "how long a stop may take before it is cut off"},
	}
}

// problem is a wrong setting, said so that it can be mended without the manual.
func problem(command *cli.Command, flag, format string, args ...any) error {
	name := "--" + flag
	for _, f := range command.Flags {
		if slices.Contains(f.Names(), flag) {
			if env, ok := f.(cli.DocGenerationFlag); ok && len(env.GetEnvVars()) > 0 {
				name += " (" + env.GetEnvVars()[0] + ")"
			}
		}
	}
	return fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
}

// readConfig checks every setting that the command has and returns all that is
// wrong at once.
func readConfig(command *cli.Command) (config, error) {
	r := &configReader{command: command}
	cfg := config{
		Listen:        r.address("listen"),
		MetricsListen: r.address("metrics-listen"),
		PublicURL:     r.url("public-url", "http", "https"),
		Proxies:       r.prefixes("trusted-proxies"),
		Origins:       r.origins("cors-origins"),
		RequestTime:   command.Duration("request-timeout"),
		Concurrency:   r.concurrency("concurrency"),
		Cache:         command.Bool("cache"),
		RateLimits:    traffic.Policy(r.choice("rate-limits", string(traffic.FailOpen), string(traffic.FailClosed), string(traffic.Off))),
		Admins:        r.accounts("admin-dids"),
		AdminToken:    r.token("admin-token"),
		Premium:       r.accounts("premium-dids"),
		Relays:        r.urls("relay-url", "ws", "wss", "http", "https"),
		RelayQuiet:    command.Duration("relay-quiet"),
		RelayMaxWait:  command.Duration("relay-max-wait"),
		Backfill:      command.Bool("backfill"),
		PLCURL:        strings.TrimSuffix(r.url("plc-url", "http", "https"), "/"),
		AllowPrivate:  command.Bool("allow-private-hosts"),
		Lenient:       command.Bool("lenient"),
		LexiconDirs:   r.directories("lexicons"),
		Foreign:       r.collections("foreign-collections"),
		Roots:         r.authorities("ca-file"),
		DatabaseURL:   believing(r.url("database-url", "postgres", "postgresql"), command.String("ca-file")),
		ReplicaURL:    believing(r.url("database-replica-url", "postgres", "postgresql"), command.String("ca-file")),
		RedisURL:      r.url("redis-url", "redis", "rediss"),
		LogLevel:      r.choice("log-level", "debug", "info", "warn", "error"),
		LogFormat:     r.choice("log-format", "", "text", "json"),
		Drain:         command.Duration("drain"),
		DrainDelay:    command.Duration("drain-delay"),
	}
	cfg.Resync.Dir, cfg.Resync.Concurrency = command.String("spool-dir"), command.Int("resync-concurrency")
	cfg.Resync.HostRate, cfg.Resync.MaxBytes = command.Float("resync-host-rate"), command.Int64("resync-max-bytes")
	cfg.Resync.FirstWait, cfg.Resync.AnswerTime = command.Duration("resync-first-wait"), command.Duration("resync-answer-time")
	cfg.Resync.StallTime = command.Duration("resync-stall-time")
	cfg.Elasticsearch.URL = r.url("elasticsearch-url", "http", "https")
	cfg.Elasticsearch.APIKey = command.String("elasticsearch-api-key")
	cfg.Elasticsearch.Prefix = command.String("elasticsearch-prefix")
	cfg.SearchFallback = command.Bool("search-fallback")
	cfg.Neo4j.URL = r.url("neo4j-url", "bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
	cfg.Neo4j.User = command.String("neo4j-user")
	cfg.Neo4j.Password = command.String("neo4j-password")
	cfg.Neo4j.Database = command.String("neo4j-database")
	cfg.Neo4j.Space = command.String("neo4j-space")
	cfg.GraphFallback = command.Bool("graph-fallback")
	cfg.EventsKept = command.Duration("events-keep")
	if cfg.EventsKept < 0 {
		r.fail("events-keep", "%s is no time that something can be kept", cfg.EventsKept)
	}
	if cfg.Statistics = command.Duration("statistics-interval"); cfg.Statistics < 0 || cfg.Statistics > 0 && cfg.Statistics < time.Second {
		r.fail("statistics-interval", "%s is too short; use 0 or at least 1s", cfg.Statistics)
	}
	if cfg.Verify = command.Duration("verify-interval"); cfg.Verify < 0 || cfg.Verify > 0 && cfg.Verify < time.Second {
		r.fail("verify-interval", "%s is too short; use 0 or at least 1s", cfg.Verify)
	}
	return cfg, errors.Join(append(r.wrong, unreadableSecrets...)...)
}

// requireFlags adds a problem for each flag that the command needs and that is empty.
func requireFlags(command *cli.Command, flags ...string) error {
	var wrong []error
	for _, flag := range flags {
		if command.String(flag) == "" {
			wrong = append(wrong, problem(command, flag, "is required: %s", usageOf(command, flag)))
		}
	}
	return errors.Join(wrong...)
}

func usageOf(command *cli.Command, flag string) string {
	for _, f := range command.Flags {
		if doc, ok := f.(cli.DocGenerationFlag); ok && slices.Contains(f.Names(), flag) {
			return doc.GetUsage()
		}
	}
	return ""
}

// configReader parses settings and gathers what is wrong with them.
type configReader struct {
	command *cli.Command
	wrong   []error
}

func (r *configReader) fail(flag, format string, args ...any) {
	r.wrong = append(r.wrong, problem(r.command, flag, format, args...))
}

func (r *configReader) list(flag string) []string {
	var out []string
	for item := range strings.SplitSeq(r.command.String(flag), ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func (r *configReader) address(flag string) string {
	value := r.command.String(flag)
	if value == "" {
		return ""
	}
	if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
		r.fail(flag, "%q is no address; write host:port or :port", value)
	}
	return value
}

func (r *configReader) url(flag string, schemes ...string) string {
	value := r.command.String(flag)
	if value != "" {
		r.checkURL(flag, value, schemes)
	}
	return value
}

func (r *configReader) urls(flag string, schemes ...string) []string {
	values := r.list(flag)
	for _, value := range values {
		r.checkURL(flag, value, schemes)
	}
	return values
}

// checkURL names no value, since it may hold a password.
func (r *configReader) checkURL(flag, value string, schemes []string) {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		r.fail(flag, "is no URL of the form %s://host", strings.Join(schemes, ":// or "))
	}
}

func (r *configReader) choice(flag string, choices ...string) string {
	value := r.command.String(flag)
	if !slices.Contains(choices, value) && value != "" {
		r.fail(flag, "%q is not one of %s", value, strings.Join(choices, ", "))
	}
	return value
}

func (r *configReader) prefixes(flag string) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range r.list(flag) {
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			r.fail(flag, "%q is no network; write it as 10.0.0.0/8", item)
		}
		out = append(out, prefix)
	}
	return out
}

func (r *configReader) directories(flag string) []string {
	dirs := r.list(flag)
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			r.fail(flag, "%q is no directory that can be read", dir)
		}
	}
	return dirs
}

// concurrency are the defaults with what the flag says in their place.
func (r *configReader) concurrency(flag string) map[traffic.Group]int {
	out := maps.Clone(traffic.Concurrency)
	for _, item := range r.list(flag) {
		name, text, _ := strings.Cut(item, "=")
		n, err := strconv.Atoi(text)
		if _, ok := out[traffic.Group(name)]; !ok || err != nil || n < 1 {
			r.fail(flag, "%q is not group=number, with a group of %s", item, slices.Sorted(maps.Keys(out)))
			continue
		}
		out[traffic.Group(name)] = n
	}
	return out
}

func (r *configReader) accounts(flag string) []syntax.DID {
	var out []syntax.DID
	for _, item := range r.list(flag) {
		did, err := syntax.ParseDID(item)
		if err != nil {
			r.fail(flag, "%q is no DID; write it as did:plc:...", item)
		}
		out = append(out, did)
	}
	return out
}

// origins are those of web pages: * for any, none for none.
func (r *configReader) origins(flag string) []string {
	list := r.list(flag)
	for _, item := range list {
		u, err := url.Parse(item)
		alone := item == "*" || item == "none"
		if alone && len(list) > 1 || !alone && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Scheme+"://"+u.Host != item) {
			r.fail(flag, "%q is no origin; write https://tool.example or https://tool.example:8443, or * or none alone", item)
		}
	}
	return list
}

// shortestToken is how many characters a token has that cannot be guessed.
const shortestToken = 32

// token is a secret that clients send in a header.
func (r *configReader) token(flag string) string {
	value := r.command.String(flag)
	if value != "" && (len(value) < shortestToken || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' })) {
		r.fail(flag, "is no token: use at least %d visible ASCII characters, as `openssl rand -hex 32` makes them", shortestToken)
	}
	return value
}

// collections are NSIDs, or all below one: app.bsky.*
func (r *configReader) collections(flag string) []string {
	names := r.list(flag)
	for _, name := range names {
		if _, err := syntax.ParseNSID(strings.Replace(name, ".*", ".any", 1)); err != nil {
			r.fail(flag, "%q is no NSID; write it as app.bsky.feed.post or app.bsky.*", name)
		}
	}
	return names
}
