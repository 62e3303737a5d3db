//! Calls to the coordinator, with errors that are one sentence.
//!
//! Every request of `RunService` is harmless to repeat, so each may be retried while nobody answers.

mod error;
mod fleet;

use clade_access::client::{Cluster, ConnectFlags, Credentials, Link};
use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use tonic::{Response, Status};

pub(crate) use clade_access::client::Patience;
pub(crate) use error::CallError;

/// Logs may be long.
const LARGEST_ANSWER: usize = 256 << 20;

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
        queue: bool,
    ) -> Result<v1::ApplyRunResponse, CallError> {
        self.call(|mut client| {
            let request = v1::ApplyRunRequest {
                document: document.to_owned(),
                base_dir: base_dir.to_owned(),
                queue,
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
        mut request: impl FnMut(RunServiceClient<Link>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = |link| RunServiceClient::new(link).max_decoding_message_size(LARGEST_ANSWER);
        let answer = self.cluster.call(self.patience, |link| request(client(link))).await;
        answer.map_err(|failed| CallError::new(&self.urls, &failed))
    }
}
