package vsphere

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

const (
	// maxLookUps bounds the names that one Read asks for. They are kept: a vCenter with more tags is read in several goes.
	maxLookUps = 2000
	// tagBatch is how many tags' objects one call asks for.
	tagBatch = 50
)

// Tag is a tag and the objects that it is attached to.
type Tag struct {
	Category, Name string
	Objects        []types.ManagedObjectReference
}

// Tags reads the tags of a vCenter, which only its REST API knows. Each Read is a session of its own there. It is not for
// use by several goroutines at once.
type Tags struct {
	conn  *Conn
	names map[string]string // of categories and tags, by id
}

// NewTags reads at the connection's vCenter, as the connection's user.
func NewTags(c *Conn) *Tags { return &Tags{conn: c, names: map[string]string{}} }

// errGone says that the vCenter has no such thing (any more).
var errGone = errors.New("not found")

// Read lists the tags of the categories, which are given by name; one that does not exist has none. A category or tag that was
// renamed keeps its old name until the next connection.
func (t *Tags) Read(ctx context.Context, categories []string) (tags []Tag, err error) {
	defer func() {
		if err != nil {
			err = t.conn.wrap("tags", err)
		}
	}()
	s := &restSession{conn: t.conn, client: &http.Client{
		Transport:     bounded{t.conn.transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirected") }, // with the password
	}}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	defer s.close(ctx)
	r := tagReading{Tags: t, session: s}
	var ids []string
	if err := s.call(ctx, "tagging.category.list", http.MethodGet, "tagging/category", nil, &ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		name, err := r.name(ctx, "category", id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(categories, name) {
			continue
		}
		of, err := r.category(ctx, id, name)
		if err != nil {
			return nil, err
		}
		tags = append(tags, of...)
	}
	return tags, nil
}

// tagReading is one Read.
type tagReading struct {
	*Tags
	session *restSession
	lookUps int
}

func (r *tagReading) category(ctx context.Context, id, name string) ([]Tag, error) {
	var ids []string
	err := r.session.call(ctx, "tagging.tag.list", http.MethodPost, "tagging/tag/id:"+id+"?~action=list-tags-for-category", nil, &ids)
	if err != nil && !errors.Is(err, errGone) {
		return nil, err
	}
	var tags []Tag
	for batch := range slices.Chunk(ids, tagBatch) {
		var attached []struct {
			Tag     string `json:"tag_id"`
			Objects []struct {
				Type string `json:"type"`
				ID   string `json:"id"`
			} `json:"object_ids"`
		}
		body := map[string][]string{"tag_ids": batch}
		err := r.session.call(ctx, "tagging.association.list", http.MethodPost,
			"tagging/tag-association?~action=list-attached-objects-on-tags", body, &attached)
		if err != nil {
			return nil, err
		}
		for _, a := range attached {
			tag := Tag{Category: name}
			if tag.Name, err = r.name(ctx, "tag", a.Tag); err != nil {
				return nil, err
			}
			for _, o := range a.Objects {
				tag.Objects = append(tag.Objects, types.ManagedObjectReference{Type: o.Type, Value: o.ID})
			}
			if tag.Name != "" {
				tags = append(tags, tag)
			}
		}
	}
	return tags, nil
}

// name is a category's or a tag's name, empty if it is gone.
func (r *tagReading) name(ctx context.Context, what, id string) (string, error) {
	if name, ok := r.names[id]; ok {
		return name, nil
	}
	if r.lookUps++; r.lookUps > maxLookUps {
		return "", fmt.Errorf("more than %d new categories and tags at once: the others are read later", maxLookUps)
	}
	var answer struct {
		Name string `json:"name"`
	}
	err := r.session.call(ctx, "tagging."+what+".get", http.MethodGet, "tagging/"+what+"/id:"+id, nil, &answer)
	if errors.Is(err, errGone) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	r.names[id] = answer.Name
	return answer.Name, nil
}

// restSession is a session with the REST API.
type restSession struct {
	conn   *Conn
	client *http.Client
	id     string
}

func (s *restSession) open(ctx context.Context) error {
	if s.conn.opts.Password == nil {
		return errors.New("the REST API wants a user and a password")
	}
	password, err := s.conn.opts.Password()
	if err != nil {
		return err
	}
	return s.do(ctx, "session.create", http.MethodPost, "session", nil, &s.id, func(req *http.Request) {
		req.Header.Set("vmware-use-header-authn", "true")
		req.SetBasicAuth(s.conn.opts.Username, password)
	})
}

// close ends the session also where ctx has ended.
func (s *restSession) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTimeout)
	defer cancel()
	_ = s.call(ctx, "session.delete", http.MethodDelete, "session", nil, nil) // it would end by itself, later
}

func (s *restSession) call(ctx context.Context, name, method, path string, body, answer any) error {
	return s.do(ctx, name, method, path, body, answer, func(req *http.Request) { req.Header.Set("vmware-api-session-id", s.id) })
}

// do makes one request below /rest/com/vmware/cis/.
func (s *restSession) do(ctx context.Context, name, method, path string, body, answer any, authorize func(*http.Request)) error {
	s.conn.opts.Observe(name)
	ctx, cancel := context.WithTimeout(ctx, s.conn.opts.Timeout)
	defer cancel()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	vcenter := s.conn.URL()
	base := url.URL{Scheme: vcenter.Scheme, Host: vcenter.Host}
	req, err := http.NewRequestWithContext(ctx, method, base.String()+"/rest/com/vmware/cis/"+path, &content)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", s.conn.opts.UserAgent)
	authorize(req)
	res, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", name, errGone)
	case res.StatusCode/100 != 2:
		return fmt.Errorf("%s: HTTP status %s", name, res.Status)
	case answer == nil:
		return nil
	}
	wrapped := struct {
		Value any `json:"value"`
	}{answer}
	if err := json.NewDecoder(res.Body).Decode(&wrapped); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
