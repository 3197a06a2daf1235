package simulate

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// didDocument is a DID document as plc.directory answers with, keys in Multikey form.
type didDocument struct {
	Context            []string             `json:"@context"`
	ID                 syntax.DID           `json:"id"`
	AlsoKnownAs        []string             `json:"alsoKnownAs"`
	VerificationMethod []verificationMethod `json:"verificationMethod"`
	Service            []didService         `json:"service"`
}

type verificationMethod struct {
	ID                 string     `json:"id"`
	Type               string     `json:"type"`
	Controller         syntax.DID `json:"controller"`
	PublicKeyMultibase string     `json:"publicKeyMultibase"`
}

type didService struct {
	ID              string `json:"id"`
	Type            string `json:"type"`
	ServiceEndpoint string `json:"serviceEndpoint"`
}

func newDIDDocument(did syntax.DID, handle syntax.Handle, key, endpoint string) didDocument {
	return didDocument{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1",
			"https://w3id.org/security/suites/secp256k1-2019/v1"},
		ID:          did,
		AlsoKnownAs: []string{"at://" + string(handle)},
		VerificationMethod: []verificationMethod{{
			ID: string(did) + "#atproto", Type: "Multikey", Controller: did, PublicKeyMultibase: key,
		}},
		Service: []didService{{ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: endpoint}},
	}
}

func (w *World) document(did syntax.DID, endpoint string) (didDocument, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return didDocument{}, err
	}
	return newDIDDocument(did, a.handle, a.key.multibase(), endpoint), nil
}

func (w *World) resolve(handle syntax.Handle) (syntax.DID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	did, ok := w.handles[handle.Normalize()]
	if !ok {
		return "", fmt.Errorf("%s: %w", handle, ErrNoAccount)
	}
	return did, nil
}

func (w *World) stream() *frameLog { return w.log }

// identityRoutes serves DID documents, as the PLC directory does, and handles, as
// both a PDS and a handle's own host do.
func (s *Server) identityRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{did}", func(out http.ResponseWriter, in *http.Request) {
		did, err := syntax.ParseDID(in.PathValue("did"))
		if err != nil {
			http.NotFound(out, in)
			return
		}
		document, err := s.source.document(did, s.url)
		if err != nil {
			out.Header().Set("Content-Type", "application/json")
			out.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(out).Encode(map[string]string{"message": "DID not registered: " + string(did)})
			return
		}
		out.Header().Set("Content-Type", "application/did+ld+json")
		_ = json.NewEncoder(out).Encode(document)
	})
	mux.HandleFunc("GET /xrpc/com.atproto.identity.resolveHandle", func(out http.ResponseWriter, in *http.Request) {
		did, err := s.resolve(in.URL.Query().Get("handle"))
		if err != nil {
			writeError(out, err)
			return
		}
		writeJSON(out, map[string]syntax.DID{"did": did})
	})
	mux.HandleFunc("GET /.well-known/atproto-did", func(out http.ResponseWriter, in *http.Request) {
		name := in.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		did, err := s.resolve(name)
		if err != nil {
			http.NotFound(out, in)
			return
		}
		out.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(out, string(did))
	})
}

func (s *Server) resolve(name string) (syntax.DID, error) {
	handle, err := syntax.ParseHandle(name)
	if err != nil {
		return "", invalid("handle: %v", err)
	}
	did, err := s.source.resolve(handle)
	if err != nil {
		return "", &xrpcError{http.StatusBadRequest, "HandleNotFound", "unable to resolve handle"}
	}
	return did, nil
}
