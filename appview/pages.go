package appview

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"
)

// serviceFragment names the service entry of the DID document.
const serviceFragment = "#layers_appview"

// identity is this service as the network names it: did:web of its public origin.
type identity struct {
	did      string
	endpoint string
}

func newIdentity(publicURL, addr string) (identity, error) {
	origin, err := publicOrigin(publicURL, addr)
	if err != nil {
		return identity{}, err
	}
	// did:web has a port's colon percent-encoded.
	did := "did:web:" + strings.ReplaceAll(strings.ToLower(origin.Host), ":", "%3A")
	return identity{did: did, endpoint: origin.String()}, nil
}

// Identity is what this service is called in the network, and its entry there, as it
// follows from its public URL or, without one, from where it listens.
func Identity(publicURL, listen string) (did, fragment string, err error) {
	id, err := newIdentity(publicURL, listen)
	return id.did, serviceFragment, err
}

// document is the DID document, with the service entry that PDSes proxy to:
// clients name it in atproto-proxy as did:web:...#layers_appview.
func (id identity) document() any {
	return map[string]any{
		"@context": []string{"https://www.w3.org/ns/did/v1"},
		"id":       id.did,
		"service": []map[string]string{{
			"id":              serviceFragment,
			"type":            "LayersAppView",
			"serviceEndpoint": id.endpoint,
		}},
	}
}

// robots keeps crawlers off the answers: they are data, not pages.
const robots = "User-agent: *\nAllow: /$\nAllow: /docs\nDisallow: /\n"

// landing is what a person sees who opens the service's address.
func landing(id identity, queries []syntax.NSID) string {
	var b strings.Builder
	fmt.Fprintf(&b, `This is a Layers appview: an index of the linguistic annotation (pub.layers.*)
that people publish on the AT Protocol network.

  %[1]s/health                  this process lives
  %[1]s/ready                   and what it needs answers
  %[1]s/docs                    its interfaces, to read and to try
  %[1]s/openapi.json            the same for programs
  %[1]s/xrpc/_health            its version
  %[1]s/.well-known/did.json    its identity, %[2]s

It answers these AT Protocol queries. A list takes limit and cursor as well:

`, id.endpoint, id.did)
	for _, nsid := range queries {
		fmt.Fprintf(&b, "  %s/xrpc/%s\n", id.endpoint, nsid)
	}
	return b.String()
}

func answerJSON(body any) echo.HandlerFunc {
	return func(c echo.Context) error { return c.JSON(http.StatusOK, body) }
}

func answerText(body string) echo.HandlerFunc {
	return func(c echo.Context) error { return c.String(http.StatusOK, body) }
}
