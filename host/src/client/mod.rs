//! Calls to other services: a handler's way out.

mod call_error;
mod target;

use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use plugin_api::Outcome;

pub use self::call_error::CallError;
pub(crate) use self::call_error::root_cause;
use self::target::Target;
use crate::{
    Body,
    layers::{Attempts, within},
    stack::SealedClientStack,
};

/// A handle to call other services with; cheap to clone, usable from any task.
///
/// It is given out before the client stack is sealed, so that a handler can be built around it, and
/// answers [`CallError::NotSealed`] until then.
#[derive(Clone, Debug, Default)]
pub struct Client(Arc<OnceLock<SealedClientStack>>);

impl Client {
    /// Opens the way out. Called once, by the start-up.
    pub(crate) fn seal(&self, stack: SealedClientStack) {
        // A second stack would be a second start-up, which nothing can bring about.
        let _ = self.0.set(stack);
    }

    /// Sends `request` to an instance of the service group `service` and waits for the response
    /// head. Of the request's target only path and query count.
    ///
    /// The call is a child of the exchange that the calling task works for; see
    /// [`telemetry::context`](crate::telemetry::context).
    ///
    /// A call that may be repeated is, up to `client.retries` times, each on another instance where
    /// there is one: nothing of its body was read, nothing came back, and either its method is
    /// idempotent or no connection was made, so that nothing was sent.
    ///
    /// # Errors
    /// When no response head came; see [`CallError`]. A body that breaks later is an error of that
    /// body.
    pub async fn call(
        &self,
        service: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        self.send(service, &mut request).await
    }

    /// As [`Client::call`]; takes the request where it stands.
    pub(crate) async fn send(
        &self,
        service: &str,
        request: &mut Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let not_sealed = || CallError::NotSealed { service: service.to_owned() };
        let stack = self.0.get().ok_or_else(not_sealed)?;
        let (retries, mut attempts, mut tried) = (stack.retries(), Attempts::default(), Vec::new());
        let repeat = retries.prepare(request);
        loop {
            let target = Target::new(stack.balance(service, &tried)?);
            target.address(service, request)?;
            let sent = stack.send(service, request, &mut attempts);
            let failed = match within(stack.timeout(), sent).await {
                Ok(Ok(mut response)) => {
                    retries.answered();
                    attempts.answered(&mut response);
                    target.answered(&mut response);
                    return Ok(response);
                }
                Ok(Err(failed)) => failed,
                Err(_) => {
                    attempts.end_as(Outcome::TIMEOUT);
                    return Err(target.timeout(service, stack.timeout()));
                }
            };
            let member = target.member();
            if failed.is_unsent() {
                stack.unreachable(service, member);
            }
            // A body that was not sent goes back to where the next attempt finds it.
            drop(std::mem::take(request.body_mut()));
            let repeat = repeat.as_ref();
            let next = repeat.and_then(|repeat| retries.again(repeat, &failed, attempts.failed()));
            let Some(next) = next else {
                return Err(target.failed(service, failed, &mut attempts));
            };
            tracing::debug!(service, instance = ?member, "no answer; trying again");
            attempts.retry(failed);
            tried.push(member.clone());
            *request = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::watch,
    };

    use super::*;
    use crate::{
        config::{self, BaseUrl},
        discovery::{Groups, Instance, Member},
        layers::testing::Journal,
        stack::{ClientStack, Directory},
    };

    /// The group `a` of these instances.
    fn group(instances: &[&str]) -> Arc<Groups> {
        let instance = |url: &&str| {
            Arc::new(Instance::configured(BaseUrl::try_from((*url).to_owned()).unwrap()))
        };
        Arc::new(Groups::from([("a".to_owned(), instances.iter().map(instance).collect())]))
    }

    /// A client whose group `a` has these instances, each busier than the one before, and whose
    /// plugin writes a journal.
    fn client(config: &config::Client, instances: &[&str]) -> (Client, Journal) {
        let (journal, client) = (Journal::default(), Client::default());
        let mut stack = ClientStack::new(config).unwrap();
        stack.splice("scribe", journal.plugin("").client_layer().unwrap());
        let directory = Directory::new(watch::channel(group(instances)).1, config);
        let table = directory.table();
        let (_, members) = table.groups().next().unwrap();
        for (index, member) in members.iter().enumerate() {
            let url = &member.instance().url;
            let others = members.iter().filter(|other| other.instance().url != *url);
            let others: Vec<_> = others.cloned().collect();
            // They are in flight for ever.
            (0..index).for_each(|_| std::mem::forget(directory.choose("a", &others).unwrap()));
        }
        client.seal(stack.seal(directory));
        (client, journal)
    }

    /// A client without a plugin, and the directory that its calls go by.
    fn sealed(instances: &[&str]) -> (Client, Directory) {
        let config = config::Client::default();
        let directory = Directory::new(watch::channel(group(instances)).1, &config);
        let client = Client::default();
        client.seal(ClientStack::new(&config).unwrap().seal(directory.clone()));
        (client, directory)
    }

    /// An instance that reads so many bytes of every connection, sends these, and closes it.
    async fn instance(reads: usize, sends: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; reads];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(sends.as_bytes()).await.unwrap();
            }
        });
        url
    }

    fn request(method: &str, body: &'static str) -> Request<Body> {
        Request::builder().method(method).uri("/x").body(Body::from(body)).unwrap()
    }

    const BODY: &str = "a body that is longer than what the instance reads of a request's head: all \
                        of it is on its way by the time that the instance closes the connection";
    const NOBODY: &str = "http://127.0.0.1:1";
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    #[tokio::test]
    async fn a_call_that_is_not_answered_goes_to_another_instance() {
        for (method, body) in [("GET", ""), ("PUT", "four")] {
            let other = instance(16, OK).await;
            let (client, journal) = client(&config::Client::default(), &[NOBODY, &other]);
            let response = client.call("a", request(method, body)).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
            let length = body.len();
            let end = format!("end complete {length} 2");
            assert_eq!(
                journal.take(),
                [
                    "call a /x below 0",
                    "retry after connect failed 0 0",
                    "call a /x below 9 again 1",
                    "response 200",
                    "all: response 200",
                    &end,
                    &format!("all: {end}"),
                ],
                "{method}"
            );
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends_as_its_last_attempt() {
        let broken = instance(1, "").await;
        let (client, journal) = client(&config::Client::default(), &[NOBODY, &broken]);
        assert!(client.call("a", request("GET", "")).await.is_err());
        let told = journal.take();
        let [_, first, _, second, _, third, all] = &told[..] else { panic!("{told:?}") };
        assert_eq!(first, "retry after connect failed 0 0");
        assert_eq!(second, "end upstream gone 0 0 by a new connection");
        let third = third.split(" by ").next().unwrap();
        assert_eq!(*all, format!("all: {third}"));
    }

    #[tokio::test]
    async fn a_call_is_not_repeated_where_that_could_do_harm() {
        let config = config::Client {
            retries: 2,
            request_timeout: Duration::from_millis(200),
            ..config::Client::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}", listener.local_addr().unwrap());
        let (nonsense, reader) = (instance(1, "nonsense\r\n\r\n").await, instance(120, "").await);
        let closing = instance(1, "").await;
        let none = config::Client { retries: 0, ..config.clone() };
        for (config, method, body, url, end) in [
            (&config, "POST", "", &closing, "end upstream gone"),
            (&config, "POST", BODY, &reader, "end upstream gone"),
            (&none, "GET", "", &NOBODY.to_owned(), "end connect failed"),
            (&config, "GET", "", &nonsense, "end upstream gone"),
            (&config, "PUT", BODY, &reader, "end upstream gone"),
            (&config, "GET", "", &silent, "end timeout"),
        ] {
            let (client, journal) = client(config, &[url, url]);
            assert!(client.call("a", request(method, body)).await.is_err());
            let told = journal.take();
            let [_, told_end] = &told[..] else { panic!("{method} {url}: {told:?}") };
            assert!(told_end.starts_with(end), "{method} {url}: {told:?}");
        }
    }

    #[tokio::test]
    async fn the_whole_call_ends_with_whoever_gives_it_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let config = config::Client {
            request_timeout: Duration::from_millis(200),
            ..config::Client::default()
        };
        let (client, journal) = client(&config, &[NOBODY, &url]);
        assert!(client.call("a", request("GET", "")).await.is_err());
        let ends = ["end timeout 0 0 by a new connection", "all: end timeout 0 0"];
        assert_eq!(journal.take()[3..], ends);

        let call = client.call("a", request("GET", ""));
        let second = journal.until("call a /x below 9 again 1");
        let told = futures_util::future::select(Box::pin(second), Box::pin(call)).await;
        drop(told);
        let told = journal.take();
        assert_eq!(told, ["end client gone 0 0", "all: end client gone 0 0"]);
    }

    #[tokio::test]
    async fn what_was_not_sent_goes_to_another_instance_whatever_it_is() {
        let other = instance(16, OK).await;
        let (client, journal) = client(&config::Client::default(), &[NOBODY, &other]);
        let response = client.call("a", request("POST", "four")).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
        assert_eq!(journal.take()[1], "retry after connect failed 0 0");
    }

    /// How many requests are in flight on the instances of the group.
    fn in_flight(directory: &Directory) -> u32 {
        let table = directory.table();
        table.groups().flat_map(|(_, members)| members).map(Member::in_flight).sum()
    }

    #[tokio::test]
    async fn a_request_is_in_flight_until_its_response_has_ended() {
        let url = instance(16, OK).await;
        let (client, directory) = sealed(&[&url]);
        for read in [true, false] {
            let mut response = client.call("a", request("GET", "")).await.unwrap();
            assert_eq!(in_flight(&directory), 1);
            if read {
                response.body_mut().collect().await.unwrap();
                assert_eq!(in_flight(&directory), 0, "at its end");
            }
            drop(response);
            assert_eq!(in_flight(&directory), 0, "when it is dropped");
        }
    }

    #[tokio::test]
    async fn ten_thousand_cancelled_calls_leave_nothing_in_flight() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let (client, directory) = sealed(&[NOBODY, &url]);
        for _ in 0..100 {
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let mut call = Box::pin(client.call("a", request("GET", "")));
                    assert!((&mut call).now_or_never().is_none());
                    call
                })
                .collect();
            assert_eq!(in_flight(&directory), 100);
            drop(calls);
            assert_eq!(in_flight(&directory), 0);
        }
    }

    #[tokio::test]
    async fn a_call_before_the_start_is_refused() {
        let answer = Client::default().call("a", Request::new(Body::empty())).await;
        assert!(matches!(answer, Err(CallError::NotSealed { .. })));
    }
}
