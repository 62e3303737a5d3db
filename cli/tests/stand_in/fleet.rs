//! The stand-in's machines: two, of which one can be cordoned and drained. Files in its folder say
//! how they are.

use std::path::PathBuf;

use clade_proto::v1;
use clade_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use tonic::{Request, Response, Status};

pub(crate) struct Fleet {
    folder: PathBuf,
}

impl Fleet {
    pub(crate) fn service(folder: PathBuf) -> FleetServiceServer<Self> {
        FleetServiceServer::new(Self { folder })
    }

    fn reason(&self, state: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(state)).ok()
    }

    fn known(&self, node: &str) -> Result<(), Status> {
        match node {
            "n1" => Ok(()),
            other => Err(Status::not_found(format!("no node `{other}`"))),
        }
    }

    /// Each look at a draining node finds one rank less.
    fn busy(&self) -> u32 {
        if self.reason("draining").is_none() {
            return 2;
        }
        let left = self.reason("left").and_then(|left| left.parse().ok()).unwrap_or(2_u32);
        std::fs::write(self.folder.join("left"), left.saturating_sub(1).to_string()).ok();
        left
    }
}

#[tonic::async_trait]
impl FleetService for Fleet {
    /// One worker to a page, whatever is asked for.
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let (cordoned, draining) = (self.reason("cordoned"), self.reason("draining"));
        let worker = |node: &str| v1::WorkerInfo {
            worker: format!("{node}-0a1b"),
            node: node.to_owned(),
            domain: "rack-7".to_owned(),
            phase: "attached".to_owned(),
            slots: 2,
            ..v1::WorkerInfo::default()
        };
        let response = match request.into_inner().page_token.as_str() {
            "" => v1::ListWorkersResponse {
                workers: vec![worker("n0")],
                next_page_token: "1".to_owned(),
            },
            "1" => v1::ListWorkersResponse {
                workers: vec![v1::WorkerInfo {
                    busy: self.busy(),
                    cordoned: cordoned.is_some() || draining.is_some(),
                    draining: draining.is_some(),
                    why: draining.or(cordoned).unwrap_or_default(),
                    ..worker("n1")
                }],
                next_page_token: String::new(),
            },
            other => return Err(Status::invalid_argument(format!("no page `{other}`"))),
        };
        Ok(Response::new(response))
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::CordonNodeResponse>, Status> {
        let v1::CordonNodeRequest { node, reason } = request.into_inner();
        self.known(&node)?;
        std::fs::write(self.folder.join("cordoned"), reason)?;
        Ok(Response::new(v1::CordonNodeResponse {}))
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::UncordonNodeResponse>, Status> {
        self.known(&request.into_inner().node)?;
        for state in ["cordoned", "draining", "left"] {
            std::fs::remove_file(self.folder.join(state)).ok();
        }
        Ok(Response::new(v1::UncordonNodeResponse {}))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let v1::DrainNodeRequest { node, reason } = request.into_inner();
        self.known(&node)?;
        std::fs::write(self.folder.join("draining"), reason)?;
        Ok(Response::new(v1::DrainNodeResponse {}))
    }
}
