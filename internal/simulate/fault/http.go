package fault

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// HTTP is a fault of requests.
type HTTP struct {
	Count
	name   string
	on     func(*http.Request) bool
	answer func(out http.ResponseWriter, in *http.Request, next http.Handler)
}

// Name says what goes wrong.
func (f *HTTP) Name() string { return f.name }

// Only narrows the fault to some requests more.
func (f *HTTP) Only(on func(*http.Request) bool) *HTTP {
	was := f.on
	f.on = func(in *http.Request) bool { return was(in) && on(in) }
	return f
}

// OneIn narrows the fault to one request in so many, by turns.
func (f *HTTP) OneIn(n int64) *HTTP {
	turn := make(chan int64, 1)
	turn <- 0
	return f.Only(func(*http.Request) bool {
		at := <-turn
		turn <- at + 1
		return at%n == 0
	})
}

// AtMost bounds how often the fault fires.
func (f *HTTP) AtMost(n int64) *HTTP {
	f.Most = n
	return f
}

// The methods whose answers may go wrong. Directory stands for requests to the
// directory of DIDs.
const (
	GetRepo         = "com.atproto.sync.getRepo"
	ListRepos       = "com.atproto.sync.listRepos"
	ListCollections = "com.atproto.sync.listReposByCollection"
	DescribeRepo    = "com.atproto.repo.describeRepo"
	Subscribe       = "com.atproto.sync.subscribeRepos"
	Directory       = "plc"
)

func fails(name, method string, answer func(http.ResponseWriter, *http.Request, http.Handler)) *HTTP {
	return &HTTP{name: name + " of " + method, answer: answer, on: func(in *http.Request) bool {
		if method == Directory {
			return strings.HasPrefix(in.URL.Path, "/did:")
		}
		return in.URL.Path == "/xrpc/"+method
	}}
}

// Refuse answers with a status and, where it is not empty, Retry-After.
func Refuse(method string, status int, retryAfter string) *HTTP {
	return fails("status "+strconv.Itoa(status), method, func(out http.ResponseWriter, _ *http.Request, _ http.Handler) {
		if retryAfter != "" {
			out.Header().Set("Retry-After", retryAfter)
		}
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(status)
		_, _ = out.Write([]byte(`{"error":"Injected","message":"a fault of the test"}`))
	})
}

// Unsupported answers as a host that does not know the method.
func Unsupported(method string) *HTTP {
	return fails("no such method", method, func(out http.ResponseWriter, _ *http.Request, _ http.Handler) {
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(http.StatusNotImplemented)
		_, _ = out.Write([]byte(`{"error":"MethodNotImplemented","message":"no such method here"}`))
	})
}

// Hang takes requests and never answers.
func Hang(method string) *HTTP {
	return fails("hang", method, func(_ http.ResponseWriter, in *http.Request, _ http.Handler) { <-in.Context().Done() })
}

// HangMidway sends half of an answer, and then nothing more.
func HangMidway(method string) *HTTP {
	return fails("hang midway", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		half(out, in, next)
		<-in.Context().Done()
	})
}

// half sends half of an answer.
func half(out http.ResponseWriter, in *http.Request, next http.Handler) {
	answer := record(next, in)
	body := answer.Body.Bytes()
	begin(out, answer)
	_, _ = out.Write(body[:len(body)/2])
	_ = http.NewResponseController(out).Flush()
}

// Drip answers a few bytes at a time.
func Drip(method string, size int, every time.Duration) *HTTP {
	return fails("drip", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		answer := record(next, in)
		begin(out, answer)
		for body := answer.Body.Bytes(); len(body) > 0 && in.Context().Err() == nil; {
			n := min(size, len(body))
			if _, err := out.Write(body[:n]); err != nil {
				return
			}
			_ = http.NewResponseController(out).Flush()
			body = body[n:]
			sleep(in.Context(), every)
		}
	})
}

// Late answers rightly, but only after a while.
func Late(method string, wait time.Duration) *HTTP {
	return fails("late answer", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		sleep(in.Context(), wait)
		next.ServeHTTP(out, in)
	})
}

// Truncate ends an answer in the middle, as if it were whole.
func Truncate(method string) *HTTP {
	return Rewrite("truncated body", method, func(body []byte) []byte { return body[:len(body)*2/3] })
}

// Cut ends the connection in the middle of an answer.
func Cut(method string) *HTTP {
	return fails("cut connection", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		half(out, in, next)
		panic(http.ErrAbortHandler)
	})
}

// Endless answers rightly and then goes on for ever, with what looks like more of it.
func Endless(method string) *HTTP {
	return fails("endless body", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		answer := record(next, in)
		begin(out, answer)
		_, _ = out.Write(answer.Body.Bytes())
		for block := fillerBlock(); in.Context().Err() == nil; {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	})
}

// Redirect sends requests elsewhere.
func Redirect(method, to string) *HTTP {
	return fails("redirect", method, func(out http.ResponseWriter, in *http.Request, _ http.Handler) {
		http.Redirect(out, in, to, http.StatusFound)
	})
}

// Rewrite alters the body of answers that are no errors.
func Rewrite(name, method string, alter func([]byte) []byte) *HTTP {
	return fails(name, method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		answer := record(next, in)
		begin(out, answer)
		if answer.Code == http.StatusOK {
			_, _ = out.Write(alter(bytes.Clone(answer.Body.Bytes())))
		} else {
			_, _ = out.Write(answer.Body.Bytes())
		}
	})
}

// Another answers with another account's repository.
func Another(did string) *HTTP {
	return fails("another repository", GetRepo, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		other := in.Clone(in.Context())
		query := other.URL.Query()
		query.Set("did", did)
		other.URL.RawQuery = query.Encode()
		next.ServeHTTP(out, other)
	})
}

// Stale answers for ever what a request for the same was answered first.
func Stale(method string) *HTTP {
	type kept struct {
		body []byte
		kind string
	}
	first := make(chan map[string]kept, 1)
	first <- map[string]kept{}
	return fails("stale answer", method, func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		known := <-first
		answer, ok := known[in.URL.String()]
		if !ok {
			fresh := record(next, in)
			answer = kept{fresh.Body.Bytes(), fresh.Header().Get("Content-Type")}
			known[in.URL.String()] = answer
		}
		first <- known
		out.Header().Set("Content-Type", answer.kind)
		_, _ = out.Write(answer.body)
	})
}

// record has the right answer made, without sending it.
func record(next http.Handler, in *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, in)
	return answer
}

func begin(out http.ResponseWriter, answer *httptest.ResponseRecorder) {
	out.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
	out.WriteHeader(answer.Code)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
