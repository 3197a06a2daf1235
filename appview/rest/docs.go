package rest

import (
	"embed"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"

	"github.com/labstack/echo/v4"
)

// The page that shows the document and tries requests. It is a part of the program:
// nothing in it comes from another host, now or when it is opened.
//
//go:embed docs
var docs embed.FS

// pagePolicy lets the page load its own files and ask this server, and no more. What
// records hold is shown as text; should a mistake make markup of it, it could not run.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// MountDocs adds /openapi.json and, at /docs, the page that shows it.
func (s *Service) MountDocs(e *echo.Echo) error {
	document, err := s.Document()
	if err != nil {
		return err
	}
	both(e, "/openapi.json", func(c echo.Context) error { return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, document) })
	files, err := fs.ReadDir(docs, "docs")
	if err != nil {
		return fmt.Errorf("read the documentation's files: %w", err)
	}
	for _, file := range files {
		content, err := docs.ReadFile("docs/" + file.Name())
		if err != nil {
			return fmt.Errorf("read the documentation's files: %w", err)
		}
		at := "/docs/" + file.Name()
		if file.Name() == "index.html" {
			at = "/docs"
		}
		both(e, at, documentation(mime.TypeByExtension(path.Ext(file.Name())), content))
	}
	return nil
}

func documentation(mediaType string, content []byte) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header.Set(echo.HeaderContentSecurityPolicy, pagePolicy)
		header.Set(echo.HeaderReferrerPolicy, "no-referrer")
		header.Set(echo.HeaderXFrameOptions, "DENY")
		header.Set(echo.HeaderCacheControl, "no-cache") // a new program may have a new page
		return c.Blob(http.StatusOK, mediaType, content)
	}
}

// both mounts a handler for GET and HEAD.
func both(e *echo.Echo, path string, h echo.HandlerFunc) {
	e.GET(path, h)
	e.HEAD(path, h)
}
