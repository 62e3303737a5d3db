//! Calls to the coordinator, with errors that are one sentence.
//!
//! Every request of `RunService` is harmless to repeat, so each may be retried while nobody answers.

mod error;
mod fleet;

use std::time::Duration;

use clade_access::client::{Cluster, ConnectFlags, Credentials, Link};
use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use tonic::{Response, Status};

pub(crate) use clade_access::client::Patience;
pub(crate) use error::CallError;

/// Logs may be long.
const LARGEST_ANSWER: usize = 256 << 20;

/// Things asked for at a time.
const PAGE: u32 = 1000;

/// As long as a coordinator takes over a request at most: a bucket's listing may take a minute.
const APPLY_LIMIT: Duration = Duration::from_secs(120);

/// A cheap handle on the coordinators of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    /// As people read them.
    urls: String,
    cluster: Cluster,
    patience: Patience,
}

impl Coordinator {
    /// Names a coordinator that asks nobody who they are; the first call connects.
    pub(crate) fn at(url: &str) -> Result<Self, CallError> {
        Ok(Self::of(Cluster::new(&[url.to_owned()], Credentials::none())?))
    }

    /// Names the coordinators of the command line, and says who asks them.
    pub(crate) fn from_flags(flags: &ConnectFlags) -> Result<Self, CallError> {
        Ok(Self::of(Cluster::from_flags(flags)?))
    }

    fn of(cluster: Cluster) -> Self {
        Self { urls: cluster.urls().join(", "), cluster, patience: Patience::Few }
    }

    /// The same coordinators, asked more or less patiently.
    pub(crate) fn with(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.urls
    }

    /// Asks for one run, or for all if `run` is empty, however many pages that are.
    pub(crate) async fn status(&self, run: &str) -> Result<v1::GetStatusResponse, CallError> {
        let mut request =
            v1::GetStatusRequest { run: run.to_owned(), ..v1::GetStatusRequest::default() };
        let mut whole: Option<v1::GetStatusResponse> = None;
        loop {
            let mut page = self
                .call(|mut client| {
                    let request = request.clone();
                    async move { client.get_status(request).await }
                })
                .await?;
            let next = std::mem::take(&mut page.next_page_token);
            match &mut whole {
                Some(whole) => whole.runs.extend(page.runs),
                None => whole = Some(page),
            }
            // A coordinator that repeats itself would be asked for ever.
            let is_last = next.is_empty() || next == request.page_token;
            request.page_token = next;
            if is_last && let Some(whole) = whole {
                return Ok(whole);
            }
        }
    }

    /// Jobs of a run, of all stages and phases if these are empty, however many pages that are.
    pub(crate) async fn jobs(
        &self,
        run: &str,
        stage: &str,
        phase: &str,
    ) -> Result<Vec<v1::JobStatus>, CallError> {
        let mut request = v1::ListJobsRequest {
            run: run.to_owned(),
            stage: stage.to_owned(),
            phase: phase.to_owned(),
            page_size: PAGE,
            page_token: String::new(),
        };
        let mut all = Vec::new();
        loop {
            let page = self
                .call(|mut client| {
                    let request = request.clone();
                    async move { client.list_jobs(request).await }
                })
                .await?;
            let v1::ListJobsResponse { jobs, next_page_token } = page;
            all.extend(jobs);
            if next_page_token.is_empty() || next_page_token == request.page_token {
                return Ok(all);
            }
            request.page_token = next_page_token;
        }
    }

    /// Gives a run to the leader, which looks at its inputs and its store before it answers.
    pub(crate) async fn apply(
        &self,
        document: &str,
        base_dir: &str,
        queue: bool,
    ) -> Result<v1::ApplyRunResponse, CallError> {
        let request = |mut client: RunServiceClient<Link>| {
            let request = v1::ApplyRunRequest {
                document: document.to_owned(),
                base_dir: base_dir.to_owned(),
                queue,
            };
            async move { client.apply_run(request).await }
        };
        let answer =
            self.cluster.call_within(APPLY_LIMIT, self.patience, |link| request(client(link)));
        answer.await.map_err(|failed| CallError::new(&self.urls, &failed))
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
    ) -> Result<v1::GetLogsResponse, CallError> {
        self.call(|mut client| {
            let request =
                v1::GetLogsRequest { run: run.to_owned(), work: work.to_owned(), tail_bytes };
            async move { client.get_logs(request).await }
        })
        .await
    }

    async fn call<T, F>(
        &self,
        mut request: impl FnMut(RunServiceClient<Link>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.cluster.call(self.patience, |link| request(client(link))).await;
        answer.map_err(|failed| CallError::new(&self.urls, &failed))
    }
}

fn client(link: Link) -> RunServiceClient<Link> {
    RunServiceClient::new(link).max_decoding_message_size(LARGEST_ANSWER)
}
