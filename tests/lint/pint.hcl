# Configuration for Cloudflare's pint, which checks the rules without a Prometheus server.

parser {
  schema = "prometheus"
}

checks {
  disabled = [
    # Alerts use the recording rules in the other file, which is evaluated separately. Their results may be one interval
    # old, which is far less than any `for`. ElementsRecordingRulesMissing fires if they are not evaluated at all.
    "rule/dependency",
  ]
}

rule {
  match {
    name = "ElementsWatchdog"
  }
  # The watchdog always fires.
  disable = ["alerts/comparison"]
}

rule {
  match {
    name = "ElementsAppConsentLost"
  }
  # The recorded series exists only while the alert should fire.
  disable = ["alerts/comparison"]
}

rule {
  match {
    name = "customer_module:elements_job_switched_off_age_seconds:max"
  }
  # The exporter names an unknown module after its number, so the prefix tells which modules are unknown.
  disable = ["promql/regexp"]
}

rule {
  match {
    name = ".+1h"
  }
  # The monthly report and the alerts read these series only with functions over ranges.
  disable = ["group/interval"]
}

rule {
  match {
    kind = "alerting"
  }
  label "severity" {
    value    = "critical|warning|info|none"
    required = true
    severity = "bug"
  }
  label "area" {
    value    = "exporter|backup|protection|licence"
    required = true
    severity = "bug"
  }
  annotation "summary" {
    required = true
    severity = "bug"
  }
  annotation "description" {
    required = true
    severity = "bug"
  }
  annotation "runbook_url" {
    value    = "docs/runbooks.md#elements[a-z]+"
    required = true
    severity = "bug"
  }
  annotation "dashboard_url" {
    value    = "/d/elements-.+"
    required = true
    severity = "bug"
  }
}
