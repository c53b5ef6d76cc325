package web

import (
	"net/http"
	"time"
)

// How long a client may take. What streams sets its own.
const (
	headerPatience = 10 * time.Second
	readPatience   = 30 * time.Second // for the whole request
	writePatience  = 10 * time.Minute // from the request's header to the last byte of the answer
	idlePatience   = 2 * time.Minute
	maxHeader      = 64 << 10
)

// NewServer serves a handler of New, so that nobody who sends or reads slowly keeps a connection.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerPatience, ReadTimeout: readPatience, WriteTimeout: writePatience, IdleTimeout: idlePatience,
		MaxHeaderBytes: maxHeader,
	}
}
