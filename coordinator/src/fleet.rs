//! The operators' side of the machines: list, cordon, drain.

use clade_core::ids::NodeName;
use clade_proto::v1;
use clade_proto::v1::fleet_service_server::FleetService;
use tonic::{Request, Response, Status};

use crate::engine::Command;
use crate::question::{Page, Question};
use crate::role::Roles;

/// Serves what operators ask about machines, and do to them.
pub(crate) struct Fleet {
    roles: Roles,
}

impl Fleet {
    pub(crate) const fn new(roles: Roles) -> Self {
        Self { roles }
    }

    async fn cordon(&self, node: String, reason: String, drain: bool) -> Result<(), Status> {
        if reason.trim().is_empty() {
            return Err(Status::invalid_argument("a reason is missing: people will ask for it"));
        }
        let node = NodeName(node);
        let cordon = |reply| Command::Cordon { node, reason, drain, reply };
        self.roles.engine()?.ask(cordon).await?
    }
}

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let v1::ListWorkersRequest { page_size, page_token } = request.into_inner();
        let after = if page_token.is_empty() { None } else { Some(page_token) };
        let page = Page { size: page_size, after };
        let workers = self.roles.ask(|reply| Question::Workers { page, reply }).await?;
        Ok(Response::new(workers))
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::CordonNodeResponse>, Status> {
        let v1::CordonNodeRequest { node, reason } = request.into_inner();
        self.cordon(node, reason, false).await?;
        Ok(Response::new(v1::CordonNodeResponse {}))
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::UncordonNodeResponse>, Status> {
        let node = NodeName(request.into_inner().node);
        self.roles.engine()?.ask(|reply| Command::Uncordon { node, reply }).await??;
        Ok(Response::new(v1::UncordonNodeResponse {}))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let v1::DrainNodeRequest { node, reason } = request.into_inner();
        self.cordon(node, reason, true).await?;
        Ok(Response::new(v1::DrainNodeResponse {}))
    }
}
