//! What `FleetService` is asked. Each of its requests is harmless to repeat.

use clade_access::client::Link;
use clade_proto::v1;
use clade_proto::v1::fleet_service_client::FleetServiceClient;
use tonic::{Code, Response, Status};

use super::{CallError, Coordinator, LARGEST_ANSWER, PAGE};

impl Coordinator {
    /// All workers, in the order of their ids; those that come and go meanwhile may be missing.
    pub(crate) async fn workers(&self) -> Result<Vec<v1::WorkerInfo>, CallError> {
        let mut workers = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListWorkersRequest { page_size: PAGE, page_token };
            let page = self
                .ask(|mut client| {
                    let request = request.clone();
                    async move { client.list_workers(request).await }
                })
                .await?;
            let v1::ListWorkersResponse { workers: found, next_page_token } = page;
            workers.extend(found);
            // A coordinator that repeats itself would be asked for ever.
            if next_page_token.is_empty() || next_page_token == request.page_token {
                return Ok(workers);
            }
            page_token = next_page_token;
        }
    }

    pub(crate) async fn cordon(&self, node: &str, reason: &str) -> Result<(), CallError> {
        let request = v1::CordonNodeRequest { node: node.to_owned(), reason: reason.to_owned() };
        let v1::CordonNodeResponse {} = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.cordon_node(request).await }
            })
            .await?;
        Ok(())
    }

    pub(crate) async fn uncordon(&self, node: &str) -> Result<(), CallError> {
        let request = v1::UncordonNodeRequest { node: node.to_owned() };
        let v1::UncordonNodeResponse {} = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.uncordon_node(request).await }
            })
            .await?;
        Ok(())
    }

    pub(crate) async fn drain(&self, node: &str, reason: &str) -> Result<(), CallError> {
        let request = v1::DrainNodeRequest { node: node.to_owned(), reason: reason.to_owned() };
        let v1::DrainNodeResponse {} = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.drain_node(request).await }
            })
            .await?;
        Ok(())
    }

    async fn ask<T, F>(
        &self,
        mut request: impl FnMut(FleetServiceClient<Link>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = |link| FleetServiceClient::new(link).max_decoding_message_size(LARGEST_ANSWER);
        let answer = self.cluster.call(self.patience, |link| request(client(link))).await;
        answer.map_err(|failed| {
            if failed.status().code() == Code::NotFound {
                let message = failed.status().message().to_owned();
                return CallError::Refused { message, hint: "; `clade workers` lists the nodes" };
            }
            CallError::new(&self.urls, &failed)
        })
    }
}
