//! An answer that ends when the identity it is for does.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::Refusal;

/// Passes the body on; ends it with the refusal's status as soon as there is one.
pub(super) struct Watched {
    body: Option<Body>,
    withdrawn: BoxFuture<'static, Refusal>,
}

impl Watched {
    pub(super) fn new(body: Body, withdrawn: BoxFuture<'static, Refusal>) -> Self {
        Self { body: Some(body), withdrawn }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(refusal) = this.withdrawn.as_mut().poll(context) {
            // The service's side ends with it.
            this.body = None;
            let (parts, _) = refusal.status().into_http::<Body>().into_parts();
            return Poll::Ready(Some(Ok(Frame::trailers(parts.headers))));
        }
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
