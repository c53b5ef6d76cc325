package web

import (
	"net/http"

	"github.com/protip/protip/rules"
)

// PackReader gives the packs in force.
type PackReader interface {
	Packs() *rules.Set
}

// Pack is a pack as the API shows it.
type Pack struct {
	Name        string         `json:"pack"`
	Version     string         `json:"version"`
	Description string         `json:"description"`
	Platforms   []string       `json:"platforms,omitempty"` // of the sources it judges; absent: all
	MinProtip   string         `json:"min_protip,omitempty"`
	SHA256      string         `json:"sha256"`           // of the file, as remediation.automatic names it
	Config      map[string]any `json:"config,omitempty"` // its settings, with the agent's own in place
	Tests       int            `json:"tests"`            // that it brings, for protip pack test
	Rules       []Rule         `json:"rules"`
}

// Rule is a rule of a pack as the API shows it.
type Rule struct {
	Name         string         `json:"rule"`
	On           string         `json:"on"` // kind of object that it judges
	Severity     rules.Severity `json:"severity"`
	When         string         `json:"when"`
	ForSeconds   float64        `json:"for_seconds"`             // how long it must hold
	Clear        string         `json:"clear,omitempty"`         // absent: when it holds no longer
	EverySeconds float64        `json:"every_seconds,omitempty"` // how old the answers to its PromQL may be
	Summary      string         `json:"summary"`
	Remedy       rules.Remedy   `json:"remedy"`
	OpenTips     int            `json:"open_tips"` // active, in progress or unknown
}

func (s *server) packs(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	tips, err := s.agent.Tips(r.Context())
	if err != nil {
		return nil, err
	}
	open := map[[2]string]int{}
	for _, t := range tips {
		switch t.State {
		case rules.Active, rules.InProgress, rules.Unknown:
			open[[2]string{t.Pack, t.Rule}]++
		}
	}
	out := []Pack{}
	for _, p := range s.agent.Packs().Packs() {
		view := Pack{
			Name: p.Name, Version: p.Version, Description: p.Description, Platforms: p.Platforms, MinProtip: p.MinProtip, SHA256: p.SHA256,
			Config: p.Config, Tests: p.Tests(), Rules: []Rule{},
		}
		for _, rule := range p.Rules {
			view.Rules = append(view.Rules, Rule{
				Name: rule.Name, On: rule.On.String(), Severity: rule.Severity, When: rule.When, ForSeconds: rule.For.Seconds(), Clear: rule.Clear,
				EverySeconds: rule.Every.Seconds(), Summary: rule.Summary, Remedy: rule.Remedy, OpenTips: open[[2]string{p.Name, rule.Name}],
			})
		}
		out = append(out, view)
	}
	return out, nil
}
