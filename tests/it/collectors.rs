//! Expositions for given JSON responses, by collector and API version. Data that both versions provide must result in
//! the same text.
//!
//! This file is long, because the fixtures of both API versions are side by side.

use crate::harness::canned::CannedServer;
use crate::harness::program::Program;
use crate::harness::{about_customers, assert_expected, config, eventually, poll_once_validated, value};

const ID: &str = "00427fbc-8832-46cf-a1d2-582fa46ec638";

const V1_CUSTOMERS: &str = r#"{"@odata.context":"…","value":[{"id":"00427fbc-8832-46cf-a1d2-582fa46ec638",
    "organization":"AvePoint test","ownerEmail":"aptest***s8@avepoint.com","jobStatus":"Working",
    "countryOrRegion":"Vietnam"}]}"#;

const V3_CUSTOMERS: &str = r#"{"data":[{"id":"00427fbc-8832-46cf-a1d2-582fa46ec638",
    "organization":"AvePoint test","ownerEmail":"aptest***s8@avepoint.com","jobStatus":1,
    "countryOrRegion":"Vietnam","managementMode":1,
    "tenants":[{"id":"t1","name":"One"},{"id":"t2","name":"Two"}]}],
    "metadata":{"pageIndex":1,"pageSize":100,"totalCount":1}}"#;

/// Polls once with the collector `customers` and one other collector, using one API version. Returns the exposition,
/// and whether every poll succeeded.
async fn poll(
    collector: &str,
    generation: &str,
    responses: &[(&str, &str)],
    extra_env: &[(&str, &str)],
) -> (String, bool) {
    let (text, succeeded, _) = poll_with_requests(collector, generation, responses, extra_env).await;
    (text, succeeded)
}

async fn poll_with_requests(
    collector: &str,
    generation: &str,
    responses: &[(&str, &str)],
    extra_env: &[(&str, &str)],
) -> (String, bool, CannedServer) {
    let canned = CannedServer::start(&[
        ("GET /partner/customers", V1_CUSTOMERS),
        ("POST /partner/external/v3/general/customers/batch", V3_CUSTOMERS),
    ])
    .await;
    for (line, body) in responses {
        canned.set(line, 200, body);
    }
    let switches: Vec<(String, &str)> = ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"]
        .into_iter()
        .map(|name| {
            let switch = format!("ELEMENTS_COLLECTORS__{}__ENABLED", name.to_uppercase());
            (switch, if name == collector { "true" } else { "false" })
        })
        .collect();
    let mut all: Vec<(&str, &str)> = switches.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    all.push(("ELEMENTS_API__VERSION", generation));
    all.extend_from_slice(extra_env);
    let (text, succeeded) = poll_once_validated(&config(&canned.base, &all)).await;
    (text, succeeded, canned)
}

/// Removes the ` //` comments from a JSON sample in the vendor's documentation.
fn without_comments(sample: &str) -> String {
    let lines = sample.lines().map(|line| line.split(" //").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn customers_are_equal_in_both_api_versions() {
    let (v1, succeeded) = poll("customers", "v1", &[], &[]).await;
    assert!(succeeded);
    let (v3, succeeded) = poll("customers", "v3", &[], &[]).await;
    assert!(succeeded);
    assert_expected("customers", &about_customers(&v3));
    // At this endpoint, API v1 provides neither the management mode nor the tenants.
    let v3 = about_customers(&v3).replace(r#"management_mode="partner""#, r#"management_mode="""#);
    let v3: String = v3
        .lines()
        .filter(|line| !line.starts_with("elements_customer_tenants") && !line.starts_with("elements_tenant_info"))
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert_eq!(about_customers(&v1), v3);
    assert!(!v1.contains('@'), "owner addresses must not be exported by default");
}

#[tokio::test]
async fn owner_address_is_a_label_only_if_enabled() {
    let (text, _) = poll("customers", "v1", &[], &[("ELEMENTS_METRICS__OWNER_EMAIL", "true")]).await;
    assert!(text.contains(r#"owner_email="aptest***s8@avepoint.com"} 1"#), "{text}");
}

#[tokio::test]
async fn vendor_sample_of_a_customer_is_parsed() {
    let sample = without_comments(
        r#"{
    "@odata.context": "https://graph.avepointonlineservices.com/partner/$metadata#Customers/$entity",
    "id": "00427fbc-8832-46cf-a1d2-582fa46ec638", // The tenant owner ID of the customer
    "organization": "AvePoint test", // The organization name of the customer
    "ownerEmail": "aptest***s8@avepoint.com", // The tenant owner email address of the customer
    "jobStatus": "Working", // The status of the customer’s tenant
    "countryOrRegion": "Vietnam" // The country or region name of the customer.
}"#,
    );
    let path = format!("GET /partner/customers/{ID}");
    let responses = [(path.as_str(), sample.as_str())];
    let only = [("ELEMENTS_CUSTOMERS__INCLUDE", ID)];
    let (text, succeeded, canned) = poll_with_requests("customers", "v1", &responses, &only).await;
    assert!(succeeded, "{text}");
    let lines: Vec<_> = canned.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, [path], "only the configured customer must be requested");
    assert_eq!(
        value(&text, &format!(r#"elements_customer_status{{customer_id="{ID}"}}"#)),
        Some(1.0)
    );
    assert_eq!(value(&text, "elements_up"), Some(1.0));
}

#[tokio::test]
async fn vendor_sample_of_a_job_list_has_no_runs() {
    let sample = without_comments(
        r#"{
    "@odata.context": "https://graph.avepointonlineservices.com/partner/$metadata#Collection(Portal.Api.Model.BackUpJob)",
    "value": [
        {
            "jobType": "Microsoft 365", // The service type of the job
            "jobModule": "SharePoint Online", // The service module of the job
            "status": "Not Finished", // The job status
            "jobId": "N/A", // The job ID
            "name": "N/A", // The job name
            "totalCount": "0", // The count of the objects that have been processed by the job
            "failedCount": "0", // The count of the failed objects
            "successfulCount": "0", // The count of the successful objects
            "skippedCount": "0", // The count of the skipped objects
            "warningCount": "0", // The count of the warning objects
            "backupSize": "0 GB", // The size of the backed-up objects
            "startTime": "N/A", // The start time of the job
            "endTime": "N/A", // The end time of the job
            "jobDuration": "N/A", // The job duration
            "lastModifyTime": "N/A" // The last modified time of the job
        },
        {
            "jobType": "Microsoft 365",
            "jobModule": "Exchange Online",
            "status": "Not Finished",
            "jobId": "N/A",
            "name": "N/A",
            "totalCount": "0",
            "failedCount": "0",
            "successfulCount": "0",
            "skippedCount": "0",
            "warningCount": "0",
            "backupSize": "0 GB",
            "startTime": "N/A",
            "endTime": "N/A",
            "jobDuration": "N/A",
            "lastModifyTime": "N/A"
        }
    ]
}"#,
    );
    let path = format!("GET /partner/customers/{ID}/jobs");
    let (text, succeeded) = poll("jobs", "v1", &[(&path, &sample)], &[]).await;
    assert!(succeeded);
    assert_expected("jobs_never_ran", &about_customers(&text));
}

/// Runs with words as statuses and strings as counts. [`V3_JOBS`] contains the same runs, mostly with numbers.
const V1_JOBS: &str = r#"{"value":[
    {"jobType":"Microsoft 365","jobModule":"Exchange Online","status":"Successful","jobId":"EX1","name":"daily",
     "totalCount":"2323","failedCount":"0","successfulCount":"2323","skippedCount":"0","warningCount":"0",
     "backupSize":"5.01 GB","startTime":"2025-09-11T03:03:37Z","endTime":"2025-09-11T03:21:16Z",
     "jobDuration":"17m39s","lastModifyTime":"2025-09-11T03:21:16Z"},
    {"jobType":"Microsoft 365","jobModule":"Exchange Online","status":"In Progress","jobId":"EX2","name":"daily",
     "totalCount":"10","failedCount":"0","successfulCount":"10","skippedCount":"0","warningCount":"0",
     "backupSize":"N/A","startTime":"2025-09-12T03:00:00Z","endTime":"N/A","jobDuration":"N/A",
     "lastModifyTime":"2025-09-12T03:05:00Z"},
    {"jobType":"Microsoft 365","jobModule":"Microsoft 365 Group","status":"Finished with Exception","jobId":"N/A",
     "name":"N/A","totalCount":"1,234","failedCount":"4","successfulCount":"1,220","skippedCount":"6",
     "warningCount":"4","backupSize":"3072 GB","startTime":"09/11/2025 01:00:00","endTime":"09/11/2025 02:30:00",
     "jobDuration":"1h30m","lastModifyTime":"2025-09-11T02:30:00.5000000Z"},
    {"jobType":"IaaS PaaS","jobModule":"Azure Virtual Machine","status":"Failed","jobId":"VM9","totalCount":"3",
     "failedCount":"0","successfulCount":"0","skippedCount":"0","warningCount":"3","backupSize":"",
     "startTime":"2025-09-11T00:00:00+00:00","endTime":"2025-09-11T00:10:00+00:00","jobDuration":"00:10:00",
     "lastModifyTime":null}]}"#;

const V3_JOBS: &str = r#"{"data":[
    {"jobType":12,"jobModule":356,"status":3,"jobId":"VM9","totalCount":3,"failedCount":0,"successfulCount":0,
     "skippedCount":0,"warningCount":3,"backupSize":null,"startTime":"2025-09-11T00:00:00.0000000Z",
     "endTime":"2025-09-11T00:10:00.0000000Z","jobDuration":"10m"},
    {"jobType":7,"jobModule":303,"status":1,"jobId":"EX2","name":"daily","totalCount":10,"failedCount":0,"successfulCount":10,
     "skippedCount":0,"warningCount":0,"backupSize":"N/A","startTime":"2025-09-12T03:00:00.0000000Z",
     "endTime":"N/A","jobDuration":"N/A","lastModifyTime":"2025-09-12T03:05:00.0000000Z"},
    {"jobType":7,"jobModule":303,"status":2,"jobId":"EX1","name":"daily","totalCount":2323,"failedCount":"0",
     "successfulCount":"2323","skippedCount":0,"warningCount":0,"backupSize":"5.01GB",
     "startTime":"2025-09-11T03:03:37.0000000Z","endTime":"2025-09-11T03:21:16.0000000Z","jobDuration":"17m 39s",
     "lastModifyTime":"2025-09-11T03:21:16.0000000Z"},
    {"jobType":"7","jobModule":"304","status":"4","jobId":"N/A","totalCount":1234,"failedCount":4,
     "successfulCount":1220,"skippedCount":6,"warningCount":4,"backupSize":"3 tb",
     "startTime":"2025-09-11T01:00:00Z","endTime":"2025-09-11T02:30:00Z","jobDuration":"90m",
     "lastModifyTime":"2025-09-11T02:30:00.5Z"}],
    "metadata":{"pageIndex":1,"pageSize":100,"totalCount":4}}"#;

/// The same runs in the format of the oldest documentation: field names in PascalCase, counts as integers.
const OLDEST_JOBS: &str = r#"{"value":[
    {"JobType":"Microsoft 365","JobModule":"Exchange Online","Status":"Finished","JobId":"EX1","Name":"daily",
     "TotalCount":2323,"FailedCount":0,"SuccessfulCount":2323,"SkippedCount":0,"WarningCount":0,
     "BackupSize":"5.01 GB","StartTime":"2025-09-11T03:03:37Z","EndTime":"2025-09-11T03:21:16Z",
     "JobDuration":"17m39s","LastModifyTime":"2025-09-11T03:21:16Z"},
    {"JobType":"Microsoft 365","JobModule":"Exchange Online","Status":"Not Finished","JobId":"EX2","Name":"daily",
     "TotalCount":10,"FailedCount":0,"SuccessfulCount":10,"SkippedCount":0,"WarningCount":0,"BackupSize":"N/A",
     "StartTime":"2025-09-12T03:00:00Z","EndTime":"N/A","JobDuration":"N/A","LastModifyTime":"2025-09-12T03:05:00Z"},
    {"JobType":"Microsoft 365","JobModule":"Microsoft 365 Groups","Status":"Finished with exception","JobId":"N/A",
     "TotalCount":1234,"FailedCount":4,"SuccessfulCount":1220,"SkippedCount":6,"WarningCount":4,
     "BackupSize":"3072 GB","StartTime":"2025-09-11T01:00:00","EndTime":"2025-09-11T02:30:00","JobDuration":"1h 30m",
     "LastModifyTime":"2025-09-11T02:30:00.5000000Z"},
    {"JobType":"IaaS + PaaS","JobModule":"Azure Virtual Machine","Status":"Failed","JobId":"VM9","TotalCount":3,
     "FailedCount":0,"SuccessfulCount":0,"SkippedCount":0,"WarningCount":3,"BackupSize":"N/A",
     "StartTime":"2025-09-11T00:00:00Z","EndTime":"2025-09-11T00:10:00Z","JobDuration":"10m0s"}]}"#;

#[tokio::test]
async fn jobs_are_equal_in_both_api_versions() {
    let v1 = format!("GET /partner/customers/{ID}/jobs");
    let v3 = format!("POST /partner/external/v3/general/customers/{ID}/avpt-products/jobs/batch");
    let overrides = r#"[{"module":"Azure*","rpo":"none"},{"service":7,"module":303,"rpo":"12h"}]"#;
    let rpo = [("ELEMENTS_RPO__OVERRIDES", overrides)];
    let mut texts = Vec::new();
    for (generation, path, body) in [("v1", &v1, V1_JOBS), ("v3", &v3, V3_JOBS), ("v1", &v1, OLDEST_JOBS)] {
        let (text, succeeded) = poll("jobs", generation, &[(path, body)], &rpo).await;
        assert!(succeeded, "{text}");
        let jobs: String = about_customers(&text)
            .lines()
            .filter(|line| line.starts_with("elements_job"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        texts.push(jobs);
    }
    assert_expected("jobs", &texts[0]);
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
}

#[tokio::test]
async fn selected_jobs_are_requested_by_type_and_module() {
    let selection = [
        ("ELEMENTS_COLLECTORS__JOBS__JOB_TYPES", "Microsoft 365, 12"),
        (
            "ELEMENTS_COLLECTORS__JOBS__JOB_MODULES",
            "Exchange Online,Azure Virtual Machine",
        ),
    ];
    let exchange = format!("GET /partner/customers/{ID}/jobs/jobType/Microsoft%20365/jobModule/Exchange%20Online");
    let machines = format!("GET /partner/customers/{ID}/jobs/jobType/IaaS%20PaaS/jobModule/Azure%20Virtual%20Machine");
    let responses = [(exchange.as_str(), V1_JOBS), (machines.as_str(), r#"{"value":[]}"#)];
    let (text, succeeded, canned) = poll_with_requests("jobs", "v1", &responses, &selection).await;
    assert!(succeeded, "{text}");
    let mut lines: Vec<_> = canned.requests().into_iter().map(|request| request.line).collect();
    lines.sort();
    assert_eq!(lines, ["GET /partner/customers".to_owned(), machines, exchange]);
    assert!(
        !text.contains("Groups"),
        "modules that are not selected must not be exposed"
    );

    let path = format!("POST /partner/external/v3/general/customers/{ID}/avpt-products/jobs/batch");
    let (text, succeeded, canned) = poll_with_requests("jobs", "v3", &[(&path, V3_JOBS)], &selection).await;
    assert!(succeeded, "{text}");
    let mut bodies: Vec<_> = canned
        .requests()
        .into_iter()
        .filter(|request| request.line.contains("jobs"))
        .map(|request| request.body)
        .collect();
    bodies.sort();
    assert_eq!(
        bodies,
        [r#"{"jobModule":303,"jobType":7}"#, r#"{"jobModule":356,"jobType":12}"#]
    );
}

#[tokio::test]
async fn older_base_path_can_be_configured() {
    let older = [("ELEMENTS_API__V1_BASE_PATH", "/partner/api/V1.1")];
    let responses = [("GET /partner/api/V1.1/customers", V1_CUSTOMERS)];
    let (text, succeeded) = poll("customers", "v1", &responses, &older).await;
    assert!(succeeded, "{text}");
}

#[tokio::test]
async fn vendor_sample_of_protected_data_is_parsed() {
    let sample = without_comments(
        r#"{
"@odata.context": "https://graph.avepointonlineservices.com/partner/$metadata#Collection(Portal.Api.Model.CustomerOverallProtected)",
"value": [
{
"customerId": "caf94a75-2cc6-43aa-b04b-794cb9af5ea3", // The tenant owner ID of the customer
"customer": "APtest_AOSP_OOP_BothCB365ServiceAndExpress@commercial.com", // The tenant owner email address of the customer
"serviceType": "Cloud Backup for Microsoft 365", // The Cloud Backup for Microsoft 365 service that the customer has the subscription for
"serviceModule": "Exchange Online", // The module of the customer’s Cloud Backup for Microsoft 365 service
"totalScannedObjects": 0, // The number of the scanned objects
"totalProtectedObjects": 0, // The number of the backed-up objects
"dataSizeStoredInAvePoint": "0 GB", // The size of the backed-up objects stored in the AvePoint storage
"dataSizeStoredInBYOS": "N/A" // The size of the backed-up objects stored in BYOS
},
{
"customerId": "caf94a75-2cc6-43aa-b04b-794cb9af5ea3",
"customer": "APtest_AOSP_OOP_BothCB365ServiceAndExpress@commercial.com",
"serviceType": "Cloud Backup for Microsoft 365",
"serviceModule": "Microsoft 365 Group",
"totalScannedObjects": 0,
"totalProtectedObjects": 0,
"dataSizeStoredInAvePoint": "0 GB",
"dataSizeStoredInBYOS": "N/A"
}
]
}"#,
    );
    let v1 = format!("GET /partner/customers/{ID}/protected");
    let (text, succeeded) = poll("protected", "v1", &[(&v1, &sample)], &[]).await;
    assert!(succeeded, "{text}");
    let v3 = format!("GET /partner/external/v3/general/customers/{ID}/cloud-backup-m365/overview");
    let body = r#"[{"serviceType":7,"serviceModule":303,"totalScannedObjects":"0","totalProtectedObjects":0,
        "dataSizeStoredInAvePoint":"0 GB","dataSizeStoredInBYOS":"N/A"},{"serviceType":"Microsoft 365",
        "serviceModule":"Microsoft 365 Groups","totalScannedObjects":0,"totalProtectedObjects":0,
        "dataSizeStoredInAvePoint":"0GB"}]"#;
    let (other, succeeded) = poll("protected", "v3", &[(&v3, body)], &[]).await;
    assert!(succeeded, "{other}");
    let protected = |text: &str| crate::harness::samples(text, "elements_protected");
    assert_expected("protected", &protected(&text));
    assert_eq!(protected(&text), protected(&other));
}

#[tokio::test]
async fn tenants_of_a_customer_are_counted_once() {
    for (tenants, expected) in [
        (r#","tenants":[]"#, Some(0.0)),
        ("", None),
        (r#","tenants":null"#, None),
        (
            r#","tenants":[{"id":"caf94a75-2cc6-43aa-b04b-794c8baf5ea3","name":""},{"id":"CAF94A75-2CC6-43AA-B04B-794C8BAF5EA3","name":"A"},
            {"name":"without an id"}]"#,
            Some(2.0),
        ),
    ] {
        let body =
            format!(r#"{{"data":[{{"id":"{ID}","organization":"One"{tenants}}}],"metadata":{{"totalCount":1}}}}"#);
        let path = "POST /partner/external/v3/general/customers/batch";
        let (text, succeeded) = poll("customers", "v3", &[(path, &body)], &[]).await;
        assert!(succeeded, "{text}");
        let count = value(&text, &format!("elements_customer_tenants{{customer_id=\"{ID}\"}}"));
        assert_eq!(count, expected, "{tenants}");
        let infos = crate::harness::samples(&text, "elements_tenant_info");
        let one = format!(
            "elements_tenant_info{{customer_id=\"{ID}\",tenant_id=\"caf94a75-2cc6-43aa-b04b-794c8baf5ea3\",tenant_name=\"A\"}} 1\n"
        );
        assert_eq!(
            infos,
            if expected == Some(2.0) { one } else { String::new() },
            "{tenants}"
        );
    }
}

#[tokio::test]
async fn protected_data_is_exposed_per_tenant() {
    let row = |fields: &str, protected: u32| {
        format!(
            r#"{{"serviceType":"Microsoft 365","serviceModule":"Exchange Online","totalScannedObjects":10,
            "totalProtectedObjects":{protected},"dataSizeStoredInAvePoint":"1 GB"{fields}}}"#
        )
    };
    let rows = [
        row("", 9),
        row(r#","tenantId":"T1","lastRunTime":"09/20/2026T13:00:00Z""#, 8),
        row(r#","tenantId":"T1","lastRunTime":"09/21/2026T13:00:00Z""#, 3),
        row(r#","tenantId":"T2","lastRunTime":1790000000000"#, 10),
        row(r#","tenantId":"N/A""#, 9),
    ];
    let body = format!(r#"{{"data":[{}],"metadata":{{"totalCount":5}}}}"#, rows.join(","));
    let path = format!("GET /partner/external/v3/general/customers/{ID}/cloud-backup-m365/overview");
    let (text, succeeded) = poll("protected", "v3", &[(&path, &body)], &[]).await;
    assert!(succeeded, "{text}");
    assert_expected(
        "protected_tenants",
        &crate::harness::samples(&text, "elements_protected"),
    );
    let duplicates = r#"elements_exporter_duplicate_rows_total{endpoint="protected"}"#;
    assert_eq!(value(&text, duplicates), Some(2.0));
}

#[tokio::test]
async fn tenants_of_protected_data_are_limited() {
    let rows: Vec<String> = (0..10_001)
        .map(|n| format!(r#"{{"serviceType":7,"serviceModule":303,"totalScannedObjects":1,"tenantId":"t{n}"}}"#))
        .collect();
    let path = format!("GET /partner/customers/{ID}/protected");
    let body = format!(r#"{{"value":[{}]}}"#, rows.join(","));
    let (text, succeeded) = poll("protected", "v1", &[(&path, &body)], &[]).await;
    assert!(!succeeded, "a truncated response must fail the poll");
    let count_series = crate::harness::samples(&text, "elements_protected_scanned_objects");
    assert_eq!(count_series.lines().count(), 10_000);
    let counted = r#"elements_exporter_decode_errors_total{endpoint="protected",field="tenantId"}"#;
    assert_eq!(value(&text, counted), Some(1.0));
}

/// A pooled subscription, and two subscriptions to the same service.
const PRODUCTS: &str = r#"[
    {"service":"Cloud Backup for Microsoft 365","subscriptionModel":"User based","purchasedUserSeats":"1,250",
     "purchasedUnits":"1","microsoftLicenseAssigned":"1100","microsoftLicenseAvailable":"150",
     "purchasedCapacity":"N/A","protectedCapacity":"812.5 GB","storage":"AvePoint Storage","retention":"1 year",
     "consumedStorage":"1.5 TB","expirationDate":"2026-12-29","change":"+12","source":"Direct",
     "paymentType":"Annual","subscriptionName":"N/A","package":"Premium","contractEndDate":"12/29/2026"},
    {"service":"Cloud Backup for Microsoft 365","subscriptionModel":"User based","purchasedUserSeats":"5",
     "storage":"BYOS","retention":"Unlimited","expirationDate":"2025-09-26T00:00:00Z","change":"-3",
     "source":"Pooled","paymentType":"Monthly","package":"Basic","contractEndDate":"2025/09/30"},
    {"service":"Fly","subscriptionModel":"Capacity based","purchasedUserSeats":"N/A","purchasedCapacity":"0/1 GB",
     "consumedStorage":"0 GB","expirationDate":"N/A","change":"N/A","subscriptionName":"Migration",
     "source":"Pooled"}]"#;

#[tokio::test]
async fn licenses_are_equal_in_both_api_versions() {
    let v1 = format!(
        r#"{{"value":[{{"customerId":"{ID}","organization":"AvePoint test","customer":"a***b@example.com",
        "tenantId":"t1, t2","products":{PRODUCTS}}}]}}"#
    );
    let v3 = format!(
        r#"{{"data":[{{"customerId":"{ID}","organization":"AvePoint test","Products":{PRODUCTS}}}],
        "metadata":{{"totalCount":1}}}}"#
    );
    let path = "POST /partner/external/v3/general/customers/services/batch";
    let (one, succeeded) = poll("licenses", "v1", &[("GET /partner/services", &v1)], &[]).await;
    assert!(succeeded, "{one}");
    let (other, succeeded) = poll("licenses", "v3", &[(path, &v3)], &[]).await;
    assert!(succeeded, "{other}");
    let licenses = |text: &str| crate::harness::samples(text, "elements_license");
    assert_expected("licenses", &licenses(&one));
    assert_eq!(licenses(&one), licenses(&other));
    let tenants = |text: &str| crate::harness::samples(text, "elements_customer_tenants");
    assert_eq!(
        tenants(&one),
        tenants(&other),
        "both API versions must report the same tenants"
    );
    assert_eq!(
        tenants(&one),
        format!("elements_customer_tenants{{customer_id=\"{ID}\"}} 2\n")
    );
    let infos = |text: &str| crate::harness::samples(text, "elements_tenant_info");
    let nameless = infos(&other).replace("\"One\"", "\"\"").replace("\"Two\"", "\"\"");
    assert_eq!(
        infos(&one),
        nameless,
        "API v1 must report the same tenants, but without names"
    );
    assert_eq!(infos(&one).lines().count(), 2);
}

#[tokio::test]
async fn licenses_are_filtered_and_marked_by_product() {
    let product = |service: &str, package: &str| {
        format!(
            r#"{{"service":"{service}","package":"{package}","purchasedUserSeats":"5",
            "expirationDate":"12-31-2026T12:00:00Z"}}"#
        )
    };
    let products = [
        product("Cloud Backup for Salesforce® - Backup", "N/A"),
        product("Cloud Backup for Microsoft 365 - Power Platform", "A"),
        product("Cloud Backup for Microsoft 365 - Power Platform", "B"),
        product("tyGraph - Microsoft", "N/A"),
    ];
    let body = format!(
        r#"{{"value":[{{"customerId":"{ID}","products":[{}]}}]}}"#,
        products.join(",")
    );
    let responses = [("GET /partner/services", body.as_str())];
    let only = |services: &'static str| [("ELEMENTS_COLLECTORS__LICENSES__SERVICES", services)];
    let infos = |text: &str| crate::harness::samples(text, "elements_license_info");
    let (all, succeeded) = poll("licenses", "v1", &responses, &[]).await;
    assert!(succeeded, "{all}");
    let marked = |text: &str| {
        infos(text)
            .lines()
            .filter(|line| line.contains(r#",backup="true"} 1"#))
            .count()
    };
    assert_eq!((infos(&all).lines().count(), marked(&all)), (4, 3), "{all}");
    assert_eq!(all.matches("backup=").count(), 3, "{all}");
    let end = "elements_license_expiration_timestamp_seconds";
    assert!(
        crate::harness::samples(&all, end)
            .lines()
            .all(|line| line.ends_with(" 1798718400"))
    );
    // The label that distinguishes subscriptions does not depend on which other services are selected.
    for services in [
        "Cloud Backup for Salesforce - *",
        "cloud backup for salesforce® - backup",
    ] {
        let (some, _) = poll("licenses", "v1", &responses, &only(services)).await;
        assert_eq!(infos(&some).lines().count(), 1, "{services}: {some}");
    }
    let (some, _) = poll("licenses", "v1", &responses, &only("* - Power Platform")).await;
    let of_all: Vec<_> = all.lines().filter(|line| line.contains("Power Platform")).collect();
    let of_some: Vec<_> = some
        .lines()
        .filter(|line| line.starts_with("elements_license"))
        .collect();
    assert_eq!(of_some, of_all);
    assert!(!infos(&some).contains(r#"license="""#), "{some}");
    let marks = [("ELEMENTS_COLLECTORS__LICENSES__BACKUP_SERVICES", "tyGraph*")];
    let (other, _) = poll("licenses", "v1", &responses, &marks).await;
    assert_eq!((infos(&other).lines().count(), marked(&other)), (4, 1));
}

#[tokio::test]
async fn excluded_metrics_are_not_exposed() {
    let excluded = "elements_customer_*,elements_exporter_collector_success,elements_exporter_token_failures_total,\
        elements_exporter_api_request_duration_seconds,process_*,elements_up,elements_exporter_build_info,no_such_*";
    let all = poll("customers", "v3", &[], &[]).await.0;
    let text = poll("customers", "v3", &[], &[("ELEMENTS_METRICS__EXCLUDE", excluded)])
        .await
        .0;
    let names = |text: &str, prefix: &str| -> std::collections::BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect()
    };
    let is_excluded = |name: &String| {
        let families = ["elements_customer_", "process_"];
        let names = excluded.split(',').map(str::trim);
        families.iter().any(|family| name.starts_with(family)) || names.into_iter().any(|other| other == name.as_str())
    };
    for prefix in ["# HELP ", "# TYPE "] {
        let mut expected = names(&all, prefix);
        expected.retain(|name| !is_excluded(name));
        assert_eq!(names(&text, prefix), expected);
    }
    for excluded in [
        "elements_customer_info",
        "process_",
        "token_failures",
        "request_duration",
        "elements_up",
    ] {
        assert!(all.contains(excluded) && !text.contains(excluded), "{excluded}: {text}");
    }
    let series = |text: &str| value(text, "elements_exporter_series").unwrap();
    let count_series = |text: &str| {
        let freshness = crate::harness::samples(text, "elements_exporter_collector_success")
            .lines()
            .count()
            + crate::harness::samples(text, "elements_exporter_collector_last")
                .lines()
                .count();
        about_customers(text).lines().count() + freshness
    };
    for text in [&all, &text] {
        assert_eq!(
            series(text),
            f64::from(u32::try_from(count_series(text)).unwrap()),
            "{text}"
        );
    }
    assert!(series(&text) < series(&all));
}

#[tokio::test]
async fn license_labels_do_not_depend_on_the_order_of_rows() {
    let products: Vec<serde_json::Value> = serde_json::from_str(PRODUCTS).unwrap();
    let mut texts = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let shuffled: Vec<_> = order.iter().map(|place| &products[*place]).collect();
        let body = serde_json::json!({ "value": [{ "customerId": ID, "products": shuffled }] }).to_string();
        let (text, _) = poll("licenses", "v1", &[("GET /partner/services", &body)], &[]).await;
        texts.push(crate::harness::samples(&text, "elements_license"));
    }
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
}

#[tokio::test]
async fn scan_profiles_are_equal_in_both_api_versions() {
    let base = format!("/partner/customers/{ID}/scanProfiles");
    let v3_base = format!("/partner/external/v3/general/customers/{ID}/scan-profiles");
    let (v1_list, v1_one) = (format!("GET {base}"), format!("GET {base}/p-1"));
    let (v3_list, v3_one) = (format!("POST {v3_base}/batch"), format!("GET {v3_base}/p-1"));
    let listed = r#"{"profileName":"Default \"scan\"","profileId":"p-1","scanMode":1,
        "modifiedTime":"2026-09-14T16:17:38.6017245Z"}"#;
    let v1_detail = r#"{"@odata.context":"…","profileName":"Default \"scan\"","profileId":"p-1","description":null,
        "tenantId":"t1","tenantDomain":"contoso.onmicrosoft.com","scanMode":1,
        "modifiedTime":"2026-09-14T16:17:38.6017245Z","createdTime":"2024-09-26T05:58:40.4092427+00:00",
        "impersonationAccount":"admin@contoso.example","scanInplaceArchivedMailboxes":true,
        "ignoreTheLockedObjectsWhenUpdatingTheJobStatus":false,"enableDailyScan":"01:59",
        "SendAnemailNotificationToTheFollowIngRecipientsWhenObjectsAreMovedTooTherContainerOrRemovedFromAnyContainers":true,
        "containers":[{"containersName":"a","objectType":"Mailbox"},{"ContainersName":"b","ObjectType":"Mailbox"},
        {"containersName":"c","objectType":"SiteCollection"}]}"#;
    let v3_detail = r#"{"data":{"profileName":"Default \"scan\"","profileId":"p-1","tenantId":"t1",
        "tenantDomain":"contoso.onmicrosoft.com","scanMode":"1","modifiedTime":"2026-09-14T16:17:38.6017245Z",
        "createdTime":"2024-09-26T05:58:40.4092427Z","impersonationAccount":null,
        "scanInplaceArchivedMailboxes":"True","IsIgnoreLockedSiteEnabled":"No","enableDailyScan":"1:59",
        "IsSendOutOfPolicyNotification":true,"containers":[{"containersName":"a","objectType":1},
        {"ContainersName":"b","ObjectType":"1"},{"containersName":"c","objectType":0}]}}"#;
    let responses = [
        (v1_list.as_str(), format!(r#"{{"value":[{listed}]}}"#)),
        (v1_one.as_str(), v1_detail.to_owned()),
        (
            v3_list.as_str(),
            format!(r#"{{"data":[{listed}],"metadata":{{"totalCount":"1"}}}}"#),
        ),
        (v3_one.as_str(), v3_detail.to_owned()),
    ];
    let responses: Vec<_> = responses.iter().map(|(line, body)| (*line, body.as_str())).collect();
    let (one, succeeded) = poll("scan_profiles", "v1", &responses, &[]).await;
    assert!(succeeded, "{one}");
    let (other, succeeded) = poll("scan_profiles", "v3", &responses, &[]).await;
    assert!(succeeded, "{other}");
    let profiles = |text: &str| crate::harness::samples(text, "elements_scan");
    assert_expected("scan_profiles", &profiles(&one));
    assert_eq!(profiles(&one), profiles(&other));
    assert!(
        !one.contains("admin@contoso.example"),
        "the account is personal data and must not be exported"
    );
}

#[tokio::test]
async fn scan_profile_details_are_refreshed_every_other_poll() {
    let list = format!("GET /partner/customers/{ID}/scanProfiles");
    let detail = format!("{list}/p-1");
    let listed = |modified: &str| format!(r#"{{"value":[{{"profileId":"p-1","modifiedTime":"{modified}"}}]}}"#);
    let named = |name: &str| format!(r#"{{"profileId":"p-1","profileName":"{name}"}}"#);
    let canned = CannedServer::start(&[("GET /partner/customers", V1_CUSTOMERS)]).await;
    canned.set(&list, 200, &listed("2026-09-14T16:17:38Z"));
    canned.set(&detail, 200, &named("before"));
    // The collector `scan_changes` requests the same list, which would increase the count.
    let settings = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    let exporter = Program::start(&canned.base, &[], &settings).await;
    let lines = || {
        canned
            .requests()
            .into_iter()
            .map(|request| request.line)
            .collect::<Vec<_>>()
    };
    let lists = |lines: &[String]| lines.iter().filter(|line| **line == list).count();
    let requested = eventually("the list was requested often", || async {
        Some(lines()).filter(|lines| lists(lines) > 8)
    })
    .await;
    let profiles = requested.iter().filter(|line| **line == list || **line == detail);
    let runs: Vec<bool> = profiles.map(|line| *line == detail).collect();
    assert!(
        runs.windows(3).all(|three| three.contains(&true)),
        "two consecutive polls without details: {runs:?}"
    );
    assert!(
        runs.windows(2).any(|two| two == [false, false]),
        "details in every poll: {runs:?}"
    );

    // A change in the list is exported after the next poll.
    canned.set(&detail, 200, &named("after"));
    canned.set(&list, 200, &listed("2026-09-14T16:17:39Z"));
    exporter
        .wait_until("the change is exported", |text| text.contains("profile_name=\"after\""))
        .await;
}

#[tokio::test]
async fn profile_without_details_has_the_listed_values() {
    let list = format!("GET /partner/customers/{ID}/scanProfiles");
    let one = format!("{list}/p-1");
    let listed =
        r#"{"value":[{"profileId":"p-1","profileName":"New","scanMode":1,"modifiedTime":"2026-09-14T16:17:38Z"}]}"#;
    let canned = CannedServer::start(&[("GET /partner/customers", V1_CUSTOMERS), (list.as_str(), listed)]).await;
    canned.set(&one, 204, "");
    let only = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__PROTECTED__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    let (text, succeeded) = poll_once_validated(&config(&canned.base, &only)).await;
    assert!(succeeded, "{text}");
    let modified =
        format!(r#"elements_scan_profile_modified_timestamp_seconds{{customer_id="{ID}",profile_id="p-1"}}"#);
    assert_eq!(value(&text, &modified), Some(1_789_402_658.0));
    assert!(text.contains(r#"profile_name="New""#));
    assert!(!text.contains("elements_scan_profile_daily_scan_enabled{"));
}

#[tokio::test]
async fn scan_changes_are_equal_in_both_api_versions() {
    let base = format!("/partner/customers/{ID}/scanProfiles");
    let v3_base = format!("/partner/external/v3/general/customers/{ID}/scan-profiles");
    let lines = [
        format!("GET {base}"),
        format!("GET {base}/p-1/dailyNewSummary"),
        format!("GET {base}/p-1/dailyNewDetails"),
        format!("POST {v3_base}/batch"),
        format!("GET {v3_base}/p-1/changes"),
    ];
    let objects = r#"[{"objectName":"a","containerName":"Mail"},{"objectName":"b","containerName":"Mail"},
        {"objectName":"c","containerName":"Sites"}]"#;
    let bodies = [
        r#"{"value":[{"profileId":"p-1","profileName":"x","scanMode":0}]}"#.to_owned(),
        r#"{"profileID":"p-1","lastScanStatus":4,"lastUpdateTime":"2026-09-14T16:17:38Z","newRegistedContentCount":3,
            "movedToAnotherContainerObjects":0,"removedFromMicrosoft365OrOutofPolicy":"1"}"#
            .to_owned(),
        format!(
            r#"{{"profileID":"p-1","newRegistedContent":{objects},"movedToAnotherContainerObjects":[],
            "removedFromMicrosoft365OrOutOfPolicyObjects":[{{"objectName":"z"}}]}}"#
        ),
        r#"{"data":[{"profileId":"p-1"}],"metadata":{"totalCount":1}}"#.to_owned(),
        format!(
            r#"{{"profileId":"p-1","lastScanStatus":"4","lastUpdateTime":"2026-09-14T16:17:38.0000000Z",
            "newRegisteredContentCount":"3","newRegisteredContent":{objects},"movedToAnotherContainer":0,
            "movedToAnotherContainerObjects":[],"removedFromMicrosoft365OrOutofPolicy":1,
            "removedFromMicrosoft365OrOutOfPolicyObjects":["z"]}}"#
        ),
    ];
    let responses: Vec<_> = lines
        .iter()
        .map(String::as_str)
        .zip(bodies.iter().map(String::as_str))
        .collect();
    let objects = [("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true")];
    let (one, succeeded) = poll("scan_changes", "v1", &responses, &objects).await;
    assert!(succeeded, "{one}");
    let (other, succeeded) = poll("scan_changes", "v3", &responses, &objects).await;
    assert!(succeeded, "{other}");
    let changes = |text: &str| crate::harness::samples(text, "elements_scan");
    assert_expected("scan_changes", &changes(&one));
    assert_eq!(changes(&one), changes(&other));
    let (without, _, canned) = poll_with_requests("scan_changes", "v1", &responses, &[]).await;
    assert!(!without.contains("elements_scan_changed_objects"));
    assert!(
        !canned
            .requests()
            .iter()
            .any(|request| request.line.contains("dailyNewDetails"))
    );
}

#[tokio::test]
async fn scopes_of_enabled_collectors_are_requested_once() {
    let path = format!("POST /partner/external/v3/general/customers/{ID}/avpt-products/jobs/batch");
    let (_, _, canned) = poll_with_requests("jobs", "v3", &[(&path, V3_JOBS)], &[]).await;
    let tokens = canned.token_requests();
    assert_eq!(tokens.len(), 1);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(tokens[0].body.as_bytes())
        .into_owned()
        .collect();
    let scope = form
        .iter()
        .find(|(name, _)| name == "scope")
        .map(|(_, scope)| scope.split(' ').collect::<Vec<_>>());
    let mut scope = scope.unwrap();
    scope.sort_unstable();
    assert_eq!(scope, ["elements.customers.read.all", "elements.jobs.read.all"]);
}
