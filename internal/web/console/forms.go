package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
)

// longestDismissal is for how long a person may not want to hear of a tip.
const longestDismissal = 366 * 24 * time.Hour

// maxWhy bounds what a person gives as a reason, in bytes.
const maxWhy = 1000

// forms are what an operator can do on the pages. Each leads back to the page it was on.
func (c *Console) forms() []web.Route {
	form := func(path string, do func(ctx context.Context, by web.By, r *http.Request) error) web.Route {
		return web.Form(path, func(ctx context.Context, by web.By, r *http.Request) (string, error) {
			if len(by.Why) > maxWhy {
				return "", problemOf("The reason is longer than 1000 bytes.")
			}
			return back(r), do(ctx, by, r)
		})
	}
	return []web.Route{
		form("/tips/{id}/implement", c.implement),
		form("/tips/{id}/dismiss", c.dismiss),
		form("/tips/{id}/undismiss", c.undismiss),
		form("/plan/implement", c.implementHost),
		form("/actions/{id}/resolve", c.resolve),
		form("/actions/{id}/cancel", c.cancel),
		form("/pause", c.pause),
		form("/resume", c.resume),
	}
}

func (c *Console) implement(ctx context.Context, by web.By, r *http.Request) error {
	_, err := c.o.Agent.Implement(ctx, by, r.PathValue("id"), r.PostFormValue("downtime") == "yes")
	return err
}

func (c *Console) dismiss(ctx context.Context, by web.By, r *http.Request) error {
	d, err := model.ParseDuration(r.PostFormValue("for"))
	if err != nil || d <= 0 || time.Duration(d) > longestDismissal {
		return problemOf("Say for how long: from 1ms to 366d, such as 24h or 7d.")
	}
	_, err = c.o.Agent.Dismiss(ctx, by, r.PathValue("id"), time.Duration(d))
	return err
}

func (c *Console) undismiss(ctx context.Context, by web.By, r *http.Request) error {
	_, err := c.o.Agent.Undismiss(ctx, by, r.PathValue("id"))
	return err
}

func (c *Console) resolve(ctx context.Context, by web.By, r *http.Request) error {
	as := remediation.State(r.PostFormValue("as"))
	if as != remediation.Done && as != remediation.Failed {
		return problemOf("Say what became of it: done, or failed.")
	}
	_, err := c.o.Agent.Resolve(ctx, by, r.PathValue("id"), as)
	return err
}

func (c *Console) cancel(ctx context.Context, by web.By, r *http.Request) error {
	_, err := c.o.Agent.Cancel(ctx, by, r.PathValue("id"))
	return err
}

func (c *Console) pause(ctx context.Context, by web.By, r *http.Request) error {
	return c.o.Agent.Pause(ctx, by, r.PostFormValue("source"))
}

func (c *Console) resume(ctx context.Context, by web.By, r *http.Request) error {
	return c.o.Agent.Resume(ctx, by, r.PostFormValue("source"))
}

// problemOf is what is wrong with what a person typed.
func problemOf(text string) error { return fmt.Errorf("%w: %s", web.ErrInvalid, text) }

// back is the page that a form was on.
func back(r *http.Request) string {
	next := r.PostFormValue("next")
	if u, err := url.Parse(next); err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") {
		return "/"
	}
	return next
}
