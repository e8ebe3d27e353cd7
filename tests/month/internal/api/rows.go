package api

import (
	"fmt"
	"strconv"
	"time"

	"month/internal/world"
)

// Statuses of customers, and the management mode of all customers.
const (
	customerWorking    = 1
	customerFailed     = 2
	customerExceptions = 5
	managedByPartner   = 1
)

func customerStatus(rows []world.Row) int {
	status := customerWorking
	for _, r := range rows {
		switch r.Status {
		case world.StatusFailed, world.StatusNotStarted:
			return customerFailed
		case world.StatusException:
			status = customerExceptions
		}
	}
	return status
}

func customerRow(c *world.Customer, now time.Time) object {
	return object{
		"id": c.ID, "organization": c.Organization(now), "ownerEmail": c.Email, "countryOrRegion": c.Country,
		"jobStatus": customerStatus(c.JobsAt(now, false)),
	}
}

// jobRow returns a row without type, module and status, which the API versions encode differently.
func jobRow(r world.Row) object {
	row := object{
		"jobId": orAbsent(r.ID), "name": orAbsent(r.Scope), "startTime": instant(r.Start, 0), "endTime": instant(r.End, 0),
		"jobDuration": duration(r.Start, r.End), "lastModifyTime": instant(r.Modified, 0), "backupSize": "0 GB",
	}
	if r.Type != world.TypeMicrosoft365 { // Microsoft 365 runs have no size
		row["backupSize"] = size(float64(r.SizeMB))
	}
	counts := map[string]int{
		"totalCount": r.Total, "failedCount": r.Failed, "successfulCount": max(0, r.Total-r.Failed-r.Skipped),
		"skippedCount": r.Skipped, "warningCount": r.Warned,
	}
	for name, n := range counts {
		row[name] = strconv.Itoa(n)
	}
	if r.Scan {
		for name := range row {
			row[name] = absent
		}
	}
	return row
}

// protectedWords contains the module names in protected data that differ from those in job lists.
var protectedWords = map[int]string{304: "Microsoft 365 Group", 309: "Microsoft Teams chat"}

func protectedRows(c *world.Customer, w *world.World, now time.Time) []object {
	var rows []object
	for _, m := range c.Modules {
		scanned, protected, storedMB, listed := m.ProtectedAt(w.Start, now)
		if !listed {
			continue
		}
		word, ok := protectedWords[m.Number]
		if !ok {
			word = world.ModuleName(m.Number)
		}
		rows = append(rows, object{
			"customerId": c.ID, "customer": c.Email, "serviceType": "Cloud Backup for Microsoft 365", "serviceModule": word,
			"totalScannedObjects": scanned, "totalProtectedObjects": protected,
			"dataSizeStoredInAvePoint": size(storedMB), "dataSizeStoredInBYOS": absent,
		})
	}
	return rows
}

// productFields contains the fields of a subscription that never have a value here.
var productFields = []string{
	"subscriptionModel", "purchasedUnits", "microsoftLicenseAvailable", "purchasedCapacity", "protectedCapacity", "storage", "retention",
	"consumedStorage", "change", "paymentType", "subscriptionName", "package", "contractEndDate",
}

func servicesRow(c *world.Customer, now time.Time) object {
	var products []object
	for _, l := range c.Licenses {
		product := object{
			"service": l.Service, "purchasedUserSeats": strconv.Itoa(l.Seats), "microsoftLicenseAssigned": strconv.Itoa(l.AssignedAt(now)),
			"expirationDate": date(l.EndsAt(now)), "source": "AvePoint subscription",
		}
		for _, field := range productFields {
			product[field] = absent
		}
		products = append(products, product)
	}
	return object{"customerId": c.ID, "organization": c.Organization(now), "customer": c.Email, "products": products}
}

// profileChanged is the time at which every profile was last modified.
const profileChanged = "2026-05-01T08:00:00Z"

func profileRow(p *world.Profile) object {
	return object{"profileName": p.Name, "profileId": p.ID, "scanMode": 0, "modifiedTime": profileChanged}
}

func profileDetail(p *world.Profile) object {
	row := profileRow(p)
	for name, value := range (object{
		"description": "", "tenantId": p.Tenant, "tenantDomain": p.Domain, "createdTime": "2026-04-01T08:00:00Z", "impersonationAccount": nil,
		"scanInplaceArchivedMailboxes": true, "isIgnoreLockedSiteEnabled": true, "isSendOutOfPolicyNotification": false,
		"enableDailyScan": fmt.Sprintf("%02d:%02d", int(p.Daily.Hours()), int(p.Daily.Minutes())%60),
	}) {
		row[name] = value
	}
	return row
}

func reportRow(p *world.Profile, now time.Time) object {
	row := object{
		"profileName": p.Name, "profileId": p.ID, "tenantDomain": p.Domain, "tenantId": p.Tenant, "description": "", "scanMode": 0,
		"modifiedTime": profileChanged, "lastUpdateTime": profileChanged, "lastScanStatus": 0,
		"newRegisteredContentCount": 3, "movedToAnotherContainer": 0, "removedFromMicrosoft365OrOutofPolicy": 1,
	}
	if report, ok := p.ReportAt(now); ok {
		row["lastUpdateTime"], row["lastScanStatus"] = instant(report.End, int(report.End.Unix())), report.Status
	}
	return row
}
