package api

import (
	"net/http"
	"strings"
	"time"

	"month/internal/world"
)

// burst is the number of requests that the API accepts at once while it throttles.
const burst = 5

// fault is an incident that affects the API.
type fault struct {
	*world.Incident
	rate   float64 // requests per second while throttling
	tokens float64
	filled time.Time
}

func faultsOf(w *world.World) []*fault {
	var faults []*fault
	for _, i := range w.Incidents {
		switch i.Effect {
		case world.CustomerStatus, world.APIStatus, world.APIReset, world.APIErrorMember, world.APILoginPage, world.APIThrottle,
			world.APISlow, world.AuthRejected, world.CredentialExpires, world.ScopeMissing:
			faults = append(faults, &fault{Incident: i, filled: i.Start, rate: i.With["rate_per_customer"] * float64(len(w.Customers))})
		}
	}
	return faults
}

func (f *fault) isActiveAt(now time.Time) bool { return !now.Before(f.Start) && now.Before(f.End) }

func isAuthRejected(f *fault) bool {
	return f.Effect == world.AuthRejected || f.Effect == world.CredentialExpires
}

func (s *Server) active(now time.Time, match func(*fault) bool) *fault {
	for _, f := range s.faults {
		if f.isActiveAt(now) && match(f) {
			return f
		}
	}
	return nil
}

func (s *Server) scopeMissing(now time.Time, scope string) bool {
	return s.active(now, func(f *fault) bool { return f.Effect == world.ScopeMissing && strings.HasSuffix(scope, f.Text) }) != nil
}

func (s *Server) responseDelay(now time.Time) time.Duration {
	if f := s.active(now, func(f *fault) bool { return f.Effect == world.APISlow }); f != nil {
		return time.Duration(f.With["seconds"] * float64(time.Second))
	}
	return 0
}

// faultResponse returns the response of the first fault that affects the request, or a random 503.
func (s *Server) faultResponse(now time.Time, path string) (response, bool) {
	for _, f := range s.faults {
		if !f.isActiveAt(now) || f.Customer != "" && !strings.Contains(path, f.Customer) {
			continue
		}
		if reply, hit := s.apply(f, now, path); hit {
			return reply, true
		}
	}
	if path != tokenPath && s.random.Float64() < s.world.Noise.RequestFails {
		return errorResponse(http.StatusServiceUnavailable, "busy"), true
	}
	return response{}, false
}

func (s *Server) apply(f *fault, now time.Time, path string) (response, bool) {
	switch f.Effect {
	case world.APIStatus, world.CustomerStatus:
		if share, ok := f.With["share"]; ok && s.random.Float64() > share {
			return response{}, false
		}
		return errorResponse(int(f.With["code"]), "fault"), true
	case world.APIReset:
		return response{}, true
	case world.APILoginPage:
		return response{status: http.StatusOK, html: true}, path != tokenPath
	case world.APIErrorMember:
		reply := object{"error": object{"code": "InternalError"}, "data": []any{}, "value": []any{}, "metadata": object{"totalCount": 0}}
		return response{status: http.StatusOK, body: reply}, path != tokenPath
	case world.APIThrottle:
		f.tokens = min(burst, f.tokens+now.Sub(f.filled).Seconds()*f.rate)
		f.filled = now
		if f.tokens < 1 {
			return response{status: http.StatusTooManyRequests, body: object{"error": "slow down"}, header: "Retry-After: 5\r\n"}, true
		}
		f.tokens--
	}
	return response{}, false
}
