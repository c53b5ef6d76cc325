package web_test

import (
	"testing"

	"github.com/protip/protip/internal/web"
)

func TestEveryRoute(t *testing.T) { web.EveryRoute(t, nil, nil) }
