//! Our transport beneath the protocol's crate.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use reqwest::Response;
use tower::Service;

use super::SERVICE;
use crate::service::{
    ServiceError,
    provider::{Http, Problem, place_of, refused},
};

/// Sends what the protocol's crate makes.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    http: Http,
}

impl Transport {
    pub(super) const fn new(http: Http) -> Self {
        Self { http }
    }
}

impl Service<HttpRequestFactory> for Transport {
    type Response = Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let http = self.http.clone();
        Box::pin(async move {
            let request = factory.build().await.map_err(|error| Failure(explain(&http, error)))?;
            http.send(request).await.map_err(Failure)
        })
    }
}

/// Our error on its way through the protocol's crate.
#[derive(Debug)]
pub(super) struct Failure(ServiceError);

impl From<Failure> for OpenAIError {
    fn from(Failure(error): Failure) -> Self {
        Self::Boxed(Box::new(error))
    }
}

/// What an error of the protocol's crate means. Ours come back out of it as they went in.
pub(super) fn explain(http: &Http, error: OpenAIError) -> ServiceError {
    match error {
        OpenAIError::Boxed(boxed) => match boxed.downcast::<ServiceError>() {
            Ok(ours) => *ours,
            Err(other) => http.cut_off(&other.to_string()),
        },
        OpenAIError::Reqwest(error) => http.unsent(error),
        OpenAIError::JSONDeserialize(error, _) => http.unreadable(&place_of(&error)),
        OpenAIError::StreamError(error) => http.cut_off(&error.to_string()),
        OpenAIError::ApiError(error) => http.midway(&Problem::saying(&error.to_string())),
        other => refused(
            SERVICE,
            format!(
                "the request to {} could not be made{}",
                http.host(),
                http.quote(&other.to_string())
            ),
        ),
    }
}
