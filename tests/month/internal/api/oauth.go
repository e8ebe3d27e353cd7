package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	tokenPath     = "/connect/token"
	tokenLifetime = time.Hour
	// ClientID and ClientSecret are the credentials of the app registration.
	ClientID     = "client-1"
	ClientSecret = "s3cret"
)

type token struct {
	scopes  map[string]bool
	expires time.Time
}

// resources contains the scopes without the prefix that depends on the API version. For example, jobs.read.all stands
// for both elements.jobs.read.all and partner.jobs.read.all.
var resources = []string{"customers.read.all", "cbprotected.read.all", "license.read.all", "jobs.read.all", "scanprofiles.read.all"}

func (s *Server) token(now time.Time, body string) response {
	form, err := url.ParseQuery(body)
	if err != nil || form.Get("client_id") != ClientID || form.Get("client_secret") != ClientSecret || s.active(now, isAuthRejected) != nil {
		return errorResponse(http.StatusBadRequest, "invalid_client")
	}
	requested := strings.Fields(form.Get("scope"))
	granted := map[string]bool{}
	for _, scope := range requested {
		prefix, resource, _ := strings.Cut(scope, ".")
		if prefix != "elements" && prefix != "partner" || !slices.Contains(resources, resource) || s.scopeMissing(now, scope) {
			return errorResponse(http.StatusBadRequest, "invalid_scope")
		}
		granted[scope] = true
	}
	if len(granted) == 0 {
		return errorResponse(http.StatusBadRequest, "invalid_scope")
	}
	s.issued++
	name := fmt.Sprintf("token-%d", s.issued)
	s.tokens[name] = token{granted, now.Add(tokenLifetime)}
	return response{status: http.StatusOK, body: object{
		"access_token": name, "expires_in": int(tokenLifetime.Seconds()), "token_type": "Bearer", "scope": strings.Join(requested, " "),
	}}
}

func (s *Server) grants(now time.Time, authorization string) (map[string]bool, bool) {
	t, ok := s.tokens[strings.TrimPrefix(authorization, "Bearer ")]
	if !ok || !t.expires.After(now) || s.active(now, isAuthRejected) != nil {
		return nil, false
	}
	return t.scopes, true
}
