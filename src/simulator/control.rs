//! Control routes: an overview, a health check, faults and scopes. They need no token.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::response::{ApiResponse, Call};
use super::{Fault, State, TOKEN_PATH};

/// Returns whether a path belongs to the control routes.
pub(super) fn owns(path: &str) -> bool {
    path == "/" || path.starts_with("/-/")
}

/// Returns the response to a request for a control route.
pub(super) fn respond(state: &mut State, call: &Call) -> ApiResponse {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/") => ApiResponse::text(overview(state, call)),
        ("GET", "/-/healthy") => ApiResponse::text("healthy\n"),
        ("GET", "/-/faults") => ApiResponse::json(json!(state.faults)),
        ("POST", "/-/faults") => match body::<Vec<Fault>>(call) {
            Ok(faults) => {
                state.faults = faults;
                ApiResponse::json(json!(state.faults))
            }
            Err(error_response) => error_response,
        },
        ("DELETE", "/-/faults") => {
            state.faults.clear();
            ApiResponse::empty(StatusCode::NO_CONTENT)
        }
        ("POST", "/-/scopes") => match body(call) {
            Ok(scopes) => {
                state.registration.scopes = scopes;
                ApiResponse::empty(StatusCode::NO_CONTENT)
            }
            Err(error_response) => error_response,
        },
        (_, "/" | "/-/healthy") => ApiResponse::method_not_allowed("GET"),
        (_, "/-/scopes") => ApiResponse::method_not_allowed("POST"),
        (_, "/-/faults") => ApiResponse::method_not_allowed("GET, POST, DELETE"),
        _ => ApiResponse::not_found("path"),
    }
}

fn body<T: DeserializeOwned>(call: &Call) -> Result<T, ApiResponse> {
    serde_json::from_str(&call.body).map_err(|error| ApiResponse::error(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn overview(state: &State, call: &Call) -> String {
    let base = &call.origin;
    let customer = state
        .world
        .customers
        .first()
        .map_or("ID", |customer| customer.id.as_str());
    let client = &state.registration.client_id;
    format!(
        r#"Simulated Elements partner with {count} customers, API v1 and v3.

Get a token (the demo's secret is demo-secret):

  TOKEN=$(curl -s {base}{TOKEN_PATH} -d grant_type=client_credentials -d client_id={client} \
    -d client_secret=demo-secret | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

API v1:

  curl -H "Authorization: Bearer $TOKEN" {base}/partner/customers
  curl -H "Authorization: Bearer $TOKEN" {base}/partner/services
  curl -H "Authorization: Bearer $TOKEN" {base}/partner/customers/{customer}/jobs
  curl -H "Authorization: Bearer $TOKEN" {base}/partner/customers/{customer}/protected
  curl -H "Authorization: Bearer $TOKEN" {base}/partner/customers/{customer}/scanProfiles

API v3:

  curl -H "Authorization: Bearer $TOKEN" -d '{{}}' "{base}/partner/external/v3/general/customers/batch?pageIndex=1&pageSize=100"
  curl -H "Authorization: Bearer $TOKEN" -d '{{}}' {base}/partner/external/v3/general/customers/services/batch
  curl -H "Authorization: Bearer $TOKEN" -d '{{}}' {base}/partner/external/v3/general/customers/{customer}/avpt-products/jobs/batch
  curl -H "Authorization: Bearer $TOKEN" {base}/partner/external/v3/general/customers/{customer}/cloud-backup-m365/overview
  curl -H "Authorization: Bearer $TOKEN" -d '{{}}' {base}/partner/external/v3/general/customers/{customer}/scan-profiles/batch

Endpoints of the simulator itself, without a token:

  curl {base}/-/healthy
  curl {base}/-/faults
  curl {base}/-/faults -d '[{{"path": "*/jobs*", "kind": "throttle", "retry_after": "3", "times": 5}}]'
  curl -X DELETE {base}/-/faults
  curl {base}/-/scopes -d '["partner.customers.read.all"]'

Fault kinds: status delay hang hang_body drip truncate short_length reset wrong_body redirect throttle
gzip_bomb replace next_link extra_header ignore_paging total_count
"#,
        count = state.world.customers.len(),
    )
}
