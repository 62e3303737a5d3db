//! A coordinator that plays one run by the book, as a process of its own: the real gRPC service
//! with the simplest state there is. Files in its folder decide how its run goes.

pub(crate) mod fleet;

use std::path::PathBuf;

use clade_proto::v1;
use clade_proto::v1::run_service_server::{RunService, RunServiceServer};
use tonic::{Request, Response, Status};

pub(crate) struct StandIn {
    /// `slow` makes applying take its time; `finished`, `failed`: a file of that name ends the run so.
    folder: PathBuf,
}

impl StandIn {
    pub(crate) fn service(folder: PathBuf) -> RunServiceServer<Self> {
        RunServiceServer::new(Self { folder })
    }

    fn phase(&self) -> &'static str {
        let ends = ["finished", "failed", "cancelled"];
        ends.into_iter().find(|phase| self.folder.join(phase).exists()).unwrap_or("active")
    }

    fn known(&self, run: &str) -> Result<(), Status> {
        if run.is_empty() || run == "clipart" {
            Ok(())
        } else {
            Err(Status::not_found(format!("no run `{run}`")))
        }
    }

    fn run(&self) -> v1::RunStatus {
        let phase = self.phase();
        let has_ended = phase != "active";
        let reason = if phase == "failed" { "bad data: 9 of 10 pairs are unusable" } else { "" };
        v1::RunStatus {
            run: "clipart".to_owned(),
            phase: phase.to_owned(),
            reason: reason.to_owned(),
            parts: vec![v1::PartStatus {
                name: "seed".to_owned(),
                phase: if has_ended { "done" } else { "running" }.to_owned(),
                done: if has_ended { 288 } else { 144 },
                total: 288,
                unit: "steps".to_owned(),
                rate: 3.2,
                eta_seconds: if has_ended { -1.0 } else { 45.0 },
                loss: 3.25,
                ..v1::PartStatus::default()
            }],
            created_ms: 1,
            ended_ms: if has_ended { 2 } else { 0 },
            eta_seconds: -1.0,
            ..v1::RunStatus::default()
        }
    }
}

#[tonic::async_trait]
impl RunService for StandIn {
    async fn apply_run(
        &self,
        request: Request<v1::ApplyRunRequest>,
    ) -> Result<Response<v1::ApplyRunResponse>, Status> {
        let v1::ApplyRunRequest { document, base_dir, queue: _ } = request.into_inner();
        assert!(document.contains("name: clipart") && base_dir.starts_with('/'));
        if self.folder.join("slow").exists() {
            // More than any other request is given.
            tokio::time::sleep(std::time::Duration::from_secs(16)).await;
        }
        let effect = match self.phase() {
            "active" => v1::ApplyEffect::Created,
            _ => v1::ApplyEffect::Unchanged,
        };
        let run = "clipart".to_owned();
        Ok(Response::new(v1::ApplyRunResponse { run, effect: effect.into() }))
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        self.known(&request.into_inner().run)?;
        std::fs::write(self.folder.join("cancelled"), "")?;
        Ok(Response::new(v1::CancelRunResponse {}))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let v1::GetStatusRequest { run, page_size: _, page_token } = request.into_inner();
        self.known(&run)?;
        if self.folder.join("away").exists() {
            return Err(Status::unavailable("starting"));
        }
        // The only run comes on a page of its own after an empty one, if there are pages.
        if self.folder.join("paged").exists() && page_token.is_empty() {
            return Ok(Response::new(v1::GetStatusResponse {
                term: 1,
                next_page_token: "clip".to_owned(),
                ..v1::GetStatusResponse::default()
            }));
        }
        Ok(Response::new(v1::GetStatusResponse {
            term: 1,
            runs: vec![self.run()],
            ..v1::GetStatusResponse::default()
        }))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        self.known(&request.into_inner().run)?;
        if self.phase() != "finished" {
            return Err(Status::failed_precondition("run `clipart` has not finished yet"));
        }
        Ok(Response::new(v1::GetReportResponse {
            markdown: "# Report of clipart\n".to_owned(),
            json: "{\"run\": \"clipart\"}".to_owned(),
            report: "/store/report.md".to_owned(),
            bundle: "/store/bundle/ab12".to_owned(),
        }))
    }

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<v1::GetLogsResponse>, Status> {
        let v1::GetLogsRequest { run, work, tail_bytes } = request.into_inner();
        self.known(&run)?;
        let name = format!("models/{work}/gang-1/logs/rank-0.log");
        let text = format!("{tail_bytes} bytes at most\n");
        Ok(Response::new(v1::GetLogsResponse {
            logs: vec![v1::Log { name, text, is_cut: false }],
            left_out: 0,
        }))
    }

    /// One job to a page, whatever is asked for.
    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let v1::ListJobsRequest { run, stage, phase, page_size: _, page_token } =
            request.into_inner();
        self.known(&run)?;
        let job = |part: u32| v1::JobStatus {
            work: format!("embed.{part}"),
            phase: if part == 1 { "failed" } else { "running" }.to_owned(),
            reason: if part == 1 { "bad data: no pairs" } else { "on w1:0" }.to_owned(),
            incarnation: 1,
            ..v1::JobStatus::default()
        };
        let all: Vec<_> = (0..3).map(job).collect();
        let is_wanted = |job: &v1::JobStatus| {
            job.work > page_token
                && (stage.is_empty() || job.work.starts_with(&stage))
                && (phase.is_empty() || job.phase == phase)
        };
        let mut rest = all.into_iter().filter(is_wanted);
        let jobs: Vec<_> = rest.by_ref().take(1).collect();
        let last = jobs.last().filter(|_| rest.next().is_some()).map(|job| job.work.clone());
        let next_page_token = last.unwrap_or_default();
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token }))
    }
}
