//! Turns requests away while too many are under way: work that nobody can wait for is not begun.
//!
//! Workers' streams are no requests; they are counted where they are served.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// Requests of operators at a time: enough for a few hundred terminals that watch.
const AT_A_TIME: usize = 256;

/// Path of what is let by.
const STREAMS: &str = "/clade.v1.WorkerService/";

/// All services behind clones of one share its room.
#[derive(Clone)]
pub(super) struct Crowd {
    room: Arc<Semaphore>,
    metrics: Metrics,
}

impl Crowd {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self::of(AT_A_TIME, metrics)
    }

    fn of(at_a_time: usize, metrics: Metrics) -> Self {
        Self { room: Arc::new(Semaphore::new(at_a_time)), metrics }
    }
}

impl<S> Layer<S> for Crowd {
    type Service = Crowded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Crowded { inner, crowd: self.clone() }
    }
}

/// A service behind a [`Crowd`].
#[derive(Clone)]
pub(super) struct Crowded<S> {
    inner: S,
    crowd: Crowd,
}

impl<S> Service<Request<Body>> for Crowded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with(STREAMS) {
            return Box::pin(self.inner.call(request));
        }
        let Ok(permit) = Arc::clone(&self.crowd.room).try_acquire_owned() else {
            self.crowd.metrics.access_refused("too_many_requests");
            let status = Status::resource_exhausted(
                "too many requests are under way here: try again in a moment",
            );
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let _permit = permit;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_turned_away_at_once_and_streams_and_later_requests_are_not() {
        let go_on = Arc::new(Notify::new());
        let metrics = Metrics::new(&[]);
        let slow = {
            let go_on = Arc::clone(&go_on);
            tower::service_fn(move |_: Request<Body>| {
                let go_on = Arc::clone(&go_on);
                async move {
                    go_on.notified().await;
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            })
        };
        let mut service = Crowd::of(2, metrics).layer(slow);
        let ask = |path: &str| {
            Request::builder().uri(path.to_owned()).body(Body::empty()).expect("a plain request")
        };
        let status = "/clade.v1.RunService/GetStatus";
        let (first, second) = (service.call(ask(status)), service.call(ask(status)));
        let turned_away = service.call(ask(status)).await.unwrap();
        let code = Status::from_header_map(turned_away.headers()).map(|status| status.code());
        assert_eq!(code, Some(tonic::Code::ResourceExhausted));
        let stream = service.call(ask("/clade.v1.WorkerService/Session"));
        let (first, second, stream) =
            (tokio::spawn(first), tokio::spawn(second), tokio::spawn(stream));
        // Each wakes one, whether it waits already or not yet.
        for task in [first, second, stream] {
            while !task.is_finished() {
                go_on.notify_waiters();
                tokio::task::yield_now().await;
            }
            assert_eq!(task.await.unwrap().unwrap().headers().get("grpc-status"), None);
        }
        let later = tokio::spawn(service.call(ask(status)));
        go_on.notify_one();
        assert_eq!(later.await.unwrap().unwrap().headers().get("grpc-status"), None);
    }
}
