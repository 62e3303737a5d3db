//! Calls to the coordinator: deadlines, a few retries, and errors that are one sentence.
//!
//! Every request of `RunService` is harmless to repeat, so each may be retried while nobody answers.

mod error;

use std::time::Duration;

use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) use error::CallError;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A report or all logs of a run are read from the store: more than a moment, less than this.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// Pauses between tries while nobody answers.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// Logs may be long.
const LARGEST_ANSWER: usize = 256 << 20;

/// How patient calls are when nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Fails at once: the caller has a loop of its own.
    Once,
    /// Tries a few times within a second.
    Few,
    /// Tries until somebody answers: the caller knows that somebody will, or stops waiting.
    Endless,
}

impl Patience {
    /// How long to wait before the try after `tries`, if there is to be one.
    fn pause(self, tries: usize) -> Option<Duration> {
        match self {
            Self::Once => None,
            Self::Few => PAUSES.get(tries).copied(),
            Self::Endless => PAUSES.get(tries).or(PAUSES.last()).copied(),
        }
    }
}

/// A cheap handle on one coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    url: String,
    client: RunServiceClient<Channel>,
    patience: Patience,
}

impl Coordinator {
    /// Names a coordinator; the first call connects, and each later one reconnects if need be.
    pub(crate) fn at(url: &str) -> Result<Self, CallError> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let bad = |why: String| CallError::BadAddress { url: url.to_owned(), why };
        if !full.starts_with("http://") {
            return Err(bad("only http:// is spoken yet".to_owned()));
        }
        let endpoint = Endpoint::from_shared(full.clone())
            .map_err(|error| bad(error.to_string()))?
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        let client = RunServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(LARGEST_ANSWER);
        Ok(Self { url: full, client, patience: Patience::Few })
    }

    /// The same coordinator, asked more or less patiently.
    pub(crate) fn with(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks for one run, or for all if `run` is empty.
    pub(crate) async fn status(&self, run: &str) -> Result<v1::GetStatusResponse, CallError> {
        self.call(|mut client| {
            let request = v1::GetStatusRequest { run: run.to_owned() };
            async move { client.get_status(request).await }
        })
        .await
    }

    pub(crate) async fn apply(
        &self,
        document: &str,
        base_dir: &str,
    ) -> Result<v1::ApplyRunResponse, CallError> {
        self.call(|mut client| {
            let request = v1::ApplyRunRequest {
                document: document.to_owned(),
                base_dir: base_dir.to_owned(),
                queue: false,
            };
            async move { client.apply_run(request).await }
        })
        .await
    }

    pub(crate) async fn cancel(&self, run: &str) -> Result<(), CallError> {
        self.call(|mut client| {
            let request = v1::CancelRunRequest { run: run.to_owned() };
            async move { client.cancel_run(request).await }
        })
        .await
        .map(|v1::CancelRunResponse {}| ())
    }

    pub(crate) async fn report(&self, run: &str) -> Result<v1::GetReportResponse, CallError> {
        self.call(|mut client| {
            let request = v1::GetReportRequest { run: run.to_owned() };
            async move { client.get_report(request).await }
        })
        .await
    }

    pub(crate) async fn logs(
        &self,
        run: &str,
        work: &str,
        tail_bytes: u64,
    ) -> Result<Vec<v1::Log>, CallError> {
        self.call(|mut client| {
            let request =
                v1::GetLogsRequest { run: run.to_owned(), work: work.to_owned(), tail_bytes };
            async move { client.get_logs(request).await }
        })
        .await
        .map(|v1::GetLogsResponse { logs }| logs)
    }

    async fn call<T, F>(
        &self,
        mut request: impl FnMut(RunServiceClient<Channel>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut tries = 0;
        loop {
            let answer = request(self.client.clone()).await;
            let error = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => CallError::new(&self.url, &status),
            };
            match self.patience.pause(tries) {
                Some(pause) if error.may_pass() => tokio::time::sleep(pause).await,
                Some(_) | None => return Err(error),
            }
            tries += 1;
        }
    }
}
