package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"month/internal/world"
)

const (
	v3Base          = "/partner/external/v3/general"
	defaultPageSize = 50
	maxPageSize     = 100
)

// v3 implements API v3, which has POST requests for filtered lists, numbers instead of words, and numbered pages.
func (c call) v3(path string) response {
	switch parts := strings.Split(strings.Trim(path, "/"), "/"); {
	case path == "/customers/batch":
		return c.v3List("POST", "customers.read.all", func() []object { return each(c.filtered(), c.v3Customer) })
	case path == "/customers/services/batch":
		return c.v3List("POST", "license.read.all", func() []object {
			return each(c.filtered(), func(x *world.Customer) object { return servicesRow(x, c.now) })
		})
	case len(parts) >= 3 && parts[0] == "customers":
		if x := c.customer(parts[1]); x != nil {
			return c.v3Of(x, strings.Join(parts[2:], "/"))
		}
	}
	return errorResponse(http.StatusNotFound, "no such resource")
}

func (c call) v3Of(x *world.Customer, rest string) response {
	switch {
	case rest == "cloud-backup-m365/overview":
		return c.v3List("GET", "cbprotected.read.all", func() []object { return protectedRows(x, c.world, c.now) })
	case rest == "avpt-products/jobs/batch":
		return c.v3List("POST", "jobs.read.all", func() []object { return each(c.jobs(x), v3Job) })
	case rest == "scan-profiles/batch":
		return c.v3List("POST", "scanprofiles.read.all", func() []object { return each(x.Profiles, profileRow) })
	}
	id, ok := strings.CutPrefix(rest, "scan-profiles/")
	if !ok {
		return errorResponse(http.StatusNotFound, "no such resource")
	}
	id, wantsChanges := strings.CutSuffix(id, "/changes")
	return c.profile(x, id, func(p *world.Profile) object {
		if wantsChanges {
			return reportRow(p, c.now)
		}
		return profileDetail(p)
	})
}

func (c call) profile(x *world.Customer, id string, row func(*world.Profile) object) response {
	if !c.isAllowed("scanprofiles.read.all") {
		return errorResponse(http.StatusForbidden, "forbidden")
	}
	for _, p := range x.Profiles {
		if p.ID == id {
			return response{status: http.StatusOK, body: row(p)}
		}
	}
	return errorResponse(http.StatusNotFound, "no such profile")
}

func (c call) v3List(method, scope string, rows func() []object) response {
	if c.request.Method != method {
		return errorResponse(http.StatusMethodNotAllowed, "wrong method")
	}
	if !c.isAllowed(scope) {
		return errorResponse(http.StatusForbidden, "forbidden")
	}
	query := c.request.URL.Query()
	index, perPage := queryInt(query, "pageIndex", 1), queryInt(query, "pageSize", defaultPageSize)
	if index < 1 || perPage < 1 || perPage > maxPageSize {
		return errorResponse(http.StatusBadRequest, "no such page")
	}
	all := rows()
	from := min((index-1)*perPage, len(all))
	page := all[from:min(from+perPage, len(all))]
	if page == nil {
		page = []object{}
	}
	return response{status: http.StatusOK, body: object{
		"data": page, "metadata": object{"pageIndex": index, "pageSize": perPage, "totalCount": len(all)},
	}}
}

func queryInt(query url.Values, name string, fallback int) int {
	if value, err := strconv.Atoi(query.Get(name)); err == nil {
		return value
	}
	return fallback
}

// filtered returns the customers selected by the body, or all customers if the body contains no selection.
func (c call) filtered() []*world.Customer {
	listed := c.world.CustomersAt(c.now)
	var filter struct {
		CustomerIDs []string `json:"customerIds"`
	}
	if err := json.Unmarshal(c.body, &filter); err != nil || len(filter.CustomerIDs) == 0 {
		return listed
	}
	return slices.DeleteFunc(listed, func(x *world.Customer) bool { return !slices.Contains(filter.CustomerIDs, x.ID) })
}

func (c call) v3Customer(x *world.Customer) object {
	row := customerRow(x, c.now)
	var tenants []object
	for i, id := range x.Tenants {
		tenants = append(tenants, object{"id": id, "name": "tenant" + strconv.Itoa(i)})
	}
	row["tenants"], row["managementMode"] = tenants, managedByPartner
	return row
}

func v3Job(r world.Row) object {
	row := jobRow(r)
	row["jobType"], row["jobModule"], row["status"] = r.Type, r.Module, r.Status
	return row
}

func each[T any](items []T, row func(T) object) []object {
	rows := make([]object, 0, len(items))
	for _, item := range items {
		rows = append(rows, row(item))
	}
	return rows
}
