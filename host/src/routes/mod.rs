//! Paths that are answered here or forwarded to a service: the handler of the binary `host`.

mod dot_segment;
mod forward;
mod template;

use std::{
    borrow::Cow,
    future::{self, Ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, uri::PathAndQuery};
use matchit::{Params, Router};
use percent_encoding::percent_decode_str;
use tower::Service;

use self::template::Template;
use crate::{Body, CallError, Client, config, telemetry::context};

/// The configured routes. Cheap to clone.
#[derive(Clone)]
pub struct Routes {
    router: Arc<Router<Route>>,
    client: Client,
}

/// A route that cannot be.
#[derive(Debug)]
pub(crate) struct RouteError {
    /// Which one, in the order of the configuration.
    pub(crate) index: usize,
    /// Its key that is wrong.
    pub(crate) key: &'static str,
    /// What was wanted and what was found.
    pub(crate) message: String,
}

/// What a path leads to.
#[derive(Clone)]
struct Route {
    template: Arc<str>,
    action: Action,
}

#[derive(Clone)]
enum Action {
    Respond { status: StatusCode, body: Template },
    Forward { service: Arc<str>, rewrite: Option<Template> },
}

impl Routes {
    /// The routes of a configuration that was checked when it was read.
    #[must_use]
    pub fn new(routes: &[config::Route], client: Client) -> Self {
        let router = build(routes).unwrap_or_default();
        Self { router: Arc::new(router), client }
    }

    /// Whether these routes can be served.
    pub(crate) fn check(routes: &[config::Route]) -> Result<(), RouteError> {
        build(routes).map(drop)
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Routes")
    }
}

fn build(routes: &[config::Route]) -> Result<Router<Route>, RouteError> {
    let mut router = Router::new();
    for (index, route) in routes.iter().enumerate() {
        let wrong = |key, message: String| RouteError { index, key, message };
        let action = action(route).map_err(|(key, message)| wrong(key, message))?;
        let template = Arc::from(route.path.as_str());
        router
            .insert(&route.path, Route { template, action })
            .map_err(|error| wrong("path", describe(&route.path, &error)))?;
    }
    Ok(router)
}

fn describe(path: &str, error: &matchit::InsertError) -> String {
    match error {
        matchit::InsertError::Conflict { with } if with == path => {
            format!("duplicate route \"{path}\"")
        }
        matchit::InsertError::Conflict { with } => {
            format!("duplicate route: \"{path}\" matches what \"{with}\" matches")
        }
        other => format!("wanted a path such as \"/users/{{id}}\", found \"{path}\": {other}"),
    }
}

fn action(route: &config::Route) -> Result<Action, (&'static str, String)> {
    if !route.path.starts_with('/') {
        return Err(("path", format!("wanted a path that starts with /, found {:?}", route.path)));
    }
    let params = template::names(&route.path);
    match (&route.service, &route.respond) {
        (Some(service), None) => {
            let rewrite = route.rewrite.as_ref().map(|rewrite| check_rewrite(rewrite, &params));
            let rewrite = rewrite.transpose()?.map(|rewrite| Template::new(rewrite, &params));
            Ok(Action::Forward { service: Arc::from(service.as_str()), rewrite })
        }
        (None, Some(respond)) if route.rewrite.is_none() => Ok(Action::Respond {
            status: respond.status.code(),
            body: Template::new(&respond.body, &params),
        }),
        (None, Some(_)) => Err(("rewrite", "only goes with \"service\"".to_owned())),
        _ => Err(("path", "wanted either \"service\" or \"respond\" beside it".to_owned())),
    }
}

/// A name that the path does not have would go to the service as it stands.
fn check_rewrite<'a>(
    rewrite: &'a str,
    params: &[String],
) -> Result<&'a str, (&'static str, String)> {
    if !rewrite.starts_with('/') {
        return Err(("rewrite", format!("wanted a path that starts with /, found {rewrite:?}")));
    }
    match template::names(rewrite).into_iter().find(|name| !params.contains(name)) {
        Some(name) => Err(("rewrite", format!("{{{name}}} is not in the route's path"))),
        None => Ok(rewrite),
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = CallError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let Ok(found) = self.router.at(request.uri().path()) else {
            let not_found = text(StatusCode::NOT_FOUND, "not found\n".into());
            return Either::Left(future::ready(Ok(not_found)));
        };
        context::set_route(&found.value.template);
        match &found.value.action {
            Action::Respond { status, body } => {
                let body = body.render(&found.params, decode);
                Either::Left(future::ready(Ok(text(*status, body.into()))))
            }
            Action::Forward { service, rewrite } => {
                let path = rewrite.as_ref().map(|to| rewritten(to, &found.params, &request));
                let there = path.as_ref().and_then(|path| path.as_ref().ok());
                let there = there.map_or(request.uri().path(), PathAndQuery::path);
                if let Some(refusal) = refusal(there, request.headers()) {
                    return Either::Left(future::ready(Ok(refusal)));
                }
                let service = Arc::clone(service);
                let answer = forward::forward(self.client.clone(), service, path, request);
                // The future has a name only as a box; it is one allocation beside hyper's dozen.
                Either::Right(Box::pin(answer))
            }
        }
    }
}

/// An answer given here, or by a service.
pub type Answer = Either<
    Ready<Result<Response<Body>, CallError>>,
    BoxFuture<'static, Result<Response<Body>, CallError>>,
>;

fn decode(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

/// The path at the service, the query kept. What a path has matched is valid in a path again.
fn rewritten(
    to: &Template,
    params: &Params<'_, '_>,
    request: &Request<Body>,
) -> Result<PathAndQuery, http::Error> {
    let mut path = to.render(params, |value| Cow::Borrowed(value));
    if let Some(query) = request.uri().query() {
        path.push('?');
        path.push_str(query);
    }
    Ok(PathAndQuery::try_from(path)?)
}

/// The answer to a request that is not to be forwarded under `path`.
fn refusal(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    if dot_segment::is_in(path) {
        return Some(text(StatusCode::BAD_REQUEST, "wanted no . or .. in the path\n".into()));
    }
    // RFC 9112, section 6.1.
    forward::has_other_coding(headers)
        .then(|| text(StatusCode::NOT_IMPLEMENTED, "unknown transfer coding\n".into()))
}

fn text(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
