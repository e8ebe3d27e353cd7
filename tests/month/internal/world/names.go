package world

import "fmt"

// Numbers from the API that the world uses.
const (
	TypeMicrosoft365 = 7
	TypeIaaS         = 12

	StatusRunning    = 1
	StatusFinished   = 2
	StatusFailed     = 3
	StatusException  = 4
	StatusSkipped    = 5
	StatusPending    = 6
	StatusNotStarted = 7 // "Failed to start"
	StatusCanceled   = 8
	StatusDisabled   = 12
	StatusUnset      = 13 // "Not started"
)

var typeNames = map[int]string{
	0: "Microsoft 365 Scan", 7: "Microsoft 365", 10: "Google Workspace Scan", 11: "Google Workspace",
	12: "IaaS + PaaS", 15: "Salesforce", 16: "Dynamics 365",
}

var moduleNames = map[int]string{
	0: "None", 301: "Salesforce", 302: "SharePoint Online", 303: "Exchange Online", 304: "Microsoft 365 Groups", 305: "OneDrive",
	306: "Project Online", 307: "Exchange Online Public Folder", 308: "Microsoft Teams", 309: "Teams Chat",
	310: "Power BI", 311: "Power Automate", 312: "Power Apps", 356: "Azure Virtual Machine",
	358: "Microsoft Entra ID", 359: "Storage", 360: "Admin Portal Settings", 361: "Amazon EC2", 363: "Dev Ops",
	401: "Dynamics 365", 402: "Viva Engage", 501: "Gmail", 502: "Calendar", 503: "Contacts", 504: "Drive",
	505: "Shared Drives", 507: "Chat", 550: "Dynamics CRM Backup",
}

// TypeName returns the name of a job type.
func TypeName(number int) string { return nameOf(typeNames, number) }

// ModuleName returns the name of a job module.
func ModuleName(number int) string { return nameOf(moduleNames, number) }

func nameOf(names map[int]string, number int) string {
	if name, ok := names[number]; ok {
		return name
	}
	return fmt.Sprintf("unknown_%d", number)
}
