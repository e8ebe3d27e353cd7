//! Tests of the simulated partner over real sockets.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

mod faulty;
mod shapes;
mod tokens;

const NOW: i64 = 1_790_000_000;
const V3: &str = "/partner/external/v3/general";

/// A running simulated partner, and an HTTP client for it.
struct Partner {
    base: String,
    address: SocketAddr,
    handle: Handle,
    client: Client,
    /// Token with which requests are sent.
    token: String,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

fn fixed_settings() -> Settings {
    Settings {
        clock: Clock::Manual(NOW),
        churn: false,
        hostile: true,
        ..Settings::default()
    }
}

impl Partner {
    async fn start(settings: Settings) -> Self {
        // Fails harmlessly if another test has already installed the provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::bind(settings, SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let shutdown = CancellationToken::new();
        Self {
            base: simulator.base_url(),
            address: simulator.address(),
            handle: simulator.handle(),
            client: Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .build()
                .unwrap(),
            token: String::new(),
            shutdown: shutdown.clone(),
            running: tokio::spawn(simulator.run(shutdown)),
        }
    }

    /// Starts a partner and requests a token with all scopes.
    async fn with_token(settings: Settings) -> Self {
        let mut partner = Self::start(settings).await;
        partner.token = partner.token_for("").await;
        partner
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn request_token(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let response = self.client.post(self.url(TOKEN_PATH)).form(form).send().await.unwrap();
        (response.status(), body(response).await)
    }

    async fn token_for(&self, scope: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "demo"),
            ("client_secret", "demo-secret"),
            ("scope", scope),
        ];
        let (status, response) = self.request_token(&form).await;
        assert_eq!(status, 200, "{response}");
        response["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Response {
        self.try_get(&self.token, path).await.unwrap()
    }

    async fn try_get(&self, token: &str, path: &str) -> reqwest::Result<Response> {
        self.client.get(self.url(path)).bearer_auth(token).send().await
    }

    async fn post(&self, path: &str, filter: Value) -> Response {
        let request = self.client.post(self.url(path)).bearer_auth(&self.token);
        request.body(filter.to_string()).send().await.unwrap()
    }

    async fn v1(&self, path: &str) -> Value {
        body(self.get(path).await).await
    }

    async fn v3(&self, path: &str) -> Value {
        self.filtered(path, json!({})).await
    }

    /// Requests a list from API v3 with a filter.
    async fn filtered(&self, path: &str, filter: Value) -> Value {
        body(self.post(&format!("{V3}{path}"), filter).await).await
    }

    /// Returns the raw response to a request, up to the end of the connection.
    async fn raw(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.address, self.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        // In some tests, a fault interrupts the connection.
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8_lossy(&response).into_owned()
    }

    fn fault(&self, kind: FaultKind) {
        self.handle.set_faults(vec![Fault::new("/partner/customers", kind)]);
    }
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn rows(response: &Value) -> &[Value] {
    response
        .get("value")
        .or_else(|| response.get("data"))
        .unwrap()
        .as_array()
        .unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// Returns the fields of a row as text, for comparing the API versions.
fn fields_as_text(row: &Value) -> BTreeMap<String, String> {
    row.as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            (
                name.clone(),
                value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            )
        })
        .collect()
}

#[tokio::test]
async fn api_versions_report_the_same_runs() {
    let partner = Partner::with_token(Settings {
        history: History::Runs(20),
        ..fixed_settings()
    })
    .await;
    let ids: Vec<String> = partner
        .handle
        .with_world(|world| world.customers.iter().map(|c| c.id.clone()).collect());
    for id in &ids {
        let v1 = partner.v1(&format!("/partner/customers/{id}/jobs")).await;
        let mut pages = Vec::new();
        for page in 1..=4 {
            let path = format!("/customers/{id}/avpt-products/jobs/batch?pageSize=100&pageIndex={page}");
            pages.extend(rows(&partner.v3(&path).await).to_vec());
        }
        assert_eq!(rows(&v1).len(), pages.len());
        for (one, two) in rows(&v1).iter().zip(&pages) {
            let (mut one, mut two) = (fields_as_text(one), fields_as_text(two));
            let number = two.remove("jobModule").unwrap().parse().unwrap();
            assert_eq!(one.remove("jobModule").unwrap(), names::module_word(number));
            let job_type = two.remove("jobType").unwrap().parse().unwrap();
            assert_eq!(one.remove("jobType").unwrap(), names::job_type_word(job_type));
            let status: i64 = two.remove("status").unwrap().parse().unwrap();
            let word = one.remove("status").unwrap();
            let words = [
                names::job_status_word(status),
                "Successful".to_owned(),
                "Not Finished".to_owned(),
            ];
            assert!(words.contains(&word), "{word} {status}");
            assert_eq!(word == "Successful", status == 2 && matches!(job_type, 15 | 16));
            assert_eq!(one, two);
        }
    }
}

#[tokio::test]
async fn module_without_runs_is_listed_as_not_started() {
    let partner = Partner::with_token(fixed_settings()).await;
    let id = partner.handle.with_world(|world| {
        world.customers[0].modules = vec![Module::new(7, 303)];
        world.customers[0].id.clone()
    });
    let v1 = partner.v1(&format!("/partner/customers/{id}/jobs")).await;
    let v3 = partner.v3(&format!("/customers/{id}/avpt-products/jobs/batch")).await;
    assert_eq!(rows(&v1)[0]["status"], "Not Finished");
    assert_eq!(rows(&v3)[0]["status"], 13);
    for row in [&rows(&v1)[0], &rows(&v3)[0]] {
        assert_eq!((text(row, "jobId"), text(row, "totalCount")), ("N/A", "0"));
        assert_eq!((text(row, "backupSize"), text(row, "endTime")), ("0 GB", "N/A"));
    }
}

#[tokio::test]
async fn paging_returns_every_customer_once() {
    let partner = Partner::with_token(Settings {
        v1_page_size: Some(7),
        ..fixed_settings()
    })
    .await;
    let mut ids = Vec::new();
    let mut next = Some(partner.url("/partner/customers"));
    while let Some(link) = next {
        let page = body(
            partner
                .client
                .get(&link)
                .bearer_auth(&partner.token)
                .send()
                .await
                .unwrap(),
        )
        .await;
        ids.extend(rows(&page).iter().map(|row| text(row, "id").to_owned()));
        next = page["@odata.nextLink"].as_str().map(str::to_owned);
    }
    let unique: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!((ids.len(), unique.len()), (40, 40));

    let mut second = Vec::new();
    for page in 1..=6 {
        let response = partner
            .v3(&format!("/customers/batch?pageSize=7&pageIndex={page}"))
            .await;
        assert_eq!(
            response["metadata"],
            json!({"pageIndex": page, "pageSize": 7, "totalCount": 40})
        );
        second.extend(rows(&response).iter().map(|row| text(row, "id").to_owned()));
    }
    assert_eq!(ids, second);
}

#[tokio::test]
async fn lists_and_entities_have_envelopes() {
    let partner = Partner::with_token(fixed_settings()).await;
    let customers = partner.v1("/partner/customers").await;
    assert!(text(&customers, "@odata.context").ends_with("/partner/$metadata#Customers"));
    assert_eq!(customers, partner.v1("/partner/api/V1.1/customers").await);
    let id = text(&rows(&customers)[0], "id");
    let one = partner.v1(&format!("/partner/customers/{id}")).await;
    assert_eq!(one["organization"], rows(&customers)[0]["organization"]);
    assert!(one["@odata.context"].is_string());
    let tenants = partner.v1(&format!("/partner/services/{id}")).await;
    assert_eq!(text(&tenants, "tenantId").split(',').count(), 2);

    let services = partner.v1("/partner/services").await;
    let second = partner.v3("/customers/services/batch").await;
    assert_eq!(rows(&services)[3]["products"], rows(&second)[3]["products"]);
    let protected = partner.v1(&format!("/partner/customers/{id}/protected")).await;
    let overview = partner
        .v1(&format!("{V3}/customers/{id}/cloud-backup-m365/overview"))
        .await;
    assert_eq!(rows(&protected).len(), rows(&overview).len());
    assert_eq!(rows(&protected)[2]["serviceModule"], "Microsoft 365 Group");
    assert_eq!(rows(&overview)[2]["serviceModule"], "Microsoft 365 Group");
    partner
        .handle
        .with_world(|world| world.customers[0].tenants[0].services.users = 3);
    let tenant = text(&tenants, "tenantId").split(',').next().unwrap();
    let path = format!("/customers/{id}/tenants/{tenant}/cloud-backup-m365/users/batch");
    assert_eq!(rows(&partner.v3(&path).await).len(), 3);
}

#[tokio::test]
async fn scan_profiles_report_counts_and_objects() {
    let partner = Partner::with_token(fixed_settings()).await;
    let id = partner.handle.with_world(|world| {
        let profile = &mut world.customers[0].scan_profiles[0];
        profile.report.removed = vec![Change {
            object: "removed".to_owned(),
            container: "c".to_owned(),
        }];
        world.customers[0].id.clone()
    });
    let profiles = partner.v1(&format!("/partner/customers/{id}/scanProfiles")).await;
    let profile = text(&rows(&profiles)[0], "profileId").to_owned();
    let path = format!("/partner/customers/{id}/scanProfiles/{profile}");
    let detail = partner.v1(&path).await;
    assert!(detail["containers"][0]["objectType"].is_string());
    let summary = partner.v1(&format!("{path}/dailyNewSummary")).await;
    assert_eq!(summary["removedFromMicrosoft365OrOutofPolicy"], 1);
    let details = partner.v1(&format!("{path}/dailyNewDetails")).await;
    assert_eq!(
        details["removedFromMicrosoft365OrOutOfPolicyObjects"],
        json!([{"objectName": "removed", "containerName": "c"}])
    );
    let second = partner
        .v1(&format!("{V3}/customers/{id}/scan-profiles/{profile}"))
        .await;
    assert!(second["containers"][0]["objectType"].is_number());
    let changes = partner
        .v1(&format!("{V3}/customers/{id}/scan-profiles/{profile}/changes"))
        .await;
    assert_eq!(
        changes["removedFromMicrosoft365OrOutOfPolicyObjects"],
        json!(["removed"])
    );
    for path in [
        format!("/partner/customers/{id}/scanProfiles/none/dailyNewSummary"),
        format!("/partner/customers/{id}/scanProfiles/none/dailyNewDetails"),
        format!("{V3}/customers/{id}/scan-profiles/none/changes"),
    ] {
        assert_eq!(partner.get(&path).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn filters_are_applied_and_invalid_filters_rejected() {
    let partner = Partner::with_token(fixed_settings()).await;
    let id = partner.handle.with_world(|world| world.customers[1].id.clone());
    let one = partner.filtered("/customers/batch", json!({"customerIds": [id]})).await;
    assert_eq!(rows(&one).len(), 1);
    let jobs = format!("/customers/{id}/avpt-products/jobs/batch");
    let exchange = partner.filtered(&jobs, json!({"jobType": 7, "jobModule": 303})).await;
    assert_eq!(rows(&exchange).len(), 1);
    let first = format!("/partner/customers/{id}/jobs/jobType");
    let words = partner
        .v1(&format!("{first}/Microsoft%20365/jobModule/Exchange%20Online"))
        .await;
    assert_eq!(rows(&words)[0]["jobId"], rows(&exchange)[0]["jobId"]);

    for (path, filter, expected) in [
        (jobs.as_str(), json!({"jobType": "Microsoft 365"}), 400),
        (&jobs, json!([]), 400),
        ("/customers/batch?pageSize=101", json!({}), 400),
        ("/customers/batch?pageIndex=0", json!({}), 400),
        ("/customers/none/avpt-products/jobs/batch", json!({}), 404),
    ] {
        let response = partner.post(&format!("{V3}{path}"), filter).await;
        assert_eq!(response.status(), expected, "{path}");
    }
    assert_eq!(partner.post("/partner/customers", json!({})).await.status(), 405);
    assert_eq!(partner.get(&format!("{V3}{jobs}")).await.status(), 405);
    for (path, expected) in [
        (format!("{first}/Mainframe/jobModule/Disk"), 400),
        ("/partner/customers/none".to_owned(), 404),
        ("/partner/nothing".to_owned(), 404),
        ("/elsewhere".to_owned(), 404),
    ] {
        assert_eq!(partner.get(&path).await.status(), expected, "{path}");
    }
}

#[tokio::test]
async fn raw_values_are_sent_unchanged() {
    let partner = Partner::with_token(fixed_settings()).await;
    let id = partner.handle.with_world(|world| {
        let customer = &mut world.customers[0];
        let mut module = Module::new(7, 303);
        let raw_fields = BTreeMap::from([("failedCount".to_owned(), json!(null)), ("new".to_owned(), json!([1]))]);
        module.runs.push(Run {
            status: -5,
            raw_fields,
            ..Run::default()
        });
        customer.modules = vec![module];
        customer.products = vec![Product {
            change: "+1".to_owned(),
            ..Product::new("Fly")
        }];
        customer.products[0].raw_fields.insert("package".to_owned(), json!(3));
        customer.organization = "\"} 0\nfake 1".to_owned();
        customer.id.clone()
    });
    let jobs = partner.v1(&format!("/partner/customers/{id}/jobs")).await;
    let row = &rows(&jobs)[0];
    assert_eq!(
        (&row["failedCount"], &row["new"], &row["status"]),
        (&Value::Null, &json!([1]), &json!("-5"))
    );
    let services = partner.v3("/customers/services/batch").await;
    assert_eq!(rows(&services)[0]["organization"], "\"} 0\nfake 1");
    assert_eq!(rows(&services)[0]["products"][0]["package"], 3);
    assert_eq!(rows(&services)[0]["products"][0]["change"], "+1");
}

#[tokio::test]
async fn control_routes_need_no_token() {
    let partner = Partner::start(fixed_settings()).await;
    let get = async |path: &str| partner.client.get(partner.url(path)).send().await.unwrap();
    let post = async |path: &str, text: &str| {
        let request = partner.client.post(partner.url(path)).body(text.to_owned());
        request.send().await.unwrap()
    };
    assert!(get("/").await.text().await.unwrap().contains("curl"));
    let response = post(
        "/-/faults",
        r#"[{"path": "*", "kind": "status", "code": 500, "times": 1}]"#,
    )
    .await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(get("/-/faults").await).await[0]["code"], 500);
    assert_eq!(
        get("/-/healthy").await.status(),
        200,
        "faults must not affect control routes"
    );
    assert_eq!(get("/partner/customers").await.status(), 500);
    assert_eq!(
        post("/-/faults", r#"[{"path": "*", "kind": "gremlins"}]"#)
            .await
            .status(),
        400
    );
    let cleared = partner.client.delete(partner.url("/-/faults")).send().await.unwrap();
    assert_eq!(cleared.status(), 204);
    assert_eq!(body(get("/-/faults").await).await, json!([]));

    assert_eq!(post("/-/scopes", r#"["partner.jobs.read.all"]"#).await.status(), 204);
    let token = partner.token_for("").await;
    let customers = partner.try_get(&token, "/partner/customers").await.unwrap();
    assert_eq!(customers.status(), 403);
    assert_eq!(get("/-/scopes").await.status(), 405);
    assert_eq!(get("/-/nothing").await.status(), 404);
}

#[tokio::test]
async fn invalid_certificate_is_an_error_at_startup() {
    let settings = Settings {
        certificate_pem: Some("nonsense".to_owned()),
        ..fixed_settings()
    };
    let error = Simulator::bind(settings, SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
