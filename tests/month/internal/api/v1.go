package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"month/internal/world"
)

const (
	v1Base = "/partner/"
	// v1Page is the maximum number of rows per page.
	v1Page = 500
)

var v1CustomerWords = map[int]string{customerWorking: "Working", customerFailed: "Failed", customerExceptions: "Finished with exception"}

var v1StatusWords = map[int]string{
	1: "In Progress", 2: "Finished", 3: "Failed", 4: "Finished with Exception", 5: "Skipped", 6: "Pending", 7: "Failed to Start",
	8: "Canceled", 12: "Disabled", 13: "Not Finished",
}

// v1 implements API v1, which has GET requests, words instead of numbers, and OData envelopes.
func (c call) v1(path string) response {
	if c.request.Method != http.MethodGet {
		return errorResponse(http.StatusMethodNotAllowed, "wrong method")
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	listed := c.world.CustomersAt(c.now)
	switch {
	case path == "customers":
		return c.v1List("customers.read.all", func() []object { return each(listed, c.v1Customer) })
	case path == "services":
		return c.v1List("license.read.all", func() []object { return each(listed, c.v1Services) })
	case len(parts) >= 2:
		if x := c.customer(parts[1]); x != nil {
			return c.v1Of(x, parts)
		}
	}
	return errorResponse(http.StatusNotFound, "no such resource")
}

func (c call) v1Of(x *world.Customer, parts []string) response {
	rest := parts[2:]
	switch {
	case len(rest) == 0 && parts[0] == "services":
		return c.v1Entity("license.read.all", c.v1Services(x))
	case len(rest) == 0:
		return c.v1Entity("customers.read.all", c.v1Customer(x))
	case rest[0] == "protected":
		return c.v1List("cbprotected.read.all", func() []object { return protectedRows(x, c.world, c.now) })
	case rest[0] == "jobs" && len(rest) == 1:
		return c.v1List("jobs.read.all", func() []object { return each(c.jobs(x), v1Job) })
	case rest[0] == "scanProfiles" && len(rest) == 1:
		return c.v1List("scanprofiles.read.all", func() []object { return each(x.Profiles, profileRow) })
	case rest[0] == "scanProfiles":
		return c.profile(x, rest[1], func(p *world.Profile) object {
			if len(rest) > 2 {
				return reportRow(p, c.now)
			}
			return profileDetail(p)
		})
	}
	return errorResponse(http.StatusNotFound, "no such resource")
}

func (c call) v1Entity(scope string, row object) response {
	if !c.isAllowed(scope) {
		return errorResponse(http.StatusForbidden, "forbidden")
	}
	row["@odata.context"] = "$metadata#entity"
	return response{status: http.StatusOK, body: row}
}

func (c call) v1List(scope string, rows func() []object) response {
	if !c.isAllowed(scope) {
		return errorResponse(http.StatusForbidden, "forbidden")
	}
	all := rows()
	from := min(max(queryInt(c.request.URL.Query(), "$skip", 0), 0), len(all))
	to := min(from+v1Page, len(all))
	body := object{"@odata.context": "$metadata#list", "value": all[from:to]}
	if all == nil {
		body["value"] = []object{}
	}
	if to < len(all) {
		body["@odata.nextLink"] = fmt.Sprintf("http://%s%s?$skip=%d", c.request.Host, c.request.URL.Path, to)
	}
	return response{status: http.StatusOK, body: body}
}

func (c call) v1Customer(x *world.Customer) object {
	row := customerRow(x, c.now)
	row["jobStatus"] = v1CustomerWords[customerStatus(x.JobsAt(c.now, false))]
	return row
}

func (c call) v1Services(x *world.Customer) object {
	row := servicesRow(x, c.now)
	row["tenantId"] = strings.Join(x.Tenants, ",")
	return row
}

func v1Job(r world.Row) object {
	row := jobRow(r)
	row["jobType"], row["jobModule"] = world.TypeName(r.Type), world.ModuleName(r.Module)
	word, ok := v1StatusWords[r.Status]
	if !ok {
		word = strconv.Itoa(r.Status)
	}
	row["status"] = word
	return row
}
