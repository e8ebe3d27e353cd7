//! The exporter's routes and their responses. No route calls the API.

mod accept;
mod body;
mod caller;
mod discovery;
mod gzip;
mod handshake;
mod negotiate;
mod page;
mod runs;
pub mod server;
pub mod web_config;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use url::Url;

use crate::assets::{self, Asset, Links};
use crate::collector::Target;
use crate::domain::{CustomerId, Shard};
use crate::health::Health;
use crate::scrape::{Part, Scrape, ScrapeFilter};
use crate::status::Status;
use caller::Caller;
use discovery::TargetAddress;
use page::{Page, PageQuery};

/// Reloads the configuration. If that fails, returns an error message for the client.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Dependencies of the routes.
pub struct Site {
    /// Renders scrapes.
    pub scrape: Arc<Scrape>,
    /// Builds the contents of the status pages.
    pub status: Arc<Status>,
    /// Renders response bodies; shared by the sites of all listeners.
    pub bodies: Arc<Bodies>,
    /// Reports liveness and readiness.
    pub health: Arc<Health>,
    /// Path of the metrics endpoint, without the prefix.
    pub telemetry_path: String,
    /// Prefix of all paths: empty, or `/…` without a trailing slash.
    pub route_prefix: String,
    /// External URL, if configured.
    pub external_url: Option<Url>,
    /// URL of the Grafana server, for links to its dashboards.
    pub grafana_url: Option<Url>,
    /// Reloads the configuration. `None` if reloads over HTTP are disabled.
    pub reload: Option<Reload>,
    /// Description of the data source, shown on the status page.
    pub subtitle: String,
}

/// Renders response bodies, and caches compressed bodies.
#[derive(Debug, Default)]
pub struct Bodies {
    compressor: gzip::Compressor,
    pool: body::BufferPool,
}

/// Returns the routes of the exporter.
pub fn routes(site: Site) -> Router {
    let prefix = site.route_prefix.clone();
    let at = |path: &str| format!("{prefix}{path}");
    let mut router = Router::new().route(&at(&site.telemetry_path), get(metrics));
    for (path, method) in fixed_routes() {
        router = router.route(&at(path), method);
    }
    let home = at("/");
    if !prefix.is_empty() {
        let from_root = home.clone();
        router = router
            .route("/", get(|| async move { Redirect::temporary(&from_root) }))
            .route(&prefix, get(|| async move { Redirect::permanent(&home) }));
    }
    router.with_state(Arc::new(site))
}

/// Returns the routes whose paths, apart from the prefix, do not depend on flags.
fn fixed_routes() -> Vec<(&'static str, MethodRouter<Arc<Site>>)> {
    // The target is relative, so that the redirect also works behind a proxy that strips a prefix.
    let redirect = |target: &'static str| get(move || async move { Redirect::permanent(target) });
    vec![
        ("/", get(index)),
        ("/sd", get(discover)),
        ("/-/healthy", get(healthy)),
        ("/-/ready", get(ready)),
        ("/-/reload", post(reload).put(reload)),
        ("/dashboards", redirect("dashboards/")),
        (
            "/dashboards/",
            get(|state| list(state, assets::DASHBOARDS, "dashboards")),
        ),
        ("/dashboards/{name}", get(|name| asset(name, assets::DASHBOARDS))),
        ("/rules", redirect("rules/")),
        ("/rules/", get(|state| list(state, assets::RULES, "rules"))),
        ("/rules/{name}", get(rules)),
        ("/customers", redirect("customers/")),
        ("/customers/", get(customer_by_query)),
        ("/customers/{id}", get(customer)),
        ("/customers/{id}/runs.json", get(customer_runs)),
        ("/runbooks", redirect("runbooks/")),
        ("/runbooks/", get(runbooks)),
    ]
}

async fn index(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    render_blocking(move || page::front(&site, &PageQuery::parse(query.as_deref()))).await
}

async fn customer(State(site): State<Arc<Site>>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Response {
    render_blocking(move || page::customer(&site, &id, &PageQuery::parse(query.as_deref()))).await
}

/// Returns the page of the customer whose id is in the query. If there is no id, redirects to the front page.
async fn customer_by_query(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let mut pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let Some((_, id)) = pairs.find(|(name, _)| name == "id") else {
        return Redirect::temporary("../").into_response();
    };
    let (id, page_query) = (id.into_owned(), PageQuery::parse(query.as_deref()));
    render_blocking(move || page::customer(&site, &id, &page_query)).await
}

async fn customer_runs(State(site): State<Arc<Site>>, Path(id): Path<String>) -> Response {
    render_blocking(move || runs::runs(&site, &id)).await
}

async fn runbooks(State(site): State<Arc<Site>>) -> Page {
    page::runbooks(&site)
}

/// Renders a response on a blocking thread. Otherwise, a response about ten thousand customers would delay other
/// requests.
async fn render_blocking<R: IntoResponse + Send + 'static>(render: impl FnOnce() -> R + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(render).await {
        Ok(response) => response.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(site): State<Arc<Site>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    render_blocking(move || scrape(&site, query.as_deref(), &headers)).await
}

/// Returns the response to a scrape.
fn scrape(site: &Site, query: Option<&str>, headers: &HeaderMap) -> Response {
    let format = negotiate::format(headers);
    let filter = scrape_filter(query);
    let mut response = if negotiate::accepts_gzip(headers) {
        let body = site.bodies.compressor.body(&site.scrape, &filter, format);
        ([(CONTENT_ENCODING, "gzip")], body).into_response()
    } else {
        let frames = site.scrape.frames(&filter, format);
        body::plain(frames, site.bodies.pool.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Parses the scrape filter in a query. Unknown parameters are ignored, and invalid values select nothing, so that no
/// query makes a scrape fail.
fn scrape_filter(query: Option<&str>) -> ScrapeFilter {
    let mut filter = ScrapeFilter::default();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "collector" | "collector[]" => {
                // An unknown name selects nothing.
                let parts = filter.parts.get_or_insert_default();
                Part::named(&value).is_some_and(|part| parts.insert(part))
            }
            "customer_id" | "customer_id[]" => {
                // An id that is invalid or has surrounding white space selects nothing, like an unknown customer.
                let customers = filter.customers.get_or_insert_default();
                match CustomerId::parse(&value).filter(|id| id.as_str() == value) {
                    Some(id) => customers.insert(Target::Customer(id)),
                    None => value.is_empty() && customers.insert(Target::Partner),
                }
            }
            "shard" | "shard[]" => {
                // An invalid shard selects nothing, because selecting all customers would duplicate series. All
                // shards must belong to one partition, so that only one partition is computed per scrape.
                let shards = filter.shards.get_or_insert_default();
                let shard = value.parse::<Shard>().ok();
                let fits = |shard: &Shard| shards.first().is_none_or(|first| first.count() == shard.count());
                shard.filter(fits).is_some_and(|shard| shards.insert(shard))
            }
            _ => false,
        };
    }
    filter
}

/// Returns the scrape targets. Their address is the one at which Prometheus reached the exporter.
async fn discover(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Response {
    let is_over_tls = caller.is_some_and(|Extension(caller)| caller.is_over_tls());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let address = host.and_then(|host| {
        let external_url = site.external_url.as_ref();
        TargetAddress::from_request(
            host,
            is_over_tls,
            external_url,
            &site.route_prefix,
            &site.telemetry_path,
        )
    });
    let Some(address) = address else {
        return (StatusCode::BAD_REQUEST, "Missing or invalid Host header.\n").into_response();
    };
    let shards = match discovery::shards(query.as_deref()) {
        Ok(shards) => shards,
        Err(invalid) => return (StatusCode::BAD_REQUEST, format!("{invalid}\n")).into_response(),
    };
    render_blocking(move || {
        let customers;
        let groups = match shards {
            None => {
                customers = site.scrape.customers();
                discovery::of_customers(&address, &customers)
            }
            Some(shards) => discovery::of_shards(&address, shards),
        };
        let json = HeaderValue::from_static("application/json");
        match serde_json::to_vec(&groups) {
            Ok(body) => ([(CONTENT_TYPE, json)], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    })
    .await
}

async fn healthy(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.health.is_alive() {
        (StatusCode::OK, "elements_exporter is healthy.\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Poll loop stalled.\n")
    }
}

async fn ready(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.health.is_ready() {
        (StatusCode::OK, "elements_exporter is ready.\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Customer list not fetched yet.\n")
    }
}

async fn reload(State(site): State<Arc<Site>>, caller: Option<Extension<Caller>>, headers: HeaderMap) -> Response {
    let Some(reload) = &site.reload else {
        let message = "Lifecycle API is not enabled; start the exporter with --web.enable-lifecycle, or send SIGHUP.\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    };
    if let Err(rejection) = caller::may_change_state(caller.map(|Extension(caller)| caller), &headers) {
        return rejection.into_response();
    }
    match reload().await {
        Ok(()) => (StatusCode::OK, "Configuration reloaded.\n").into_response(),
        Err(message) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("Reload failed; the previous configuration stays in effect. Error: {message}\n"),
        )
            .into_response(),
    }
}

async fn list(State(site): State<Arc<Site>>, assets: &'static [Asset], kind: &'static str) -> Page {
    page::list(&site, assets, kind)
}

async fn asset(Path(name): Path<String>, assets: &'static [Asset]) -> Response {
    let Some(asset) = assets.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(CONTENT_TYPE, asset.content_type())], asset.content).into_response()
}

async fn rules(State(site): State<Arc<Site>>, Path(name): Path<String>) -> Response {
    let Some(asset) = assets::RULES.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let links = Links::new(site.external_url.as_ref(), site.grafana_url.as_ref());
    let rules = links.absolute(asset.content);
    ([(CONTENT_TYPE, asset.content_type())], rules).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::collector::{CollectorId, PerCollector, Plan};
    use crate::store::Store;

    fn site(health: Health) -> State<Arc<Site>> {
        let health = Arc::new(health);
        let store = Arc::new(Store::new(&PerCollector::from_fn(|_| Plan::OFF), None));
        let scrape = Scrape::new(Arc::clone(&store), Arc::clone(&health), Arc::default());
        let status = Status::new(store, Arc::clone(&health), Arc::default(), None);
        State(Arc::new(Site {
            scrape: Arc::new(scrape),
            status: Arc::new(status),
            bodies: Arc::default(),
            health,
            telemetry_path: "/metrics".to_owned(),
            route_prefix: String::new(),
            external_url: None,
            grafana_url: None,
            reload: None,
            subtitle: String::new(),
        }))
    }

    #[tokio::test]
    async fn stalled_loop_is_not_healthy() {
        assert_eq!(healthy(site(Health::new())).await.0, StatusCode::OK);
        let stalled = Health::silent_for(Duration::from_secs(60));
        assert_eq!(healthy(site(stalled)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn fixed_routes_are_reserved() {
        for (path, _) in fixed_routes() {
            assert!(crate::args::is_reserved(path), "{path}");
        }
    }

    #[test]
    fn invalid_values_in_a_scrape_filter_select_nothing() {
        let parsed = scrape_filter(Some(
            "collector=jobs&customer_id=a%26b&collector=licenses&x=1&=&%ff&collector",
        ));
        let parts = [CollectorId::JOBS, CollectorId::LICENSES].map(Part::Collector);
        assert_eq!(parsed.parts, Some(parts.into()));
        assert_eq!(scrape_filter(Some("collector=unknown")).parts, Some(BTreeSet::new()));
        let customer = |id: &str| CustomerId::parse(id).map(Target::Customer);
        assert_eq!(parsed.customers, Some(customer("a&b").into_iter().collect()));
        assert_eq!(parsed.shards, None);
        let shards = scrape_filter(Some("shard=0/2&shard=5/2&shard=1%2F3&shard=1%2F2&shard=0/2")).shards;
        let expected = ["0/2", "1/2"].iter().flat_map(|text| text.parse());
        assert_eq!(
            shards,
            Some(expected.collect()),
            "duplicate shards and shards of other partitions are ignored"
        );
        assert_eq!(scrape_filter(Some("shard=all")).shards, Some(BTreeSet::new()));
        let guid = "0f1c3ded-26b1-443b-91bf-c9009b7c057a";
        let twice = format!("customer_id={guid}&customer_id={}&customer_id=", guid.to_uppercase());
        let customers = scrape_filter(Some(&twice)).customers.unwrap_or_default();
        assert_eq!(
            customers,
            [Some(Target::Partner), customer(guid)].into_iter().flatten().collect()
        );
        assert_eq!(scrape_filter(None), ScrapeFilter::default());
    }
}
