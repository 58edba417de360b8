package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/policy"
)

type lintInput struct {
	Policy    string `query:"policy" doc:"Only findings about this policy" example:"web"`
	UnusedFor string `query:"unusedFor" minLength:"1" pattern:"^([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$" patternDescription:"a duration such as 90s, 5m, 1h30m, 2d or 30d" doc:"Also rules that no packet has met for so long, and that were counted for so long; 0s = never since they are counted" example:"30d"`
}

type lintOutput struct{ Body List[Finding] }

func (s *Server) registerLint() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "lint", Method: http.MethodGet, Path: "/v1/lint", Tags: []string{"policies"},
		Summary: "List what is wrong with rules",
		Description: "Rules that can never match, contradict others or are wider than others that allow the same, by the name of the other " +
			"one, as the statuses of policies have it; and with unusedFor those that nothing has used. A dry run of apply says the same of " +
			"documents that are not applied yet, among its warnings.",
		Responses: d.responses(schemaFor[List[Finding]](d), nil, 422, 503)}, func(ctx context.Context, in *lintInput) (*lintOutput, error) {
		out, err := s.lint(ctx, in, time.Now())
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &lintOutput{Body: List[Finding]{Items: out, Problems: s.o.Engine.Unknown()}}, nil
	})
}

func (s *Server) lint(ctx context.Context, in *lintInput, now time.Time) ([]Finding, error) {
	var long time.Duration
	if in.UnusedFor != "" {
		var err error
		if long, err = duration.Parse(in.UnusedFor); err != nil {
			return nil, badParameter("query.unusedFor", in.UnusedFor, "%v", err)
		}
		s.o.Engine.Refresh(ctx, policy.KindPolicy)
	}
	all, _, err := s.o.Store.List(ctx, policy.KindPolicy, "", 0)
	if err != nil {
		return nil, err
	}
	out := []Finding{}
	told := map[string]bool{} // a policy's warnings may be in the statuses of others
	for _, r := range all {
		name := r.GetMeta().Name
		status := s.o.Engine.Status(policy.KindPolicy, name)
		for _, w := range status.Warnings {
			of := cmp.Or(w.Policy, name)
			if text := string(w.Code) + w.Message; w.Code.OfWording() && !told[text] && (in.Policy == "" || in.Policy == of) {
				told[text] = true
				out = append(out, Finding{Code: w.Code, Policy: of, Rule: w.Rule, Message: w.Message, By: w.By})
			}
		}
		if in.UnusedFor == "" || in.Policy != "" && in.Policy != name {
			continue
		}
		for _, h := range status.Hits() {
			if h.Unused(long, now) {
				out = append(out, unused(name, h))
			}
		}
	}
	return out, nil
}

// unused tells of a rule that nothing has used.
func unused(of string, h policy.RuleHits) Finding {
	f := Finding{Code: policy.LintUnused, Policy: of, Rule: string(h.Direction) + "/" + h.Name, CountedSince: &h.Since}
	text := "was never hit"
	if !h.Last.IsZero() {
		f.LastHit, text = &h.Last, "was hit last "+h.Last.Local().Format(time.DateTime)
	}
	f.Message = fmt.Sprintf("rule %s of policy %s %s (counted since %s)", f.Rule, of, text, h.Since.Local().Format(time.DateTime))
	return f
}
