//! Collectors for services that only some customers have: the exposition for given JSON responses, and customers
//! without the service.
//!
//! The tests are in one long file, because they share the customers and tenants.

use crate::harness::canned::CannedServer;
use crate::harness::program::Program;
use crate::harness::{about_customers, assert_expected, config, poll_once_validated, value};

const BASE: &str = "/partner/external/v3";
const CUSTOMER_ID: &str = "00427fbc-8832-46cf-a1d2-582fa46ec638";

const CUSTOMERS: &str = r#"{"data":[{"id":"00427fbc-8832-46cf-a1d2-582fa46ec638","organization":"Contoso","jobStatus":1,
    "managementMode":1,"tenants":[{"id":"t1","name":"One"},{"id":"t2","name":"Two"}]}],
    "metadata":{"pageIndex":1,"pageSize":100,"totalCount":1}}"#;

const OPTIONAL: [&str; 6] = [
    "job_reports",
    "tenant_seats",
    "user_protection",
    "app_consent",
    "ransomware",
    "baselines",
];

/// Polls once with only the customer list and these collectors enabled.
async fn poll(on: &[&str], responses: &[(String, u16, &str)]) -> (String, bool, CannedServer) {
    let canned = CannedServer::start(&[("POST /partner/external/v3/general/customers/batch", CUSTOMERS)]).await;
    for (line, status, body) in responses {
        canned.set(line, *status, body);
    }
    let default_collectors = ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"];
    let switches: Vec<(String, &str)> = default_collectors
        .into_iter()
        .chain(OPTIONAL)
        .map(|name| {
            let switch = format!("ELEMENTS_COLLECTORS__{}__ENABLED", name.to_uppercase());
            (switch, if on.contains(&name) { "true" } else { "false" })
        })
        .collect();
    let mut all: Vec<(&str, &str)> = switches.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    all.push(("ELEMENTS_API__VERSION", "v3"));
    let (text, succeeded) = poll_once_validated(&config(&canned.base, &all)).await;
    (text, succeeded, canned)
}

fn of_customer(verb: &str, rest: &str) -> String {
    format!("{verb} {BASE}/general/customers/{CUSTOMER_ID}/{rest}")
}

fn state(collector: &str, state: &str) -> String {
    format!(r#"elements_exporter_customers{{collector="{collector}",state="{state}"}}"#)
}

fn samples(text: &str, prefix: &str) -> String {
    let about = about_customers(text);
    let lines = about.lines().filter(|line| line.starts_with(prefix));
    lines.map(|line| line.to_owned() + "\n").collect()
}

#[tokio::test]
async fn app_consent_is_exposed() {
    let apps = |tenant: &str, product: &str| of_customer("GET", &format!("tenants/{tenant}/product/{product}/apps"));
    let (text, succeeded, _) = poll(
        &["app_consent"],
        &[
            (
                apps("t1", "Office365Backup"),
                200,
                r#"[{"isConsent":true},{"isConsent":"True"}]"#,
            ),
            (
                apps("t1", "PartnerTenantSettingManagement"),
                200,
                r#"{"data":[{"isConsent":false}]}"#,
            ),
            (apps("t1", "PartnerWorkspaceOnboarding"), 404, "{}"),
            (apps("t1", "PartnerAzureSecurityManagement"), 400, "{}"),
            (
                apps("t2", "Office365Backup"),
                200,
                r#"[{"isConsent":true},{"isConsent":false}]"#,
            ),
            (apps("t2", "PartnerTenantSettingManagement"), 204, ""),
            (apps("t2", "PartnerWorkspaceOnboarding"), 200, "[]"),
            (apps("t2", "PartnerAzureSecurityManagement"), 404, "{}"),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected("app_consent", &samples(&text, "elements_tenant_app"));
}

#[tokio::test]
async fn ransomware_signs_are_exposed() {
    let (text, succeeded, _) = poll(
        &["ransomware"],
        &[
            (
                overview("t1"),
                200,
                r#"{"teamsUnderPotentialRansomwareAttack":1,"teamsWithUnusualActivities":"2","teamsWithSuspiciousObjects":0,
                    "sharePointSitesUnderPotentialRansomwareAttack":3,"SharePointSitesWithUnusualActivities":4,
                    "oneDrivesWithSuspiciousObjects":5,"groupsWithUnusualActivities":null}"#,
            ),
            (overview("t2"), 403, "{}"),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected("ransomware", &samples(&text, "elements_tenant_ransomware"));
    assert_eq!(value(&text, &state("ransomware", "fresh")), Some(1.0));
}

#[tokio::test]
async fn tenant_seats_are_exposed() {
    let of_type = |number: u8| of_customer("POST", &format!("3rd-party-products/type/{number}/tenants/batch"));
    let (text, succeeded, canned) = poll(
        &["jobs", "tenant_seats"],
        &[
            (
                of_customer("POST", "avpt-products/jobs/batch"),
                200,
                r#"{"data":[{"jobType":15,"jobModule":301,"status":13,"jobId":"N/A"}]}"#,
            ),
            (
                of_type(0),
                200,
                r#"{"data":[{"type":0,"tenantId":"t1","tenantName":"One","availableUserSeat":100,"assignedUserSeat":"97"},
                    {"tenantId":"t2","availableUserSeat":-1,"assignedUserSeat":"N/A"}],"metadata":{"totalCount":2}}"#,
            ),
            (of_type(1), 200, r#"{"data":[]}"#),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected("tenant_seats", &samples(&text, "elements_tenant_seats"));
    let requested = canned
        .requests()
        .into_iter()
        .filter(|request| request.line.contains("3rd-party-products"));
    assert!(requested.count() <= 4, "types of services without jobs were requested");
}

#[tokio::test]
async fn user_protection_is_exposed_without_names() {
    let users = |tenant: &str| of_customer("POST", &format!("tenants/{tenant}/cloud-backup-m365/users/batch"));
    let (text, succeeded, _) = poll(
        &["user_protection"],
        &[
            (
                users("t1"),
                200,
                r#"{"data":[
                    {"id":"u1","email":"adele@contoso.com","displayName":"Adele","moduleStatus":[
                        {"module":0,"isProtected":true},{"module":2,"isProtected":false}]},
                    {"id":"u2","email":"bob@contoso.com","displayName":"Bob","moduleStatus":[
                        {"module":"0","isProtected":"true"}]},
                    {"id":"u3","email":"eve@contoso.com","displayName":"Eve","moduleStatus":[
                        {"module":7,"isProtected":true}]}],"metadata":{"totalCount":3}}"#,
            ),
            (users("t2"), 200, r#"{"data":[],"metadata":{"totalCount":0}}"#),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected("user_protection", &samples(&text, "elements_tenant_users"));
    for name in ["adele", "Adele", "contoso.com", "u1"] {
        assert!(!text.contains(name), "{name} is exposed");
    }
}

#[tokio::test]
async fn baselines_are_exposed() {
    let (text, succeeded, _) = poll(
        &["baselines"],
        &[(
            format!("POST {BASE}/bm/tenants/batch"),
            200,
            r#"{"data":[
                {"customerId":"00427fbc-8832-46cf-a1d2-582fa46ec638","tenantId":"t1","tenantName":"One","status":7,
                 "driftDetected":3,"driftDetectedTime":"2025-09-11T03:21:16Z","lastDeployedTime":"09/01/2025 06:00:00",
                 "autoAlignment":0,"appliedBaselines":[{"baselineId":"b","baselineName":"B","version":"1"}]},
                {"customerId":"00427FBC-8832-46CF-A1D2-582FA46EC638","tenantId":"t2","status":19,"driftDetected":0,
                 "driftDetectedTime":"N/A"},
                {"customerId":"00427fbc-8832-46cf-a1d2-582fa46ec638","tenantId":"t3","status":77},
                {"customerId":"somebody-else","tenantId":"t4","status":1}],
                "metadata":{"pageIndex":1,"pageSize":100,"totalCount":4}}"#,
        )],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected(
        "baselines",
        &(samples(&text, "elements_tenant_baseline") + &samples(&text, "elements_tenant_drift")),
    );
}

const JOBS: &str = r#"{"data":[
    {"jobType":7,"jobModule":303,"status":3,"jobId":"EIB1","name":"N/A","totalCount":"1200","failedCount":"0",
     "startTime":"2025-09-11T03:00:00Z","endTime":"2025-09-11T04:00:00Z"},
    {"jobType":7,"jobModule":302,"status":2,"jobId":"IB2","totalCount":"5","failedCount":"0",
     "startTime":"2025-09-11T03:00:00Z","endTime":"2025-09-11T04:00:00Z"},
    {"jobType":7,"jobModule":305,"status":2,"jobId":"IB3","totalCount":"5","failedCount":"1",
     "startTime":"2025-09-11T03:00:00Z","endTime":"2025-09-11T04:00:00Z"},
    {"jobType":12,"jobModule":358,"status":3,"jobId":"IB4","name":"Directory",
     "startTime":"2025-09-11T03:00:00Z","endTime":"2025-09-11T04:00:00Z"}]}"#;

#[tokio::test]
async fn job_reports_are_exposed_without_addresses() {
    let report = |job: &str| of_customer("GET", &format!("jobs/{job}/report-details"));
    let (text, succeeded, canned) = poll(
        &["jobs", "job_reports"],
        &[
            (of_customer("POST", "avpt-products/jobs/batch"), 200, JOBS),
            (
                report("EIB1"),
                200,
                r#"{"data":[
                    {"title":"adele@contoso.com","type":1,"sourceObjectLocation":"/adele","status":1,
                     "comment":"Mailbox adele@contoso.com: 429 Too Many Requests","errorCode":""},
                    {"title":"bob@contoso.com","type":1,"status":"1",
                     "comment":"Mailbox bob@contoso.com: 503 Too Many Requests","errorCode":"N/A"},
                    {"title":"eve@contoso.com","type":1,"status":1,"comment":"ignored","errorCode":"ErrorAccessDenied"},
                    {"title":"kim@contoso.com","type":1,"status":1,"comment":"","errorCode":null},
                    {"title":"max@contoso.com","type":1,"status":4,"comment":"a warning","errorCode":""},
                    {"title":"joe@contoso.com","type":1,"status":2,"comment":"not changed","errorCode":""}],
                    "metadata":{"skipToken":null,"totalCount":6}}"#,
            ),
            (report("IB3"), 404, "{}"),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    assert_expected("job_reports", &samples(&text, "elements_job_report"));
    assert!(!text.contains("contoso.com"), "an address is exposed");
    let requests = canned
        .requests()
        .into_iter()
        .map(|request| request.line.split('?').next().unwrap().to_owned());
    let mut reports: Vec<String> = requests.filter(|line| line.contains("report-details")).collect();
    reports.sort();
    assert_eq!(
        reports,
        [report("EIB1"), report("IB3")],
        "only reports of runs with missed objects must be requested"
    );
    assert_eq!(value(&text, &state("job_reports", "fresh")), Some(1.0));
}

#[tokio::test]
async fn customer_without_the_service_is_not_an_error() {
    for status in [403, 404] {
        let mut responses: Vec<(String, u16, &str)> = vec![
            (of_customer("POST", "avpt-products/jobs/batch"), 200, JOBS),
            (format!("POST {BASE}/bm/tenants/batch"), status, "{}"),
        ];
        responses.extend(
            ["EIB1", "IB3"].map(|job| (of_customer("GET", &format!("jobs/{job}/report-details")), status, "{}")),
        );
        responses.extend((0..4).map(|number| {
            let path = format!("3rd-party-products/type/{number}/tenants/batch");
            (of_customer("POST", &path), status, "{}")
        }));
        for tenant in ["t1", "t2"] {
            let users = format!("tenants/{tenant}/cloud-backup-m365/users/batch");
            responses.push((of_customer("POST", &users), status, "{}"));
            let signs = format!(
                "{BASE}/wm/customers/{CUSTOMER_ID}/tenants/{tenant}/overview/data-protection/ransomware-detection"
            );
            responses.push((format!("GET {signs}"), status, "{}"));
            for product in [
                "Office365Backup",
                "PartnerTenantSettingManagement",
                "PartnerWorkspaceOnboarding",
                "PartnerAzureSecurityManagement",
            ] {
                let path = format!("tenants/{tenant}/product/{product}/apps");
                responses.push((of_customer("GET", &path), status, "{}"));
            }
        }
        let on: Vec<&str> = OPTIONAL.into_iter().chain(["jobs"]).collect();
        let (text, succeeded, _) = poll(&on, &responses).await;
        assert!(succeeded, "{status}: {text}");
        for collector in OPTIONAL {
            assert_eq!(
                value(&text, &state(collector, "unlicensed")),
                Some(1.0),
                "{collector} {status}"
            );
        }
        let errors = text
            .lines()
            .filter(|line| line.starts_with("elements_exporter_api_errors_total"));
        let counted: Vec<&str> = errors.filter(|line| !line.ends_with(" 0")).collect();
        assert!(counted.is_empty(), "{counted:?}");
    }
}

/// Withdrawn consent and signs of ransomware appear in the exposition and on the pages.
#[tokio::test]
async fn withdrawn_consent_and_attack_are_exposed() {
    let settings = elements_exporter::simulator::Settings {
        customers: 14,
        hostile: false,
        ..crate::harness::partner::frozen_partner(14)
    };
    let partner = crate::harness::partner::start(settings).await;
    let switches = OPTIONAL.map(|name| format!("ELEMENTS_COLLECTORS__{}__ENABLED", name.to_uppercase()));
    let switches: Vec<(&str, &str)> = switches.iter().map(|name| (name.as_str(), "true")).collect();
    let program = Program::start(&partner.base, &[], &switches).await;
    let is_complete = |text: &str| {
        let errors = text
            .lines()
            .filter(|line| line.starts_with("elements_job_report_errors"));
        let polled_customers = |collector: &str| {
            let count = |state_name: &str| value(text, &state(collector, state_name)).unwrap_or_default();
            count("fresh") + count("unlicensed")
        };
        OPTIONAL.iter().all(|collector| polled_customers(collector) == 14.0) && errors.count() > 0
    };
    let text = program.wait_until("everything is polled", is_complete).await;
    let (withdrawn, attacked) = partner.handle.with_world(|world| {
        let id = |index: usize| world.customers[index].id.clone();
        (id(3), id(13))
    });
    let lines = |name: &str, customer: &str| -> Vec<String> {
        let of_customer = format!(r#"{name}{{customer_id="{customer}""#);
        let found = text.lines().filter(|line| line.starts_with(&of_customer));
        found.map(str::to_owned).collect()
    };
    let consent = lines("elements_tenant_app_consented", &withdrawn);
    assert!(
        consent
            .iter()
            .any(|line| line.contains("Office365Backup") && line.ends_with(" 0")),
        "{consent:?}"
    );
    let errors = lines("elements_job_report_errors", &withdrawn);
    let expected_error = r#"error="Consent to the app <name> was withdrawn in <link>. AADSTS#"#;
    assert!(
        !errors.is_empty() && errors.iter().all(|line| line.contains(expected_error)),
        "{errors:?}"
    );
    let signs = lines("elements_tenant_ransomware_objects", &attacked);
    let is_attack = |line: &&String| line.contains("potential_attack") && !line.ends_with(" 0");
    assert!(signs.iter().any(|line| is_attack(&line)), "{signs:?}");
    let page = program
        .get(&format!("/customers/{attacked}"))
        .await
        .text()
        .await
        .unwrap();
    let (signs, modules) = (
        page.find("Signs of ransomware").unwrap(),
        page.find(">Modules<").unwrap(),
    );
    assert!(signs < modules, "signs of ransomware must come first");
    let health = page.find("possibly under attack").unwrap();
    assert!(
        health < modules && !page.contains(">OK</span>"),
        "a customer under attack must not be OK"
    );
    let front = program.get("/?live=off").await.text().await.unwrap();
    let list = &front[front.find("class=\"customers card\"").unwrap()..];
    let first = list.find("<h3>").map(|at| &list[at..]).unwrap();
    let name = partner.handle.with_world(|world| world.customers[13].id.clone());
    assert!(
        first.split("</li>").next().unwrap().contains(&name),
        "a customer under attack must come first"
    );
    let page = program
        .get(&format!("/customers/{withdrawn}"))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        page.contains("Errors in the latest runs") && page.contains("Consent to the app &lt;name&gt; was withdrawn"),
        "{page}"
    );
    for name in [
        "elements_tenant_seats_assigned",
        "elements_tenant_users",
        "elements_tenant_baseline_status",
    ] {
        assert!(text.contains(&format!("\n{name}{{")), "{name}");
    }
}

/// Each page of a report is requested once. Requests after the first contain the page token from the previous page.
#[tokio::test]
async fn report_of_several_pages_is_requested_once() {
    let partner = crate::harness::partner::start(crate::harness::partner::frozen_partner(1)).await;
    let (id, run) = partner.handle.with_world(|world| {
        let customer = &mut world.customers[0];
        let module = customer.modules.iter_mut().find(|module| module.job_type == 7).unwrap();
        let mut run = module.runs.pop().unwrap();
        run.id = "EIB|7%".to_owned();
        (run.status, run.failed, run.successful, run.total) = (4, 2_300, 700, 3_000);
        run.end = run.end.or(run.start).or(Some(1_760_000_000));
        (run.skipped, run.warning, run.raw_fields) = (0, 0, Default::default());
        module.runs = vec![run.clone()];
        (customer.id.clone(), run)
    });
    let on = [
        ("ELEMENTS_COLLECTORS__JOB_REPORTS__ENABLED", "true"),
        ("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1s"),
    ];
    let program = Program::start(&partner.base, &[], &on).await;
    let failed = format!(r#"status="failed"}} {}"#, run.failed);
    let text = program
        .wait_until("the report is fetched", |text| {
            text.lines()
                .any(|line| line.starts_with("elements_job_report_objects") && line.ends_with(&failed))
        })
        .await;
    assert!(text.contains(&format!(r#"customer_id="{id}""#)));
    let requested = || {
        let requests = partner.handle.requests();
        let of_run = |path: &str| path.contains("/jobs/EIB") && path.ends_with("/report-details");
        requests.iter().filter(|request| of_run(&request.path)).count()
    };
    let lists = || {
        let requests = partner.handle.requests();
        requests
            .iter()
            .filter(|request| request.path.ends_with("/jobs/batch"))
            .count()
    };
    let (pages, before) = (requested(), lists());
    assert_eq!(pages, 3, "a page must contain a thousand rows");
    crate::harness::eventually("the jobs are listed two more times", || {
        let is_listed = lists() >= before + 2;
        async move { is_listed.then_some(()) }
    })
    .await;
    assert_eq!(requested(), pages, "a report must be requested only once");
}

/// An invalid response or a server error fails the poll. Neither counts as an empty list or a missing service.
#[tokio::test]
async fn invalid_response_is_a_failure() {
    let all_types = |status, body| {
        (0..4).map(move |number| {
            let path = format!("3rd-party-products/type/{number}/tenants/batch");
            (of_customer("POST", &path), status, body)
        })
    };
    for (status, body) in [
        (200, "<html>log in</html>"),
        (200, r#"{"data":[{"#),
        (200, r#"{"data":null}"#),
        (200, r#"{"error":{"code":"Busy"},"data":[]}"#),
        (500, "{}"),
    ] {
        let mut responses: Vec<(String, u16, &str)> = vec![
            (of_customer("POST", "avpt-products/jobs/batch"), 200, JOBS),
            (format!("POST {BASE}/bm/tenants/batch"), status, body),
        ];
        responses.extend(
            ["EIB1", "IB3"].map(|job| (of_customer("GET", &format!("jobs/{job}/report-details")), status, body)),
        );
        responses.extend(all_types(status, body));
        for tenant in ["t1", "t2"] {
            let users = format!("tenants/{tenant}/cloud-backup-m365/users/batch");
            responses.push((of_customer("POST", &users), status, body));
            let signs = format!(
                "{BASE}/wm/customers/{CUSTOMER_ID}/tenants/{tenant}/overview/data-protection/ransomware-detection"
            );
            responses.push((format!("GET {signs}"), status, body));
            let apps = format!("tenants/{tenant}/product/Office365Backup/apps");
            responses.push((of_customer("GET", &apps), status, body));
        }
        let on: Vec<&str> = OPTIONAL.into_iter().chain(["jobs"]).collect();
        let (text, succeeded, _) = poll(&on, &responses).await;
        assert!(!succeeded, "{status} {body}: {text}");
        for collector in OPTIONAL {
            assert_eq!(
                value(&text, &state(collector, "failed")),
                Some(1.0),
                "{collector} {status} {body}"
            );
        }
        for prefix in ["elements_job_report", "elements_tenant_"] {
            let exposed = samples(&text, prefix).replace("elements_tenant_info", "");
            assert!(!exposed.contains(prefix), "{body}: {exposed}");
        }
    }
}

const RANSOMWARE: &str = "overview/data-protection/ransomware-detection";

fn overview(tenant: &str) -> String {
    format!("GET {BASE}/wm/customers/{CUSTOMER_ID}/tenants/{tenant}/{RANSOMWARE}")
}

fn customers_with(tenants: &str) -> String {
    format!(
        r#"{{"data":[{{"id":"{CUSTOMER_ID}","organization":"Contoso","jobStatus":1,"managementMode":1{tenants}}}],
            "metadata":{{"pageIndex":1,"pageSize":100,"totalCount":1}}}}"#
    )
}

/// Long before the interval has passed, series of removed tenants disappear, and new tenants are polled.
#[tokio::test]
async fn tenants_follow_the_customer_list() {
    const LIST: &str = "POST /partner/external/v3/general/customers/batch";
    let canned = CannedServer::start(&[(LIST, CUSTOMERS)]).await;
    for tenant in ["t1", "t2", "t3"] {
        canned.set(&overview(tenant), 200, r#"{"teamsUnderPotentialRansomwareAttack":1}"#);
        let users = of_customer("POST", &format!("tenants/{tenant}/cloud-backup-m365/users/batch"));
        canned.set(
            &users,
            200,
            r#"{"data":[{"id":"u","moduleStatus":[{"module":0,"isProtected":true}]}]}"#,
        );
        let apps = of_customer("GET", &format!("tenants/{tenant}/product/Office365Backup/apps"));
        canned.set(&apps, 200, r#"[{"isConsent":true}]"#);
    }
    let seats = |tenants: &str| format!(r#"{{"data":[{tenants}]}}"#);
    let of_type = of_customer("POST", "3rd-party-products/type/0/tenants/batch");
    canned.set(
        &of_type,
        200,
        &seats(r#"{"tenantId":"t1","availableUserSeat":9,"assignedUserSeat":1},{"tenantId":"t2","availableUserSeat":9,"assignedUserSeat":1}"#),
    );
    let baselines = format!("POST {BASE}/bm/tenants/batch");
    canned.set(
        &baselines,
        200,
        &format!(r#"{{"data":[{{"customerId":"{CUSTOMER_ID}","tenantId":"t1","status":7,"driftDetected":1}},{{"customerId":"{CUSTOMER_ID}","tenantId":"t2","status":7,"driftDetected":1}}]}}"#),
    );
    let names = [
        "ransomware",
        "user_protection",
        "app_consent",
        "tenant_seats",
        "baselines",
    ];
    let switches = names.map(|name| {
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", name.to_uppercase());
        [(key("ENABLED"), "true"), (key("INTERVAL"), "12h")]
    });
    let mut extra_env: Vec<(&str, &str)> = switches
        .iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    extra_env.push(("ELEMENTS_COLLECTORS__APP_CONSENT__PRODUCTS", "Office365Backup"));
    let program = Program::start_collectors(&canned.base, &[], &extra_env).await;
    let families_of = |text: &str, tenant: &str| -> Vec<String> {
        let named = format!(r#"tenant_id="{tenant}""#);
        let lines = text
            .lines()
            .filter(|line| line.contains(&named) && !line.starts_with("elements_tenant_info"));
        let families = lines.filter_map(|line| Some(line.split_once('{')?.0.to_owned()));
        let families: std::collections::BTreeSet<String> = families.collect();
        families.into_iter().collect()
    };
    let all = [
        "elements_tenant_app_consented",
        "elements_tenant_baseline_status",
        "elements_tenant_drift_detected",
        "elements_tenant_ransomware_objects",
        "elements_tenant_seats_assigned",
        "elements_tenant_seats_available",
        "elements_tenant_users",
    ];
    program
        .wait_until("both tenants are polled", |text| {
            families_of(text, "t1") == all && families_of(text, "t2") == all
        })
        .await;
    // These requests now fail, so that no response removes the values.
    canned.set(&of_type, 500, "{}");
    canned.set(&baselines, 500, "{}");
    canned.set(
        LIST,
        200,
        &customers_with(r#","tenants":[{"id":"t2","name":"Two"},{"id":"t3","name":"Three"}]"#),
    );
    let joined = [
        "elements_tenant_app_consented",
        "elements_tenant_ransomware_objects",
        "elements_tenant_users",
    ];
    program
        .wait_until("one tenant is removed, and another is polled", |text| {
            families_of(text, "t1").is_empty() && families_of(text, "t2") == all && families_of(text, "t3") == joined
        })
        .await;
}

#[tokio::test]
async fn missing_tenant_list_does_not_mean_no_tenants() {
    const LIST: &str = "POST /partner/external/v3/general/customers/batch";
    let too_many_tenants: Vec<String> = (0..501)
        .map(|number| format!(r#"{{"id":"m{number}","name":"M"}}"#))
        .collect();
    let too_many_tenants = format!(r#","tenants":[{}]"#, too_many_tenants.join(","));
    for (tenants, is_success) in [
        ("", false),
        (r#","tenants":null"#, false),
        (r#","tenants":[{"name":"nameless"}]"#, false),
        (too_many_tenants.as_str(), false),
        (r#","tenants":[]"#, true),
    ] {
        let responses = [
            (LIST.to_owned(), 200, customers_with(tenants)),
            (overview("m0"), 200, r#"{"teamsWithSuspiciousObjects":0}"#.to_owned()),
        ];
        let responses = responses
            .each_ref()
            .map(|(line, status, body)| (line.clone(), *status, body.as_str()));
        let (text, succeeded, _) = poll(&["ransomware"], &responses).await;
        assert_eq!(succeeded, is_success, "{tenants:.60}: {text}");
        let fresh = value(&text, &state("ransomware", "fresh"));
        let unlicensed = value(&text, &state("ransomware", "unlicensed"));
        assert_eq!(fresh == Some(1.0), is_success, "{tenants:.60} {unlicensed:?}");
    }
}

#[tokio::test]
async fn ransomware_signs_are_summed_over_objects() {
    let (text, succeeded, _) = poll(
        &["ransomware"],
        &[
            (
                overview("t1"),
                200,
                r#"[{"teamsUnderPotentialRansomwareAttack":0},{"teamsUnderPotentialRansomwareAttack":2}]"#,
            ),
            (overview("t2"), 404, "{}"),
        ],
    )
    .await;
    assert!(succeeded, "{text}");
    let exposed = samples(&text, "elements_tenant_ransomware_objects");
    assert!(exposed.contains(r#"sign="potential_attack"} 2"#), "{exposed}");
}

/// Customers without a service are polled at most once a day, even if the exporter is restarted.
#[tokio::test]
async fn missing_services_are_kept_across_a_restart() {
    let canned = CannedServer::start(&[("POST /partner/external/v3/general/customers/batch", CUSTOMERS)]).await;
    for tenant in ["t1", "t2"] {
        canned.set(&overview(tenant), 403, "{}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let extra_env = [
        ("ELEMENTS_COLLECTORS__RANSOMWARE__ENABLED", "true"),
        ("ELEMENTS_STATE__FILE", file.to_str().unwrap()),
    ];
    let unlicensed = |text: &str| value(text, &state("ransomware", "unlicensed")) == Some(1.0);
    let count_requests = || {
        let requests = canned.requests();
        requests
            .iter()
            .filter(|request| request.line.contains(RANSOMWARE))
            .count()
    };
    let program = Program::start_collectors(&canned.base, &[], &extra_env).await;
    program.wait_until("the customer lacks the service", unlicensed).await;
    program.terminate().await;
    let before = count_requests();
    let program = Program::start_collectors(&canned.base, &[], &extra_env).await;
    let lists = || {
        let requests = canned.requests();
        requests
            .iter()
            .filter(|request| request.line.contains("/general/customers/batch"))
            .count()
    };
    let listed = lists();
    crate::harness::eventually("customers are listed two more times", || {
        let is_listed = lists() >= listed + 2;
        async move { is_listed.then_some(()) }
    })
    .await;
    assert!(unlicensed(&program.metrics().await));
    assert_eq!(count_requests(), before);
}

/// A revoked permission is reported even if every customer lacks the service.
#[tokio::test]
async fn revoked_permission_is_not_a_missing_service() {
    use elements_exporter::simulator::{Fault, FaultKind};
    let partner = crate::harness::partner::start(crate::harness::partner::frozen_partner(3)).await;
    let forbidden = FaultKind::Status { code: 403, body: None };
    partner
        .handle
        .set_faults(vec![Fault::new("*/ransomware-detection", forbidden)]);
    let on = [("ELEMENTS_COLLECTORS__RANSOMWARE__ENABLED", "true")];
    let program = Program::start_collectors(&partner.base, &["jobs"], &on).await;
    program
        .wait_until("all customers lack the service", |text| {
            value(text, &state("ransomware", "unlicensed")) == Some(3.0)
        })
        .await;
    let granted = ["customers", "jobs"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(granted.into());
    partner.handle.revoke_tokens();
    program
        .wait_until("the permission is missing", |text| {
            value(text, r#"elements_exporter_collector_permitted{collector="ransomware"}"#) == Some(0.0)
                && value(text, &state("ransomware", "unlicensed")) == Some(0.0)
        })
        .await;
}

/// The next poll of `jobs` is an hour away, but the runs are already in the store, so the reports can be polled
/// immediately.
#[tokio::test]
async fn job_reports_enabled_by_a_reload_are_polled_immediately() {
    let partner = crate::harness::partner::start(crate::harness::partner::frozen_partner(14)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("elements.yml");
    let enable = |value: bool| {
        let text = format!("collectors:\n  job_reports:\n    enabled: {value}\n");
        std::fs::write(&file, text).unwrap();
    };
    enable(false);
    let slow = [("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1h")];
    let variables = crate::harness::every_second(&partner.base, &["jobs"], &slow);
    let arguments = [
        "--web.listen-address=127.0.0.1:0",
        "--config.file",
        file.to_str().unwrap(),
    ];
    let program = Program::start_with(variables, &arguments).await;
    program
        .wait_until("all jobs are polled", |text| {
            crate::harness::fresh(text, "jobs") == Some(14.0)
        })
        .await;
    enable(true);
    program.signal("HUP");
    program
        .wait_until("reports are polled", |text| {
            text.contains("\nelements_job_report_errors{")
        })
        .await;
}
