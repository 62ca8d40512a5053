//! Requests into answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;

use super::follow::{self, Place};
use super::site::{Overview, Run, Site};

/// Sent with every answer: nothing is loaded from elsewhere, nobody else may frame, read or keep it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// The program's own files.
const PAGE: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/watch.js", JAVASCRIPT, include_str!("page/watch.js")),
    ("/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
    ("/viewer.js", JAVASCRIPT, include_str!("page/viewer.js")),
    ("/glb.js", JAVASCRIPT, include_str!("page/glb.js")),
    ("/watch.css", "text/css; charset=utf-8", include_str!("page/watch.css")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// All that can be asked for.
pub(super) fn router(site: Site, port: u16) -> Router {
    let mut router = Router::new()
        .route("/api/runs", get(runs))
        .route("/api/runs/{id}/events/{from}/{mark}", get(events))
        .route("/api/runs/{id}/config", get(config))
        .route("/runs/{id}/{file}", get(file));
    for (path, kind, text) in PAGE {
        router = router.route(path, get(move || async move { ([(header::CONTENT_TYPE, kind)], text) }));
    }
    router
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(Arc::new(site))
        .layer(middleware::from_fn(move |request: Request, next: Next| guard(port, request, next)))
}

/// Refuses who does not ask for this machine by a name of its own: another site's page can have its name
/// point here (DNS rebinding), but not change the name it asks for.
async fn guard(port: u16, request: Request, next: Next) -> Response {
    let mut response = if !named_here(port, request.headers(), request.uri()) {
        (StatusCode::MISDIRECTED_REQUEST, "ask for 127.0.0.1 or localhost").into_response()
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn named_here(port: u16, headers: &HeaderMap, uri: &Uri) -> bool {
    let ours = |name: &str| {
        let names = ["127.0.0.1", "localhost", "[::1]"];
        names.iter().any(|n| name.eq_ignore_ascii_case(&format!("{n}:{port}")))
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    host.to_str().is_ok_and(ours) && uri.authority().is_none_or(|a| ours(a.as_str()))
}

type Sites = State<Arc<Site>>;

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn found(site: &Site, id: &str, answer: impl FnOnce(&Run) -> Option<Response>) -> Response {
    let run = site.find(id);
    run.as_ref().and_then(answer).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn runs(State(site): Sites) -> Response {
    json(&site.runs().iter().map(Run::overview).collect::<Vec<Overview>>())
}

/// What came after `from`, and how the run stands.
async fn events(State(site): Sites, Path((id, from, mark)): Path<(String, u64, String)>) -> Response {
    found(&site, &id, |run| {
        let chunk = follow::read(&run.log(), &Place { offset: from, mark }).ok()?;
        Some(json(&serde_json::json!({ "log": chunk, "run": run.overview() })))
    })
}

/// The configuration as an object, for a table.
async fn config(State(site): Sites, Path(id): Path<String>) -> Response {
    found(&site, &id, |run| {
        let table: toml::Table = run.config()?.parse().ok()?;
        Some(json(&serde_json::to_value(table).unwrap_or(Value::Null)))
    })
}

async fn file(State(site): Sites, Path((id, name)): Path<(String, String)>) -> Response {
    found(&site, &id, |run| {
        let (bytes, kind) = run.file(&name)?;
        Some(([(header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response())
    })
}
